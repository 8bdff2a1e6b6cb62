"""What the trainers of language agents share: their flags, the agent, evaluation, saving."""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import envs
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.agent import Agent, SharedConfig
from jaxrl.lm.config import preset
from jaxrl.lm.play import limits, play
from jaxrl.policy import named_leaves
from jaxrl.program import seed_keys
from jaxrl.statistics import summarize_returns
from jaxrl.text import ByteTokenizer, PlainChat
from train import flags, loop
from train.transcribe import Transcriber

EVALUATION_LANES = 256


@dataclass(frozen=True)
class Options(loop.Options):
    env: str = "language/GuessTheNumber-easy"  # environment id; `python -m envs` lists them
    model: str = "tiny"  # a preset to train from scratch
    eval_episodes: int = 1024  # fresh episodes of each seed for the final return


def make_agent(args: Any, cfg: SharedConfig) -> Agent:
    """The agent that the options name; ValueError where they do not fit."""
    env = envs.make(args.env, **flags.parse_fields(args.env_args))
    if not isinstance(env, LanguageEnvironment):
        raise ValueError(
            f"env={args.env} is not spoken to; try language/GuessTheNumber-easy, or train.ppo."
        )
    tokenizer = ByteTokenizer()
    chat = PlainChat(tokenizer)
    sizes = limits(env, chat, cfg.response_tokens, cfg.context)
    model = replace(preset(args.model, tokenizer.vocab_size), context=sizes.context)
    return Agent(env, chat, sizes, model)


def evaluate_models(
    models: Any, agent: Agent, cfg: SharedConfig, seed: int, episodes: int
) -> dict[str, Any]:
    """Fresh episodes of each model [K, ...] at the temperature it was trained with."""
    count = jax.tree.leaves(models)[0].shape[0]
    seeds = np.arange(seed, seed + count, dtype=np.uint32)

    def one(model_and_seed):
        model, seed = model_and_seed
        key = seed_keys(seed)[2]
        record, _ = play(
            model, agent.env, agent.chat, agent.limits, key, np.arange(episodes, dtype=np.int32),
            group_size=1, num_lanes=EVALUATION_LANES, temperature=cfg.temperature,
            refill_at=cfg.refill_at,
        )  # fmt: skip
        return record.episode_return, record.success, record.num_turns, record.cut.sum()

    returns, success, turns, cut = jax.device_get(
        jax.jit(lambda x: jax.lax.map(one, x))((models, seeds))
    )
    return summarize_returns(returns) | {
        "success": float(success.mean()),
        "success_per_seed": success.mean(1).tolist(),
        "turns": float(turns.mean()),
        "turns_per_seed": turns.mean(1).tolist(),
        "cut_responses": int(cut.sum()),
    }


def save_models(agent: Agent, folder: Path, models: Any) -> None:
    """Weights of all seeds and what rebuilds the model, into `policy/`."""
    folder = folder / "policy"
    folder.mkdir(parents=True, exist_ok=True)
    weights: Any = {name: np.asarray(x) for name, x in named_leaves(models).items()}
    np.savez(folder / "weights.npz", **weights)
    (folder / "model.json").write_text(json.dumps(asdict(agent.model_config), indent=2) + "\n")


EPISODE_METRICS = frozenset(
    {"episode_return", "success", "turns", "truncated_share", "cut_share", "response_tokens"}
    | {"learned_share", "lane_occupancy", "log_prob_gap", "uniform_groups", "approx_kl"}
    | {"clip_fraction", "ratio_error", "kl_to_reference"}
)


def make_task(args: Any, algorithm: Any, name: str) -> loop.Task:
    """An algorithm for language agents as the host loop wants it."""
    cfg, agent = args.algo, make_agent(args, args.algo)
    return loop.Task(
        name=name,
        init=partial(algorithm.init, cfg=cfg, agent=agent),
        update=partial(algorithm.update, cfg=cfg, agent=agent),
        specs=algorithm.specs(),
        num_iterations=cfg.num_iterations,
        steps_per_iteration=cfg.episodes,
        num_groups=cfg.num_prompts // cfg.num_minibatches,
        minibatch_rows=cfg.episodes * agent.limits.context,
        episode_metrics=EPISODE_METRICS,
        policy=lambda state: state.model,
        save=partial(save_models, agent),
        evaluate=lambda models, seed, n: evaluate_models(models, agent, cfg, seed, n),
        shown=lambda state: state.shown,
        transcribe=Transcriber(agent.chat.tokenizer, agent.chat.end_of_turn, cfg.group_size),
        unit="episodes",
        told=frozenset({"success", "turns"}),
        how_to_play="",
        one_by_one=True,
    )

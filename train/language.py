"""What the trainers of language agents share: their flags, the agent, evaluation, saving."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import envs
from jaxrl.algos import sft
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.agent import Agent, SharedConfig
from jaxrl.lm.config import ModelConfig, RopeScaling, preset
from jaxrl.lm.model import Transformer
from jaxrl.lm.play import limits, play
from jaxrl.policy import fill_leaves, named_leaves, read_weights
from jaxrl.program import seed_keys
from jaxrl.statistics import summarize_returns
from jaxrl.text import ByteTokenizer, PlainChat
from train import flags, loop
from train.transcribe import Transcriber

EVALUATION_LANES = 256


@dataclass(frozen=True)
class Options(loop.Options):
    env: str = "language/GuessTheNumber-easy"  # environment id; `python -m envs` lists them
    model: str = "nano"  # a preset to train from scratch: nano, tiny, small or base
    init_from: Path | None = None  # start from the first seed's weights of this run's folder
    eval_episodes: int = 1024  # fresh episodes of each seed for the final return


def make_agent(args: Any, cfg: SharedConfig) -> Agent:
    """The agent that the options name; ValueError where they do not fit."""
    env = make_env(args.env, args.env_args)
    if cfg.sft_steps or isinstance(cfg, sft.Config):
        check_player(args.env, env, cfg.sft_player)
    tokenizer = ByteTokenizer()
    chat = PlainChat(tokenizer)
    sizes = limits(env, chat, cfg.response_tokens, cfg.context)
    if args.init_from is not None:
        model, weights = load_models(args.init_from)
        return Agent(env, chat, sizes, model, jax.tree.map(lambda x: jnp.asarray(x[0]), weights))
    model = replace(preset(args.model, tokenizer.vocab_size), context=sizes.context)
    return Agent(env, chat, sizes, model)


def make_env(env_id: str, env_args: Any) -> LanguageEnvironment:
    """The environment that is spoken to; ValueError where the id names another kind."""
    env = envs.make(env_id, **flags.parse_fields(env_args))
    if not isinstance(env, LanguageEnvironment):
        raise ValueError(
            f"env={env_id} is not spoken to; try language/GuessTheNumber-easy, or train.ppo."
        )
    return env


def check_player(env_id: str, env: LanguageEnvironment, player: str) -> None:
    """ValueError where the environment has no such player to learn from."""
    method = {"expert": "expert", "random": "random_player"}[player]
    if getattr(type(env), method) is getattr(LanguageEnvironment, method):
        raise ValueError(
            f"sft_player={player}: {env_id} has no such player; write its {method}(state, key), or "
            "leave the supervised steps out."
        )


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
            model, agent.env, agent.chat, agent.limits, key, jnp.arange(episodes),
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


def load_models(folder: Path) -> tuple[ModelConfig, Transformer]:
    """The models of all seeds of a run folder, leaves [K, ...]; ValueError where there are none."""
    try:
        saved = json.loads((folder / "policy" / "model.json").read_text())
    except FileNotFoundError:
        raise ValueError(
            f"init_from={folder} holds no policy/model.json; give the folder of a finished run of "
            "a language agent."
        ) from None
    known: Any = {name: tuple(x) if isinstance(x, list) else x for name, x in saved.items()}
    if known.get("rope_scaling"):
        known["rope_scaling"] = RopeScaling(**known["rope_scaling"])
    model_config = ModelConfig(**known)
    path = folder / "policy" / "weights.npz"
    leaves = read_weights(path)
    count = min(len(x) for x in leaves.values())

    def stacked():
        model = Transformer(model_config, nnx.Rngs(0))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), model)

    return model_config, fill_leaves(jax.eval_shape(stacked), leaves, str(path))


def evaluate_run(folder: Path, options: dict[str, Any], seed: int, episodes: int) -> dict[str, Any]:
    """Fresh episodes of every seed of a finished run of a language agent."""
    shared = {f.name: options["algo"][f.name] for f in fields(SharedConfig)}
    cfg = SharedConfig(**shared)
    env = make_env(options["env"], options["env_args"])
    chat = PlainChat(ByteTokenizer())
    model_config, models = load_models(folder)
    sizes = limits(env, chat, cfg.response_tokens, cfg.context)
    return evaluate_models(models, Agent(env, chat, sizes, model_config), cfg, seed, episodes)


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
        num_groups=math.gcd(
            cfg.num_prompts // cfg.num_minibatches,
            cfg.num_lanes,
            cfg.sft_episodes // cfg.micro_batch,
            cfg.episodes // cfg.num_minibatches // cfg.micro_batch,
        ),
        minibatch_rows=cfg.episodes * agent.limits.context,
        episode_metrics=EPISODE_METRICS,  # NaN while nothing is played
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

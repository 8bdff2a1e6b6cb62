"""What the trainers of language agents share: their flags, the agent, evaluation, saving."""

from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import envs
from jaxrl.algos import sft
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.learn.agent import Agent, SharedConfig, pour
from jaxrl.lm.model.transformer import Transformer
from jaxrl.lm.play.rounds import Limits, limits, play
from jaxrl.program import seed_keys
from jaxrl.statistics import summarize_returns
from jaxrl.text import Chat
from jaxrl.train import chat_data, flags, loop, models
from jaxrl.train.transcribe import Transcriber

EVALUATION_LANES = 256


@dataclass(frozen=True)
class Options(loop.Options):
    env: str = "language/GuessTheNumber-easy"  # environment id; `python -m envs` lists them
    model: str = "nano"  # from scratch: nano, tiny, small or base; or a folder of transformers
    init_from: Path | None = None  # start from a run's first seed, or such a folder
    tokenizer: Path | None = None  # a tokenizer.json; by default the model's own, or bytes
    chat: Literal["", "plain", "chatml", "llama3", "gemma"] = ""  # by default what fits
    system: str = ""  # message before the conversation; by default what the model's template has
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the computation, not of the parameters
    lora_rank: int = 0  # train adapters of this rank beside frozen matrices; 0: every parameter
    lora_alpha: float = 32.0  # what they add is times lora_alpha / lora_rank
    data: Path | None = None  # JSONL of chat messages to imitate instead of scripted play
    split: bool = False  # parameters and optimiser state over the devices, for a large model
    eval_episodes: int = 1024  # fresh episodes of each seed for the final return


def make_agent(args: Any, cfg: SharedConfig) -> tuple[models.Speech, Agent, Transformer | None]:
    """How the agent that the options name speaks, it, and the weights it starts with if not random.

    ValueError where the options do not fit.
    """
    if args.split and cfg.optimizer == "muon":
        raise ValueError("optimizer=muon needs whole matrices; leave --split out or try adam.")
    env = make_env(args.env, args.env_args)
    imitates = cfg.sft_steps or cfg.sft_coef or isinstance(cfg, sft.Config)
    if imitates and args.data is None:
        check_player(args.env, env, cfg.sft_player)
    said, model, weights = models.start(
        args.model, args.init_from, args.tokenizer, args.chat, args.system, args.dtype
    )
    if args.lora_rank:
        model = replace(model, lora_rank=args.lora_rank, lora_alpha=args.lora_alpha)
    sizes = sizes_of(env, said.chat, cfg)
    examples = None if args.data is None else chat_data.read(args.data, said)
    if examples is not None:
        longest = examples.token.shape[1]
        if 0 < cfg.context < longest:
            raise ValueError(
                f"context={cfg.context} is too short for {args.data}, whose longest conversation "
                f"has {longest} tokens; try --algo.context {longest}."
            )
        sizes = replace(sizes, context=max(sizes.context, longest))
        examples = chat_data.widen(examples, sizes.context, sizes.max_turns)
    if weights is None:
        model = replace(model, context=sizes.context)
    elif model.context < sizes.context:
        raise ValueError(
            f"the model's context of {model.context} tokens is too short for {args.env}, whose "
            f"longest episode needs {sizes.context}; set --algo.response-tokens lower."
        )
    return said, Agent(env, said.chat, sizes, model, args.split, examples), weights


def make_env(env_id: str, env_args: Any) -> LanguageEnvironment:
    """The environment that is spoken to; ValueError where the id names another kind."""
    env = envs.make(env_id, **flags.parse_fields(env_args))
    if not isinstance(env, LanguageEnvironment):
        raise ValueError(
            f"env={env_id} is not spoken to; try language/GuessTheNumber-easy, or train.ppo."
        )
    return env


def sizes_of(env: LanguageEnvironment, chat: Chat, cfg: SharedConfig) -> Limits:
    """The sizes of conversations that the options ask for."""
    return limits(env, chat, cfg.response_tokens, cfg.context, cfg.prompt_tokens, cfg.answer_tokens)


def check_player(env_id: str, env: LanguageEnvironment, player: str) -> None:
    """ValueError where the environment has no such player to learn from."""
    method = {"expert": "expert", "random": "random_player"}[player]
    if getattr(type(env), method) is getattr(LanguageEnvironment, method):
        raise ValueError(
            f"sft_player={player}: {env_id} has no such player; write its {method}(state, key), or "
            "leave the supervised steps out."
        )


def evaluate_models(
    trained: Any, agent: Agent, cfg: SharedConfig, seed: int, episodes: int
) -> dict[str, Any]:
    """Fresh episodes of each trained model [K, ...] at the temperature it was trained with."""
    count = jax.tree.leaves(trained)[0].shape[0]
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
        jax.jit(lambda x: jax.lax.map(one, x))((trained, seeds))
    )
    return summarize_returns(returns) | {
        "success": float(success.mean()),
        "success_per_seed": success.mean(1).tolist(),
        "turns": float(turns.mean()),
        "turns_per_seed": turns.mean(1).tolist(),
        "cut_responses": int(cut.sum()),
    }


def evaluate_run(folder: Path, options: dict[str, Any], seed: int, episodes: int) -> dict[str, Any]:
    """Fresh episodes of every seed of a finished run of a language agent."""
    shared = {f.name: options["algo"][f.name] for f in fields(SharedConfig)}
    cfg = SharedConfig(**shared)
    env = make_env(options["env"], options["env_args"])
    chat = models.load_speech(folder / "policy").chat
    model_config, trained = models.load_models(folder)
    sizes = sizes_of(env, chat, cfg)
    return evaluate_models(trained, Agent(env, chat, sizes, model_config), cfg, seed, episodes)


EPISODE_METRICS = frozenset(
    {"episode_return", "success", "turns", "truncated_share", "cut_share", "unread_share"}
    | {"response_tokens", "learned_share", "lane_occupancy", "log_prob_gap", "uniform_groups"}
    | {"approx_kl", "clip_fraction", "ratio_error", "kl_to_reference"}
    | {"value_loss", "explained_variance", "critic_grad_norm"}
)


def make_task(args: Any, algorithm: Any, name: str) -> loop.Task:
    """An algorithm for language agents as the host loop wants it."""
    cfg = args.algo
    said, agent, weights = make_agent(args, cfg)
    return loop.Task(
        name=name,
        init=partial(algorithm.init, cfg=cfg, agent=agent),
        update=partial(algorithm.update, cfg=cfg, agent=agent),
        specs=partial(algorithm.specs, cfg, agent),
        num_iterations=cfg.num_iterations,
        steps_per_iteration=cfg.episodes,
        warm_up=cfg.sft_steps,
        num_groups=cfg.num_groups,
        minibatch_rows=cfg.episodes * agent.limits.context,
        episode_metrics=EPISODE_METRICS,  # NaN while nothing is played
        policy=lambda state: state.model,
        save=partial(models.save_models, said, agent.model_config),
        evaluate=lambda trained, seed, n: evaluate_models(trained, agent, cfg, seed, n),
        fill=None if weights is None else partial(pour, weights=weights),
        shown=lambda state: state.shown,
        transcribe=Transcriber(
            agent.chat.tokenizer, agent.chat.end_of_turn, cfg.episodes // cfg.num_prompts
        ),
        unit="episodes",
        told=frozenset({"success", "turns"}),
        how_to_play="",
        one_by_one=True,
    )

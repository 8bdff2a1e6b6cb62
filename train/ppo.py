"""Train with PPO: `python -m train.ppo` solves CartPole-v1 in 0.5 M steps, seconds on two cores."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jax

from jaxrl import envs, sgd
from jaxrl.algos import ppo, turn_ppo
from jaxrl.language import LanguageEnvironment
from jaxrl.policy import save_policy
from jaxrl.train import flags, language, loop
from jaxrl.train.evaluate import evaluate_policies
from jaxrl.train.run_folder import read_config

PRESETS = {
    "default": ppo.Config(),
    # Pendulum-v1: better than -180 in 0.5 M steps
    "continuous": ppo.Config(
        gamma=0.95,
        learning_rate=1e-3,
        entropy_coef=0.0,
        num_epochs=8,
        num_minibatches=8,
        normalize_obs=True,
        normalize_reward=True,
    ),
    # Breakout-MinAtar; an MLP on the 400 pixels is several times faster than the CNN on a CPU
    "minatar": ppo.Config(
        total_steps=10_000_000,
        num_envs=64,
        learning_rate=5e-3,
        num_minibatches=8,
        activation="relu",
    ),
}


@dataclass(frozen=True)
class Args(loop.Options):
    preset: str = "default"  # options to start from: default, continuous or minatar
    algo: ppo.Config = field(default_factory=ppo.Config)


def make_task(args: Args) -> loop.Task:
    """PPO on the environment that the options name; ValueError where they do not fit."""
    cfg = args.algo
    raw = envs.make(args.env, **flags.parse_fields(args.env_args))
    env = ppo.wrap(raw, cfg)
    key = jax.random.key(0)
    jax.eval_shape(partial(ppo.make_policy, cfg=cfg, env=env), key)  # refuses what does not fit
    _, first = jax.eval_shape(env.reset, key)
    return loop.Task(
        name="ppo",
        init=partial(ppo.init, cfg=cfg, env=env),
        update=partial(ppo.update, cfg=cfg, env=env),
        specs=ppo.specs(),
        num_iterations=cfg.num_iterations,
        steps_per_iteration=cfg.num_envs * cfg.num_steps,
        num_groups=cfg.num_envs // sgd.group_size(cfg.num_steps, cfg.num_minibatches),
        minibatch_rows=cfg.num_envs * cfg.num_steps // cfg.num_minibatches,
        episode_metrics=frozenset({*first.metrics, "truncated_share"} - {"pool_exhausted"}),
        policy=partial(ppo.trained_policy, env=raw),
        save=lambda folder, policies: save_policy(folder / "policy", policies),
        evaluate=lambda policies, seed, n: evaluate_policies(policies, raw, seed, n),
    )


LANGUAGE_PRESETS = {
    "default": turn_ppo.Config(),
    # random weights: a long look at random play, then many small steps
    "from-scratch": turn_ppo.Config(
        total_episodes=40_000,
        num_lanes=128,
        num_minibatches=8,
        learning_rate=3e-3,
        lr_schedule="linear",
        entropy_coef=0.0,
        sft_steps=500,
        sft_episodes=64,
        sft_coef=0.2,
    ),
    # random weights, each turn paid for itself: much exploration, and a model of the answers
    "dense-from-scratch": turn_ppo.Config(
        total_episodes=100_000,
        num_lanes=128,
        num_epochs=1,
        num_minibatches=8,
        micro_batch=4,
        gamma=0.3,
        optimizer="muon",
        learning_rate=3e-3,
        lr_schedule="linear",
        entropy_coef=0.1,
        entropy_schedule="linear",
        sft_steps=300,
        sft_episodes=64,
        sft_coef=0.5,
        sft_moves=0.2,
    ),
}


@dataclass(frozen=True)
class LanguageArgs(language.Options):
    preset: str = "default"  # options to start from: default, from-scratch, dense-from-scratch
    algo: turn_ppo.Config = field(default_factory=turn_ppo.Config)


def make_language_task(args: LanguageArgs) -> loop.Task:
    """PPO with a critic of turns, on an environment that is spoken to."""
    return language.make_task(args, turn_ppo, "ppo")


def is_spoken_to(argv: Sequence[str]) -> bool:
    """Whether the flags name an environment for language agents, or a run with one."""
    resumed = flags.flag_value(argv, "--resume")
    env_id = flags.flag_value(argv, "--env")
    if resumed is not None and (Path(resumed) / "config.json").is_file():
        env_id = read_config(Path(resumed))["options"]["env"]
    try:
        return env_id is not None and isinstance(envs.make(env_id), LanguageEnvironment)
    except ValueError:  # told where all options are read
        return False


if __name__ == "__main__":
    if is_spoken_to(sys.argv[1:]):
        args = flags.parse(LanguageArgs, __doc__ or "", LANGUAGE_PRESETS, sys.argv[1:])
        loop.main(args, make_language_task)
    else:
        loop.main(flags.parse(Args, __doc__ or "", PRESETS, sys.argv[1:]), make_task)

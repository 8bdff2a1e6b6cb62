"""Evaluate a trained run: `python -m train.evaluate --run DIR --episodes N --seed S`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl import envs
from jaxrl.env import Environment
from jaxrl.evaluate import Episodes, evaluate
from jaxrl.policy import Policy, load_policies
from jaxrl.program import seed_keys
from jaxrl.statistics import summarize_returns
from jaxrl.train.flags import cli, parse_fields
from jaxrl.train.language import evaluate_run
from jaxrl.train.run_folder import read_config


@dataclass(frozen=True)
class Args:
    run: Path  # folder of a finished run
    episodes: int = 128  # fresh episodes of each seed
    seed: int = 1_000_000  # of the episodes; actions are sampled

    def __post_init__(self):
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes} must be at least 1; try 128.")


def evaluate_policies(policies: Policy, env: Environment, seed: int, episodes: int) -> dict:
    """Statistics of `episodes` fresh episodes for each policy [K, ...], actions sampled.

    Raises ValueError if an episode did not end: there is no return to report.
    """
    count = jax.tree.leaves(policies)[0].shape[0]
    seeds = np.arange(seed, seed + count, dtype=np.uint32)

    def play(policy: Policy, seed: jax.Array) -> Episodes:
        return evaluate(policy, env, seed_keys(seed)[2], episodes)

    played = jax.device_get(jax.jit(jax.vmap(play))(policies, seeds))
    if not played.finished.all():
        raise ValueError(
            f"{int((~played.finished).sum())} episodes did not end in 100,000 steps; give the "
            "environment a time limit: --env-args max_steps=1000."
        )
    lengths = {"episode_length": float(played.episode_length.mean())}
    return summarize_returns(played.episode_return) | lengths


def main(args: Args) -> dict[str, Any]:
    options = read_config(args.run)["options"]
    if (args.run / "policy" / "model.json").is_file():
        result = evaluate_run(args.run, options, args.seed, args.episodes)
        print(json.dumps(result, indent=2))
        return result
    env = envs.make(options["env"], **parse_fields(options["env_args"]))
    result = evaluate_policies(load_policies(args.run), env, args.seed, args.episodes)
    print(json.dumps(result, indent=2))
    return result


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    try:
        main(cli(Args, __doc__ or "", argv))
    except (ValueError, ImportError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run(sys.argv[1:])

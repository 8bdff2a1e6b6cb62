"""Evaluate a trained run: `python -m train.evaluate --run DIR --episodes N --seed S`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from jaxrl import envs, memory
from jaxrl.config import check_fields
from jaxrl.files import without_nan
from jaxrl.program import members
from jaxrl.train import flags, table
from jaxrl.train.paths import Folder
from jaxrl.train.run_folder import read_config


@dataclass(frozen=True)
class Args:
    run: Folder  # folder of a finished run
    episodes: int = 128  # fresh episodes of each seed
    seed: int = 1_000_000  # of the episodes; actions are sampled

    def __post_init__(self):
        check_fields(self)
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes} must be at least 1; try 128.")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed={self.seed} must lie in [0, 2^31); try 1000000.")


def main(args: Args) -> dict[str, Any]:
    """Prints and returns the statistics; ValueError for a folder that holds no finished run."""
    made_by = read_config(args.run).get("trainer") or ""
    if made_by not in table.TRAINERS:
        known = ", ".join(table.TRAINERS)
        raise ValueError(f"{args.run / 'config.json'}: trainer={made_by} is none of {known}.")
    trainer = table.trainer(made_by)
    options = flags.saved_options(trainer, args.run)
    trained, outcome = trainer.reload(args.run, options)
    env = envs.make(options.env, **flags.env_fields(options))
    count = jax.tree.leaves(trained)[0].shape[0]
    players = members(range(args.seed, args.seed + count), options.algo, env)
    parts = [replace(part, option="episodes") for part in outcome.parts(args.episodes)]
    memory.check(parts, count, jax.devices()[:1])
    result = outcome.evaluate(trained, players, args.episodes)
    print(json.dumps(without_nan(result), indent=2))
    return result


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    flags.run(Args, __doc__ or "", argv, main)


if __name__ == "__main__":
    run(sys.argv[1:])

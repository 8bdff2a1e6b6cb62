"""A run's model as a folder for `transformers`: `python -m train.export --run DIR --out FOLDER`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxrl.lm.model import lora, weights
from jaxrl.train import flags, models


@dataclass(frozen=True)
class Args:
    run: Path  # the run's folder
    out: Path  # folder to write, made if needed
    seed_index: int = 0  # which of the run's seeds, from 0


def export(args: Args) -> None:
    """Writes config.json, safetensors and the tokenizer; ValueError for what cannot be."""
    if not (args.run / "policy" / "model.json").is_file():
        raise ValueError(f"run={args.run} holds no language model; give a finished run's folder.")
    if (args.out / "config.json").exists():
        raise ValueError(f"out={args.out} holds a model already; choose another folder.")
    config, trained = models.load_models(args.run)
    count = jax.tree.leaves(trained)[0].shape[0]
    if not 0 <= args.seed_index < count:
        raise ValueError(f"seed_index={args.seed_index} must lie in [0, {count - 1}]; try 0.")
    config, model = lora.merge(config, jax.tree.map(lambda x: x[args.seed_index], trained))
    weights.save(args.out, config, model)
    models.load_speech(args.run / "policy").save(args.out)


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    flags.run(Args, __doc__ or "", argv, export)


if __name__ == "__main__":
    run(sys.argv[1:])

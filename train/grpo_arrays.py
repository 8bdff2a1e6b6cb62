"""Train with GRPO where observations are arrays: `python -m train.grpo --env CartPole-v1`."""

from dataclasses import dataclass, field

from jaxrl.algos import grpo_arrays
from jaxrl.train import arrays
from jaxrl.train.trainer import Task, Trainer

PRESETS = {"default": grpo_arrays.Config()}


@dataclass(frozen=True)
class Args(arrays.Options):
    preset: str = "default"  # options to start from: default
    algo: grpo_arrays.Config = field(default_factory=grpo_arrays.Config)


def setup(args: Args) -> Task:
    """GRPO on the environment that the options name; ValueError where they do not fit."""
    return arrays.make_task("grpo_arrays", grpo_arrays, args)


TRAINER = Trainer(
    "grpo_arrays", grpo_arrays, PRESETS, Args, setup, arrays.reload, for_language="grpo"
)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("grpo_arrays")

"""Train with TRPO: `python -m train.trpo` solves CartPole-v1, in the first 40,000 of 0.5 M steps.

Five seeds in one program (`--num-seeds 5`) take a few minutes.
"""

from dataclasses import dataclass, field

from jaxrl.algos import trpo
from jaxrl.train import arrays
from jaxrl.train.trainer import Task, Trainer

PRESETS = {"default": trpo.Config()}


@dataclass(frozen=True)
class Args(arrays.Options):
    preset: str = "default"  # options to start from: default
    algo: trpo.Config = field(default_factory=trpo.Config)


def setup(args: Args) -> Task:
    """TRPO on the environment that the options name; ValueError where they do not fit."""
    return arrays.make_task("trpo", trpo, args)


TRAINER = Trainer("trpo", trpo, PRESETS, Args, setup, arrays.reload)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("trpo")

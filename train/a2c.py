"""Train with A2C: `python -m train.a2c` solves CartPole-v1 in 0.5 M steps.

Five seeds in one program (`--num-seeds 5`) take a quarter of a minute after compiling.
"""

from dataclasses import dataclass, field

from jaxrl.algos import a2c
from jaxrl.train import arrays
from jaxrl.train.trainer import Task, Trainer

PRESETS = {"default": a2c.Config()}


@dataclass(frozen=True)
class Args(arrays.Options):
    preset: str = "default"  # options to start from: default
    algo: a2c.Config = field(default_factory=a2c.Config)


def setup(args: Args) -> Task:
    """A2C on the environment that the options name; ValueError where they do not fit."""
    return arrays.make_task("a2c", a2c, args)


TRAINER = Trainer("a2c", a2c, PRESETS, Args, setup, arrays.reload)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("a2c")

"""Train with SAC: `python -m train.sac` reaches -180 on Pendulum-v1 in 20,000 steps.

One environment, and a gradient step for each of its steps. With many, `--num-envs 64
--algo.gradient-steps 8` is one for every 8 steps. The papers' networks: `--algo.hidden 256 256`.
"""

from dataclasses import dataclass, field

from jaxrl.algos import sac
from jaxrl.train import arrays
from jaxrl.train.trainer import Task, Trainer

PRESETS = {"default": sac.Config()}


@dataclass(frozen=True)
class Args(arrays.Options):
    env: str = "Pendulum-v1"  # environment id, or my_module:Id; `python -m envs` lists them
    preset: str = "default"  # options to start from: default
    algo: sac.Config = field(default_factory=sac.Config)


def setup(args: Args) -> Task:
    """SAC on the environment that the options name; ValueError where they do not fit."""
    return arrays.make_task("sac", sac, args)


TRAINER = Trainer("sac", sac, PRESETS, Args, setup, arrays.reload)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("sac")

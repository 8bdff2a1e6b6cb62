"""Train with DQN: `python -m train.dqn` solves CartPole-v1."""

from dataclasses import dataclass, field

from jaxrl.algos import dqn
from jaxrl.train import arrays
from jaxrl.train.trainer import Task, Trainer

PRESETS = {
    "default": dqn.Config(),
    # MountainCar-v0, whose velocity lies within 0.07: seen as it is, few seeds find the goal
    "mountain-car": dqn.Config(
        total_steps=120_000,
        train_every=2,
        gradient_steps=8,
        batch_size=128,
        learning_rate=1e-3,
        rescale=True,
        exploration=0.2,
        epsilon_end=0.05,
    ),
}


@dataclass(frozen=True)
class Args(arrays.Options):
    preset: str = "default"  # options to start from: default or mountain-car
    algo: dqn.Config = field(default_factory=dqn.Config)


def setup(args: Args) -> Task:
    """DQN on the environment that the options name; ValueError where they do not fit."""
    return arrays.make_task("dqn", dqn, args)


TRAINER = Trainer("dqn", dqn, PRESETS, Args, setup, arrays.reload)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("dqn")

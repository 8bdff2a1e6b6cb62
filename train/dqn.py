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
    # atari/Pong and the like: the paper's network; its replay of a million steps takes 53 GiB
    "atari": dqn.Config(
        total_steps=10_000_000,
        train_every=4,
        gradient_steps=8,
        batch_size=32,
        buffer_size=100_000,
        learning_starts=20_000,
        learning_rate=1e-4,
        lr_schedule="constant",
        n_step=1,
        target_every=2_000,
        epsilon_end=0.01,
        exploration=0.1,
        network="cnn",
        hidden=(512,),
    ),
}


@dataclass(frozen=True)
class Args(arrays.Options):
    preset: str = "default"  # options to start from: default, mountain-car or atari
    algo: dqn.Config = field(default_factory=dqn.Config)


def setup(args: Args) -> Task:
    """DQN on the environment that the options name; ValueError where they do not fit."""
    return arrays.make_task("dqn", dqn, args)


TRAINER = Trainer("dqn", dqn, PRESETS, Args, setup, arrays.reload)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("dqn")

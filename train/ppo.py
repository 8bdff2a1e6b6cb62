"""Train with PPO: `python -m train.ppo` solves CartPole-v1 in 0.5 M steps, seconds on two cores.

On the id of a language environment `train.turn_ppo` takes over, PPO with a critic of turns; with
`--reward-model RUN` it is `train.token_ppo`.
"""

from dataclasses import dataclass, field

from jaxrl.algos import ppo
from jaxrl.train import arrays
from jaxrl.train.trainer import Task, Trainer

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
    # pgx/connect_four against itself: then wins 96 % and more against random play
    "board": ppo.Config(
        total_steps=3_000_000,
        num_envs=256,
        num_steps=32,
        num_minibatches=8,
        learning_rate=1e-3,
        entropy_coef=0.02,
        network="cnn",
        hidden=(128,),
        activation="relu",
    ),
    # MemoryChain-v0: the bit of 20 steps ago is told right in 0.2 M steps
    "memory": ppo.Config(
        total_steps=200_000, num_envs=64, num_steps=64, learning_rate=1e-3, network="gru"
    ),
    # atari/Pong and the like, with the numbers of the paper
    "atari": ppo.Config(
        total_steps=10_000_000,
        num_envs=8,
        learning_rate=2.5e-4,
        clip_eps=0.1,
        value_clip=0.1,
        network="jaxrl.networks.nature:Nature",
        hidden=(512,),
        activation="relu",
    ),
}


@dataclass(frozen=True)
class Args(arrays.Options):
    preset: str = "default"  # to start from: default, continuous, minatar, board, memory or atari
    algo: ppo.Config = field(default_factory=ppo.Config)


def setup(args: Args) -> Task:
    """PPO on the environment that the options name; ValueError where they do not fit."""
    return arrays.make_task("ppo", ppo, args)


TRAINER = Trainer(
    *("ppo", ppo, PRESETS, Args, setup, arrays.reload),
    for_language="turn_ppo",
    for_reward_model="token_ppo",
)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("ppo")

"""The workloads that every program in the benchmarks runs, defined once."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Setting:
    """One workload; the defaults are PureJaxRL's own CartPole configuration."""

    env_id: str  # the id in gymnax, and in Gymnasium where peer_steps is set
    num_envs: int  # environments stepped in parallel, B
    total_steps: int  # environment steps asked for, per seed
    num_steps: int = 128  # steps per environment and iteration, T
    num_seeds: int = 1  # seeds trained in the same program
    rollout_only: bool = False  # act and step with the untrained policy, no learning
    peer_steps: int | None = None  # total_steps for peers that loop in Python; None: not run
    hidden: tuple[int, ...] = (64, 64)  # widths of each of the two towers
    activation: Literal["tanh", "relu"] = "tanh"
    num_epochs: int = 4  # passes over the rollout per iteration
    num_minibatches: int = 4  # optimizer steps per pass
    lr: float = 2.5e-4  # at the start; falls linearly to 0
    adam_eps: float = 1e-5
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_eps: float = 0.2
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5

    @property
    def num_updates(self) -> int:
        """Iterations: as many as fit into total_steps."""
        return self.total_steps // (self.num_envs * self.num_steps)

    @property
    def env_steps(self) -> int:
        """Environment steps really taken, over all seeds."""
        return self.num_updates * self.num_envs * self.num_steps * self.num_seeds


SETTINGS = {
    "cartpole-4x128": Setting("CartPole-v1", 4, 500_000, peer_steps=500_000),
    "cartpole-64x128": Setting("CartPole-v1", 64, 500_000, peer_steps=500_000),
    "cartpole-2048x128": Setting("CartPole-v1", 2048, 5_000_000),
    "cartpole-4x128-8seeds": Setting("CartPole-v1", 4, 500_000, num_seeds=8),
    "cartpole-rollout-64x128": Setting("CartPole-v1", 64, 5_000_000, rollout_only=True),
    # PureJaxRL's MinAtar configuration, shortened from 10 M steps: enough to time it.
    "breakout-64x128": Setting(
        "Breakout-MinAtar", 64, 2_000_000, activation="relu", num_minibatches=8, lr=5e-3
    ),
}
NUM_EVAL_EPISODES = 128  # fresh episodes behind final_return, actions sampled
EVAL_SEED = 1_000_000  # added to the run's seed: far from the seeds of the training

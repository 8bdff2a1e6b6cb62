"""An environment with a metric of its own, and runs on it inside the test's process.

Its fields are numbers and so are PPO's: all runs of one length are the same compiled program.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from jaxrl.env import Environment, timestep
from jaxrl.spaces import Box, Discrete
from train import command
from train.run_folder import RunFolder

FLAGS = (
    *("--env", "test/Tank-v0", "--devices", "1", "--num-envs", "4", "--algo.num-steps", "8"),
    *("--algo.num-epochs", "1", "--algo.num-minibatches", "1", "--algo.hidden", "8"),
    *("--eval-episodes", "2"),
)
STEPS, ITERATIONS = 32, 8
EACH = ("--checkpoint-every", "1e-9")  # a checkpoint after every iteration


class Tank(Environment):
    """Action 1 pays 1; a step takes half a litre of ten."""

    length: int = 5
    poison: int = 10**9  # from this step of an episode on rewards are NaN
    haze: int = 10**9  # and observations

    @property
    def observation_space(self):
        return Box(-1.0, 1.0, (1,))

    @property
    def action_space(self):
        return Discrete(2)

    def reset(self, key):
        x = jax.random.uniform(key, (1,))
        x = jnp.where(self.haze <= 0, jnp.nan, x)
        return (x, jnp.zeros((), jnp.int32)), timestep(x, metrics={"fuel": jnp.float32(10)})

    def step(self, state, action, key):
        del key
        x, t = state[0], state[1] + 1
        reward = jnp.where(t >= self.poison, jnp.nan, action)
        fuel = 10 - 0.5 * t.astype(jnp.float32)
        seen = jnp.where(t >= self.haze, jnp.nan, x)
        return (x, t), timestep(seen, reward, t >= self.length, metrics={"fuel": fuel})


envs.register("test/Tank-v0", Tank)


def train(folder: Path, *flags: object, trainer: str = "ppo") -> Path:
    """A run of ITERATIONS to its end, or until something stops it."""
    argv = [*FLAGS, "--run-dir", folder, "--total-steps", ITERATIONS * STEPS, *flags]
    command.run(trainer, [str(word) for word in argv])
    return folder


def resume(folder: Path, *flags: object) -> Path:
    command.run("ppo", ["--resume", *(str(word) for word in (folder, *flags))])
    return folder


def at(iteration: int, act, patch: pytest.MonkeyPatch) -> None:
    """Let `act()` happen once this iteration has been logged."""
    log = RunFolder.log

    def log_and_act(folder, where, *rest):
        log(folder, where, *rest)
        if where["iteration"] == iteration:
            act()

    patch.setattr(RunFolder, "log", log_and_act)


def send(signum: int):
    return lambda: os.kill(os.getpid(), signum)


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "policy/weights.npz") as file:
        return dict(file)

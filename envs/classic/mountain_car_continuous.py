"""MountainCarContinuous-v0 by the rules of Gymnasium 1.3.0; parity: tests/test_envs_classic.py."""

import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, timestep
from jaxrl.envs.classic.mountain_car import MountainCar
from jaxrl.spaces import Box


class MountainCarContinuous(MountainCar):
    """MountainCar with a push in [-1, 1]: 100 at the goal, minus 0.1 times each push squared."""

    force: float = 0.0015  # change of velocity by a push of 1
    goal_position: float = 0.45

    @property
    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (1,))

    @property
    def action_names(self) -> tuple[str, ...]:
        return ()

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        """action: float32 [1]; beyond 1 it pushes no harder, but is paid for."""
        del key  # the dynamics are deterministic
        push = jnp.clip(action[0], -1.0, 1.0) * self.force
        state, arrived = self.drive(state, push)
        success = arrived.astype(jnp.float32)
        reward = 100.0 * success - 0.1 * action[0] ** 2
        return state, timestep(state, reward, arrived, metrics={"success": success})

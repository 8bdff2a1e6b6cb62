"""A probe of masks: an illegal action is the only way to end an episode early."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, check_numbers, static, timestep
from jaxrl.envs.drawn import numbers
from jaxrl.spaces import LEGAL, Box, Discrete


class Doors(Environment):
    """Of `doors` doors some are open, others at each step: a closed one pays -1 and is the end.

    The first open door pays 1, another open one 0. Observations show which are open, and with
    `masked` these are the legal actions. So a policy that keeps to the mask is never terminated,
    however little it knows, and the best return is 1 a step.
    """

    doors: int = static(16)
    open_doors: int = 4  # of them, at each step
    masked: bool = static(True)

    def __post_init__(self):
        check_numbers(self, doors=(1, 1000), open_doors=(1, self.doors))

    @property
    def observation_space(self) -> dict[str, Box]:
        bits = Box(False, True, (self.doors,), np.bool_)
        return {"open": bits, LEGAL: bits} if self.masked else {"open": bits}

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.doors)

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        is_open = self._draw(key)
        return is_open, timestep(self._look(is_open))

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        reward = jnp.where(action == jnp.argmax(state), 1.0, 0.0)
        closed, is_open = ~state[action], self._draw(key)
        return is_open, timestep(self._look(is_open), jnp.where(closed, -1.0, reward), closed)

    def render(self, state: jax.Array) -> jax.Array:
        return numbers.doors(state)

    def _draw(self, key: jax.Array) -> jax.Array:
        """bool [doors]: which are open from now on."""
        return jax.random.permutation(key, self.doors) < self.open_doors

    def _look(self, is_open: jax.Array) -> Any:
        return {name: is_open for name in self.observation_space}

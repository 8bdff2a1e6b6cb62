"""An environment whose every number can be said beforehand: it counts from where it started."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, timestep
from jaxrl.spaces import Box, Discrete


class CountState(flax.struct.PyTreeNode):
    start: jax.Array  # float32 [], drawn at reset
    t: jax.Array  # int32 []


class Count(Environment):
    """Starts at a random whole number, adds 1 a step, pays t on step t, ends after `length`."""

    length: int = 3

    @property
    def observation_space(self):
        return Box(0.0, np.inf, (1,))

    @property
    def action_space(self):
        return Discrete(2)

    def reset(self, key):
        start = 100.0 * jax.random.randint(key, (), 1, 2**16).astype(jnp.float32)
        state = CountState(start, jnp.zeros((), jnp.int32))
        return state, timestep(start[None])

    def step(self, state, action, key):
        del action, key
        state = state.replace(t=state.t + 1)
        return state, timestep((state.start + state.t)[None], state.t, state.t >= self.length)

"""An environment that keeps the contract, for tests to break, and how its refusal is tested."""

import flax.struct
import jax
import jax.numpy as jnp
import pytest

from jaxrl.check import EnvCheckError, check_env
from jaxrl.env import Environment, static, timestep
from jaxrl.spaces import Box, Discrete


class WalkState(flax.struct.PyTreeNode):
    x: jax.Array  # float32 [], where it stands
    t: jax.Array  # int32 [], steps taken


class Walk(Environment):
    """Left, stay or right, with a little noise, until beyond 1: keeps the contract."""

    stride: float = 0.25
    limit: float = static(1.0)  # bounds the observation space

    @property
    def observation_space(self):
        return Box(-3 * self.limit, 3 * self.limit, (2,))

    @property
    def action_space(self):
        return Discrete(3)

    def reset(self, key):
        x = jax.random.uniform(key, minval=-0.5, maxval=0.5)
        state = WalkState(x, jnp.zeros((), jnp.int32))
        return state, self.look(state)

    def step(self, state, action, key):
        x = state.x + self.stride * (action - 1) + 0.01 * jax.random.normal(key)
        state = WalkState(x, state.t + 1)
        return state, self.look(state, x, jnp.abs(x) > self.limit)

    def look(self, state, reward=0.0, terminated=False):
        obs = jnp.stack([state.x, state.x**2])
        return timestep(obs, reward, terminated, metrics={"x": state.x})


def refuse(env, check, words):
    """check_env must fail in `check`, with `words` in its message."""
    with pytest.raises(EnvCheckError) as caught:
        check_env(env, num_steps=30, num_envs=4, verbose=False)
    message = str(caught.value)
    assert caught.traceback[-1].name == check, message
    for word in words:
        assert word in message, message

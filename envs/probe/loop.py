"""Probes of loops: keys, clocks and the price of a reset, read off the observations."""

import jax
import jax.numpy as jnp

from jaxrl.env import Environment, TimeStep, check_numbers, static, timestep
from jaxrl.envs.drawn import numbers
from jaxrl.spaces import Box, Discrete

WORK = 16  # iterations of the logistic map in a step of CostlyReset


class FreshRandomness(Environment):
    """Every observation is the randomness of its key: two that are equal came from one key.

    A reset and a step of one key give one observation. An episode ends with probability
    `end_probability` at a step, where the observation's first entry is below it; reward 1 a step.
    """

    end_probability: float = 0.25

    def __post_init__(self):
        check_numbers(self, end_probability=(0, 1))

    @property
    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (4,))

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        obs = jax.random.uniform(key, (4,), jnp.float32)
        return obs, timestep(obs)

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        del state, action  # they change nothing
        obs = jax.random.uniform(key, (4,), jnp.float32)
        return obs, timestep(obs, 1.0, obs[0] < self.end_probability)

    def render(self, state: jax.Array) -> jax.Array:
        return numbers.bars(state, 0.0, 1.0)


class Counter(Environment):
    """The observation is the number of steps taken in this episode, which is of a fixed length.

    Reward 1 a step, so V(obs) = (1 - gamma^k) / (1 - gamma) with k = episode_length - obs.
    """

    episode_length: int = 10  # steps until it terminates

    def __post_init__(self):
        check_numbers(self, episode_length=(1, 2**24))  # where float32 stops counting

    @property
    def observation_space(self) -> Box:
        return Box(0.0, float("inf"), (1,))

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        del key  # one way to start
        count = jnp.zeros((1,), jnp.float32)
        return count, timestep(count)

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        del action, key  # one way on
        count = state + 1.0
        return count, timestep(count, 1.0, count[0] >= self.episode_length)

    def render(self, state: jax.Array) -> jax.Array:
        return numbers.bars(state, 0.0, self.episode_length)


class CostlyReset(Environment):
    """A reset does the arithmetic of `reset_cost` steps, and the first observation needs it all.

    A step is WORK dependent iterations of the chaotic logistic map x <- 3.9 x (1 - x) on the
    state, which is the observation, float32 [1]. It never terminates; reward 1 a step.
    """

    reset_cost: int = static(100)  # the price of a reset, in steps

    def __post_init__(self):
        check_numbers(self, reset_cost=(0, 10**6))

    @property
    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (1,))

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        start = jax.random.uniform(key, (1,), jnp.float32, 0.2, 0.8)
        state = jax.lax.fori_loop(0, self.reset_cost, lambda _, x: _work(x), start)
        return state, timestep(state)

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        del action, key  # one way on
        state = _work(state)
        return state, timestep(state, 1.0)

    def render(self, state: jax.Array) -> jax.Array:
        return numbers.bars(state, 0.0, 1.0)


def _work(x: jax.Array) -> jax.Array:
    """WORK dependent iterations, each keeping x in (0, 1)."""
    return jax.lax.fori_loop(0, WORK, lambda _, x: 3.9 * x * (1.0 - x), x)

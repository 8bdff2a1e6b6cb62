"""Probes of learning: environments whose values and best policies are known on paper."""

import jax
import jax.numpy as jnp

from jaxrl.env import Environment, TimeStep, timestep
from jaxrl.envs.drawn import numbers
from jaxrl.spaces import Box, Discrete, MultiDiscrete


class OneStepReward(Environment):
    """One observation, one action, reward 1, the end: V = 1."""

    @property
    def observation_space(self) -> Box:
        return Box(-1.0, 1.0, (1,))

    @property
    def action_space(self) -> Discrete | MultiDiscrete | Box:
        return Discrete(1)

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        """The state of every probe here is its observation, float32 [1]."""
        del key  # one observation
        obs = jnp.ones((1,), jnp.float32)
        return obs, timestep(obs)

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        del key  # one outcome
        return state, timestep(state, self.reward(state, action), True)

    def render(self, state: jax.Array) -> jax.Array:
        return numbers.bars(state, -1.0, 1.0)

    def reward(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        """float32 []: what the only step pays."""
        del action  # it changes nothing
        return obs[0]


class ObsReward(OneStepReward):
    """An observation of -1 or 1, which is the reward, and the end: V(obs) = obs."""

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        obs = jax.random.rademacher(key, (1,), jnp.float32)
        return obs, timestep(obs)


class ActionReward(OneStepReward):
    """One observation; action 1 pays 1 and action 0 pays -1: the best policy is always 1."""

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reward(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        del obs  # there is one
        return 2.0 * action - 1.0


class ActionObsReward(ObsReward):
    """1 for action 1 at observation 1 and action 0 at observation -1, else -1: V = 1 at best."""

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reward(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        return obs[0] * (2.0 * action - 1.0)


class Target(ObsReward):
    """A continuous action pays -(action - obs)^2: the best policy copies the observation."""

    @property
    def action_space(self) -> Box:
        return Box(-2.0, 2.0, (1,))

    def reward(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        return -((action[0] - obs[0]) ** 2)


class MultiTarget(ObsReward):
    """Two choices, each right one pays 1/2: (1, 2) is right at observation 1, (0, 0) at -1."""

    @property
    def action_space(self) -> MultiDiscrete:
        return MultiDiscrete((2, 3))

    def reward(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        target = jnp.where(obs[0] > 0, jnp.array([1, 2]), jnp.array([0, 0]))
        return jnp.mean(action == target, dtype=jnp.float32)


class TwoStepDiscount(OneStepReward):
    """Observation 0, then 1 with reward 0, then the end with reward 1: V(0) = gamma, V(1) = 1."""

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        del key  # one way to start
        obs = jnp.zeros((1,), jnp.float32)
        return obs, timestep(obs)

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        del action, key  # one way on
        obs = jnp.ones((1,), jnp.float32)
        return obs, timestep(obs, state[0], state[0] == 1)


class Forever(OneStepReward):
    """Reward 1 for ever: V = 1 / (1 - gamma), however short the clock, as that only truncates."""

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        return state, timestep(state, self.reward(state, action))

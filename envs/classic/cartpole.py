"""CartPole-v1 by the rules of Gymnasium 1.3.0; parity: tests/test_envs_classic.py.

Barto, Sutton and Anderson (1983), with the frictionless equations of Florian (2007).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, check_numbers, static, timestep
from jaxrl.envs.drawn import classic
from jaxrl.spaces import Box, Discrete

START = 0.05  # every number of a first state lies within this


class CartPole(Environment):
    """A pole on a cart: push left (0) or right (1), 1 a step until it falls or runs away.

    The state is the observation: position, velocity, angle, angular velocity, float32 [4].
    """

    gravity: float = 9.8  # m/s^2
    mass_cart: float = 1.0  # kg
    mass_pole: float = 0.1  # kg
    half_length: float = 0.5  # m, from the hinge to the pole's centre of mass
    force: float = 10.0  # N, of one push
    dt: float = 0.02  # s
    x_limit: float = static(2.4)  # m, to either side; bounds the observation space
    theta_limit: float = static(12 * math.pi / 180)  # rad, to either side; bounds the space too

    def __post_init__(self):
        check_numbers(self, gravity=(-1e3, 1e3), force=(-1e4, 1e4), dt=(1e-6, 1))
        check_numbers(self, mass_cart=(1e-3, 1e3), mass_pole=(1e-3, 1e3), half_length=(1e-3, 1e3))
        check_numbers(self, x_limit=(START, 1e9), theta_limit=(START, 1e9))

    @property
    def observation_space(self) -> Box:
        return Box(-2 * self._limit, 2 * self._limit, (4,))

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    @property
    def action_names(self) -> tuple[str, ...]:
        return "push left", "push right"

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        state = jax.random.uniform(key, (4,), jnp.float32, -START, START)
        return state, timestep(state)

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        del key  # the dynamics are deterministic
        _, x_dot, theta, theta_dot = state
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        mass = self.mass_cart + self.mass_pole
        moment = self.mass_pole * self.half_length
        push = jnp.where(action == 1, self.force, -self.force)
        drive = (push + moment * theta_dot**2 * sin) / mass
        theta_acc = (self.gravity * sin - cos * drive) / (
            self.half_length * (4 / 3 - self.mass_pole * cos**2 / mass)
        )
        x_acc = drive - moment * theta_acc * cos / mass
        state = state + self.dt * jnp.stack([x_dot, x_acc, theta_dot, theta_acc])
        return state, timestep(state, 1.0, jnp.any(jnp.abs(state) > self._limit))

    def render(self, state: jax.Array) -> jax.Array:
        return classic.cart_pole(self, state)

    @property
    def _limit(self) -> np.ndarray:
        """float32 [4]: the episode ends beyond it."""
        return np.array([self.x_limit, np.inf, self.theta_limit, np.inf], np.float32)

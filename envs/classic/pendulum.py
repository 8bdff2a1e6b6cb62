"""Pendulum-v1 by the rules of Gymnasium 1.3.0; parity: tests/test_envs_classic.py."""

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, check_numbers, static, timestep
from jaxrl.envs.drawn import classic
from jaxrl.spaces import Box


class PendulumState(flax.struct.PyTreeNode):
    theta: jax.Array  # float32 [], rad in [-pi, pi), 0 is upright
    theta_dot: jax.Array  # float32 [], rad/s


class Pendulum(Environment):
    """Swing a rod up and hold it there with a torque too weak to lift it; it never terminates.

    The angle is wrapped, where Gymnasium's grows: the same physics, and float32 keeps its digits.
    """

    gravity: float = 10.0  # m/s^2
    mass: float = 1.0  # kg
    length: float = 1.0  # m
    dt: float = 0.05  # s
    max_torque: float = static(2.0)  # N m; bounds the action space
    max_speed: float = static(8.0)  # rad/s; bounds the observation space

    def __post_init__(self):
        check_numbers(self, gravity=(-1e3, 1e3), dt=(1e-6, 1), max_torque=(1e-6, 1e4))
        check_numbers(self, mass=(1e-3, 1e3), length=(1e-3, 1e3), max_speed=(1, 1e3))

    @property
    def observation_space(self) -> Box:
        high = np.array([1.0, 1.0, self.max_speed], np.float32)
        return Box(-high, high, (3,))

    @property
    def action_space(self) -> Box:
        return Box(-self.max_torque, self.max_torque, (1,))

    def reset(self, key: jax.Array) -> tuple[PendulumState, TimeStep]:
        theta, theta_dot = jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
        state = PendulumState(math.pi * theta, theta_dot)
        return state, timestep(_observe(state))

    def step(
        self, state: PendulumState, action: jax.Array, key: jax.Array
    ) -> tuple[PendulumState, TimeStep]:
        """action: float32 [1], a torque; beyond max_torque it is clipped."""
        del key  # the dynamics are deterministic
        theta, theta_dot = state.theta, state.theta_dot
        torque = jnp.clip(action[0], -self.max_torque, self.max_torque)
        cost = theta**2 + 0.1 * theta_dot**2 + 0.001 * torque**2
        weight = 3 * self.gravity / (2 * self.length) * jnp.sin(theta)
        theta_dot = theta_dot + self.dt * (weight + 3 / (self.mass * self.length**2) * torque)
        theta_dot = jnp.clip(theta_dot, -self.max_speed, self.max_speed)
        theta = (theta + self.dt * theta_dot + math.pi) % (2 * math.pi) - math.pi
        state = PendulumState(theta, theta_dot)
        return state, timestep(_observe(state), -cost)

    def render(self, state: PendulumState) -> jax.Array:
        return classic.pendulum(self, state)


def _observe(state: PendulumState) -> jax.Array:
    """float32 [3]: height and offset of the tip, and the angular velocity."""
    return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot])

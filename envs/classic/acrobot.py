"""Acrobot-v1 by the rules of Gymnasium 1.3.0; parity: tests/test_envs_classic.py.

Sutton and Barto, Reinforcement Learning (1st edition), section 11.3: the equations of the book.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, check_numbers, static, timestep
from jaxrl.envs.drawn import classic
from jaxrl.spaces import Box, Discrete


class Acrobot(Environment):
    """Swing the tip of two hanging links above a line: torque -1, 0 or 1 at the joint between.

    The reward is -1 a step, 0 on the step that gets there. The state is float32 [4]: the first
    link's angle from hanging, the second's angle relative to the first, and both velocities.
    """

    gravity: float = 9.8  # m/s^2
    mass_1: float = 1.0  # kg
    mass_2: float = 1.0  # kg
    length_1: float = 1.0  # m; the second link's length enters no rule
    center_1: float = 0.5  # m, from the link's upper end to its centre of mass
    center_2: float = 0.5  # m
    inertia: float = 1.0  # kg m^2, of either link
    dt: float = 0.2  # s
    max_speed_1: float = static(4 * math.pi)  # rad/s; bounds the observation space
    max_speed_2: float = static(9 * math.pi)  # rad/s

    def __post_init__(self):
        sizes = ("mass_1", "mass_2", "length_1", "center_1", "center_2", "inertia")
        check_numbers(self, gravity=(-1e3, 1e3), dt=(1e-6, 1), **dict.fromkeys(sizes, (1e-3, 1e3)))
        check_numbers(self, max_speed_1=(1, 100), max_speed_2=(1, 100))

    @property
    def observation_space(self) -> Box:
        high = np.array([1, 1, 1, 1, self.max_speed_1, self.max_speed_2], np.float32)
        return Box(-high, high, (6,))

    @property
    def action_space(self) -> Discrete:
        return Discrete(3)

    @property
    def action_names(self) -> tuple[str, ...]:
        return "torque -1", "torque 0", "torque +1"

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        state = jax.random.uniform(key, (4,), jnp.float32, -0.1, 0.1)
        return state, timestep(_observe(state), metrics={"success": jnp.zeros((), jnp.float32)})

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        del key  # the dynamics are deterministic
        torque = (action - 1).astype(jnp.float32)
        state = _runge_kutta(lambda s: self._derivative(s, torque), state, self.dt)
        angle = (state[:2] + math.pi) % (2 * math.pi) - math.pi
        limit = jnp.array([self.max_speed_1, self.max_speed_2], jnp.float32)
        state = jnp.concatenate([angle, jnp.clip(state[2:], -limit, limit)])
        height = -jnp.cos(angle[0]) - jnp.cos(angle[0] + angle[1])
        success = (height > 1.0).astype(jnp.float32)
        return state, timestep(
            _observe(state), success - 1.0, height > 1.0, metrics={"success": success}
        )

    def render(self, state: jax.Array) -> jax.Array:
        return classic.acrobot(self, state)

    def _derivative(self, state: jax.Array, torque: jax.Array) -> jax.Array:
        """Velocities and accelerations of both angles, float32 [4]."""
        theta_1, theta_2, speed_1, speed_2 = state
        sin_2, cos_2 = jnp.sin(theta_2), jnp.cos(theta_2)
        cross = self.mass_2 * self.length_1 * self.center_2  # couples the two links
        own = self.mass_2 * self.center_2**2 + self.inertia
        both = self.mass_1 * self.center_1**2 + self.mass_2 * self.length_1**2 + self.inertia
        d_1 = both + own + 2 * cross * cos_2
        d_2 = own + cross * cos_2
        phi_2 = self.mass_2 * self.center_2 * self.gravity * jnp.sin(theta_1 + theta_2)
        moment = self.mass_1 * self.center_1 + self.mass_2 * self.length_1
        phi_1 = moment * self.gravity * jnp.sin(theta_1) + phi_2
        phi_1 = phi_1 - cross * speed_2 * (speed_2 + 2 * speed_1) * sin_2
        drive = torque + d_2 / d_1 * phi_1 - cross * speed_1**2 * sin_2 - phi_2
        acc_2 = drive / (own - d_2**2 / d_1)
        acc_1 = -(d_2 * acc_2 + phi_1) / d_1
        return jnp.stack([speed_1, speed_2, acc_1, acc_2])


def _observe(state: jax.Array) -> jax.Array:
    """float32 [6]: cosine and sine of either angle, and both velocities."""
    theta_1, theta_2, speed_1, speed_2 = state
    sin_1, cos_1 = jnp.sin(theta_1), jnp.cos(theta_1)
    return jnp.stack([cos_1, sin_1, jnp.cos(theta_2), jnp.sin(theta_2), speed_1, speed_2])


def _runge_kutta(f: Callable, y: jax.Array, dt: float) -> jax.Array:
    """One classical fourth-order step of y' = f(y)."""
    k_1 = f(y)
    k_2 = f(y + dt / 2 * k_1)
    k_3 = f(y + dt / 2 * k_2)
    k_4 = f(y + dt * k_3)
    return y + dt / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)

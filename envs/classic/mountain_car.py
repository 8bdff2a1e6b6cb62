"""MountainCar-v0 by the rules of Gymnasium 1.3.0; parity: tests/test_envs_classic.py.

Moore (1990), Efficient Memory-based Learning for Robot Control.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, check_numbers, static, timestep
from jaxrl.envs.drawn import classic
from jaxrl.spaces import Box, Discrete

START = -0.6, -0.4  # where an episode begins


class MountainCar(Environment):
    """Rock a car out of a valley: push left (0), not at all (1) or right (2), -1 a step.

    The state is the observation: position and velocity, float32 [2].
    """

    force: float = 0.001  # change of velocity by a push
    gravity: float = 0.0025  # change of velocity by the steepest slope
    goal_position: float = 0.5
    goal_velocity: float = 0.0  # the slowest arrival that counts
    min_position: float = static(-1.2)  # a wall that stops the car; bounds the observation space
    max_position: float = static(0.6)
    max_speed: float = static(0.07)

    def __post_init__(self):
        check_numbers(self, force=(-1, 1), gravity=(-1, 1), max_speed=(1e-6, 1e3))
        check_numbers(self, goal_position=(-1e3, 1e3), goal_velocity=(-1e3, 1e3))
        check_numbers(self, min_position=(-1e3, START[0]), max_position=(START[1], 1e3))

    @property
    def observation_space(self) -> Box:
        low = np.array([self.min_position, -self.max_speed], np.float32)
        high = np.array([self.max_position, self.max_speed], np.float32)
        return Box(low, high, (2,))

    @property
    def action_space(self) -> Discrete | Box:
        return Discrete(3)

    @property
    def action_names(self) -> tuple[str, ...]:
        return "push left", "coast", "push right"

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        position = jax.random.uniform(key, (), jnp.float32, *START)
        state = jnp.stack([position, jnp.zeros((), jnp.float32)])
        return state, timestep(state, metrics={"success": jnp.zeros((), jnp.float32)})

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        del key  # the dynamics are deterministic
        state, arrived = self.drive(state, (action - 1) * self.force)
        metrics = {"success": arrived.astype(jnp.float32)}
        return state, timestep(state, -1.0, arrived, metrics=metrics)

    def drive(self, state: jax.Array, push: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The next state after a push, and whether it is at the goal, bool []."""
        position, velocity = state
        velocity = velocity + push - self.gravity * jnp.cos(3 * position)
        velocity = jnp.clip(velocity, -self.max_speed, self.max_speed)
        position = jnp.clip(position + velocity, self.min_position, self.max_position)
        stopped = (position <= self.min_position) & (velocity < 0)
        velocity = jnp.where(stopped, 0.0, velocity)
        arrived = (position >= self.goal_position) & (velocity >= self.goal_velocity)
        return jnp.stack([position, velocity]), arrived

    def render(self, state: jax.Array) -> jax.Array:
        return classic.mountain_car(self, state)

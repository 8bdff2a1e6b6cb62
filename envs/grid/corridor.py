"""SimpleCorridor-v0: a line from S to G; the rules are this file's, tested by hand.

After the environment of that name in RLlib's examples, with a fixed reward at the goal.
"""

import jax
import jax.numpy as jnp

from jaxrl.env import Environment, TimeStep, check_numbers, static, timestep
from jaxrl.envs.drawn import grid
from jaxrl.spaces import Discrete


class SimpleCorridor(Environment):
    """Walk from S, cell 0, to G, cell `length`: left (0) or right (1); left of S is a wall.

    The state is the observation: the cell, int32 []. The best return is
    (length - 1) * step_reward + goal_reward.
    """

    length: int = static(10)  # moves from S to G: the size of the observation space
    step_reward: float = -0.1  # of every step that does not reach G
    goal_reward: float = 1.0  # of the step that does, in place of step_reward

    def __post_init__(self):
        check_numbers(self, length=(1, 10**6), step_reward=(-1e6, 1e6), goal_reward=(-1e6, 1e6))

    @property
    def observation_space(self) -> Discrete:
        return Discrete(self.length + 1)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    @property
    def action_names(self) -> tuple[str, ...]:
        return "left", "right"

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        del key  # every episode starts at S
        cell = jnp.zeros((), jnp.int32)
        return cell, timestep(cell, metrics={"success": jnp.zeros((), jnp.float32)})

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        del key  # the moves are deterministic
        cell = jnp.clip(state + 2 * action - 1, 0, self.length)
        arrived = cell == self.length
        reward = jnp.where(arrived, self.goal_reward, self.step_reward)
        metrics = {"success": arrived.astype(jnp.float32)}
        return cell, timestep(cell, reward, arrived, metrics=metrics)

    def render(self, state: jax.Array) -> jax.Array:
        return grid.corridor(self, state)

"""GridWorld-v0: a 4x4 board with a wall; the rules are this file's, tested by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, check_numbers, is_known, static, timestep
from jaxrl.envs.drawn import grid
from jaxrl.spaces import Discrete


class GridWorld(Environment):
    """Walk from `start` to `goal` around a wall: up (0), right (1), down (2), left (3).

        S . . .     cells are numbered along the rows: S is 0, the wall # is 5, G is 15;
        . # . .     a move off the board or into the wall stays where it is;
        . . . .     the goal's reward replaces the step's, so the best return is
        . . . G     5 * -0.04 + 1 = 0.8

    The state is the observation: the cell, int32 [].
    """

    size: int = static(4)  # cells along a side
    start: int = 0  # cell
    goal: int = 15  # cell
    wall: int = 5  # cell
    step_reward: float = -0.04  # of every step that does not reach the goal
    goal_reward: float = 1.0  # of the step that does, in place of step_reward

    def __post_init__(self):
        check_numbers(self, size=(2, 1000), step_reward=(-1e6, 1e6), goal_reward=(-1e6, 1e6))
        cells = 0, self.size**2 - 1
        check_numbers(self, start=cells, goal=cells, wall=cells)
        for a, b in (("start", "goal"), ("start", "wall"), ("goal", "wall")):
            cell, other = getattr(self, a), getattr(self, b)
            if is_known(cell) and is_known(other) and np.any(cell == np.asarray(other)):
                raise ValueError(f"{a}={cell} and {b}={other} must differ; try 0, 15 and wall=5.")

    @property
    def observation_space(self) -> Discrete:
        return Discrete(self.size**2)

    @property
    def action_space(self) -> Discrete:
        return Discrete(4)

    @property
    def action_names(self) -> tuple[str, ...]:
        return "up", "right", "down", "left"

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        del key  # every episode starts in the same cell
        cell = jnp.asarray(self.start, jnp.int32)
        return cell, timestep(cell, metrics={"success": jnp.zeros((), jnp.float32)})

    def step(
        self, state: jax.Array, action: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, TimeStep]:
        del key  # the moves are deterministic
        row, column = state // self.size, state % self.size
        row = row + (action == 2) - (action == 0)
        column = column + (action == 1) - (action == 3)
        row, column = jnp.clip(row, 0, self.size - 1), jnp.clip(column, 0, self.size - 1)
        cell = row * self.size + column
        cell = jnp.where(cell == self.wall, state, cell)
        arrived = cell == self.goal
        reward = jnp.where(arrived, self.goal_reward, self.step_reward)
        metrics = {"success": arrived.astype(jnp.float32)}
        return cell, timestep(cell, reward, arrived, metrics=metrics)

    def render(self, state: jax.Array) -> jax.Array:
        return grid.grid_world(self, state)

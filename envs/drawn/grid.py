"""Pictures of the grid worlds."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxrl import frames

if TYPE_CHECKING:
    from jaxrl.envs.grid.gridworld import GridWorld

SIDE = 400  # pixels of a board
READABLE = 24  # pixels of a cell that letters fit into


def grid_world(env: "GridWorld", state: jax.Array) -> jax.Array:
    """The board from above: the start S, the goal G, the wall in grey, the agent a blue disc."""
    cell = max(1, SIDE // env.size)
    picture = frames.canvas(cell * env.size, cell * env.size)
    x, y = frames.pixels(picture)

    def centre(index):
        return (index % env.size + 0.5) * cell, (index // env.size + 0.5) * cell

    def fill(picture, index, colour):
        return frames.box(picture, centre(index), (cell, cell), colour)

    picture = fill(picture, env.wall, frames.GREY)
    picture = fill(picture, env.goal, frames.colour("#bfe3d6"))
    if cell >= READABLE:
        edge = jnp.minimum(jnp.abs((x + cell / 2) % cell - cell / 2), 9e9)
        edge = jnp.minimum(edge, jnp.abs((y + cell / 2) % cell - cell / 2))
        picture = frames.paint(picture, edge - 0.75, frames.LIGHT)
        for index, letter in ((env.start, "S"), (env.goal, "G")):
            size = 7 * max(1, round(cell * 0.42 / 7))
            colour = frames.GREEN if letter == "G" else frames.GREY
            picture = frames.text(picture, letter, centre(index), size, colour, centred=True)
    middle = centre(state)
    picture = frames.disc(picture, middle, 0.3 * cell, frames.BLUE)
    return frames.finished(frames.disc(picture, middle, 0.1 * cell, frames.PAPER))

"""Pictures of the grid worlds."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxrl import frames

if TYPE_CHECKING:
    from jaxrl.envs.grid.corridor import SimpleCorridor
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


def corridor(env: "SimpleCorridor", state: jax.Array) -> jax.Array:
    """The cells from S to G with their numbers; of a long corridor those around the agent."""
    shown = min(env.length + 1, 12)
    cell = 600 // shown
    picture = frames.canvas(cell + 40, cell * shown)
    x, y = frames.pixels(picture)
    first = jnp.clip(state - shown // 2, 0, env.length + 1 - shown)
    middle = cell / 2

    def centre(index):
        return (index - first + 0.5) * cell, middle

    for index, colour in ((0, frames.LIGHT), (env.length, frames.colour("#bfe3d6"))):
        picture = frames.box(picture, centre(index), (cell, cell), colour)
    edge = jnp.abs((x + cell / 2) % cell - cell / 2)
    edge = jnp.where(y < cell, jnp.minimum(edge, jnp.abs(y - cell)), jnp.inf)
    picture = frames.paint(picture, edge - 1, frames.LIGHT)
    picture = frames.disc(picture, centre(state), 0.3 * cell, frames.BLUE)
    picture = frames.disc(picture, centre(state), 0.1 * cell, frames.PAPER)
    digits = len(str(env.length)) + 1
    for i in range(shown):
        index = first + i
        number = frames.number(index, digits)
        inner = (index > 0) & (index < env.length)
        name = jnp.where(index == 0, frames.glyphs("S"), frames.glyphs("G"))
        words = jnp.where(
            inner, number, jnp.where(jnp.arange(digits) == 0, name, frames.glyphs(" "))
        )
        colour = jnp.where(inner, frames.GREY, frames.GREEN)
        at = (i + 0.5) * cell, cell + 20
        picture = frames.text(picture, words, at, 14, colour, centred=True)
    return frames.finished(picture)

"""Pictures of the MinAtar games (arXiv:1903.03176): each channel of the board in its colour."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import frames

CELL = 40  # pixels
GROUND = frames.colour("#16181d")
PLAIN, ROUND, SMALL, FAINT = (0.94, 0.12), (0.72, 0.36), (0.36, 0.18), (0.4, 0.06)  # size, corner

# Of each channel a colour and a shape; later rows lie on top of earlier ones.
GREEN, BLUE = frames.colour("#4fc38a"), frames.colour("#5aa9e6")
RED, YELLOW = frames.colour("#ef6f6c"), frames.colour("#f2c14e")
WHITE, GREY, PINK = frames.colour("#f7f7f2"), frames.colour("#5b606b"), frames.colour("#d58bd0")
LOOKS = {
    "Asterix-MinAtar": {2: (GREY, FAINT), 3: (YELLOW, ROUND), 1: (RED, PLAIN), 0: (GREEN, PLAIN)},
    "Breakout-MinAtar": {
        **{3: (BLUE, PLAIN), 2: (GREY, SMALL)},
        **{1: (WHITE, ROUND), 0: (GREEN, PLAIN)},
    },
    "Freeway-MinAtar": {
        **{i: (GREY, FAINT) for i in range(2, 7)},
        **{1: (RED, PLAIN), 0: (GREEN, ROUND)},
    },
    "Seaquest-MinAtar": {
        **{1: (GREY, FAINT), 3: (GREY, FAINT), 7: (BLUE, PLAIN), 8: (PINK, PLAIN)},
        **{9: (PINK, ROUND), 6: (RED, PLAIN), 5: (YELLOW, PLAIN)},
        **{4: (RED, SMALL), 2: (WHITE, SMALL), 0: (GREEN, PLAIN)},
    },
    "SpaceInvaders-MinAtar": {
        **{1: (PINK, PLAIN), 5: (RED, SMALL)},
        **{4: (WHITE, SMALL), 0: (GREEN, PLAIN)},
    },
}


def board(name: str, obs: jax.Array) -> jax.Array:
    """The board [10, 10, channels] of the game of this name."""
    looks, rows = LOOKS[name], obs.shape[0]
    colour = jnp.broadcast_to(GROUND, (*obs.shape[:2], 3))
    shape = jnp.zeros((*obs.shape[:2], 2))
    for channel, (look, form) in looks.items():
        there = obs[..., channel, None].astype(bool)
        colour = jnp.where(there, look, colour)
        shape = jnp.where(there, jnp.array(form), shape)
    spread = np.repeat(np.arange(rows), CELL)
    size, corner = CELL * jnp.moveaxis(shape[spread][:, spread], -1, 0)
    picture = frames.canvas(CELL * rows, CELL * rows, GROUND)
    x, y = frames.pixels(picture)
    edge = jnp.minimum(x % CELL, y % CELL)
    picture = frames.paint(picture, edge - 0.5, frames.colour("#22252c"))
    away = [jnp.abs(p % CELL - CELL / 2) - size / 2 + corner for p in (x, y)]
    outside = jnp.hypot(*(jnp.maximum(p, 0) for p in away))
    distance = outside + jnp.minimum(jnp.maximum(*away), 0) - corner
    return frames.finished(
        frames.paint(picture, jnp.where(size > 0, distance, 1), colour[spread][:, spread])
    )

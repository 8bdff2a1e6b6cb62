"""Pictures of environments whose state is a few numbers: probes, and what is to be remembered."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxrl import frames

if TYPE_CHECKING:
    from jaxrl.envs.memory.memory_chain import ChainState, MemoryChain

WIDTH, HEIGHT, GROUND = 400, 300, 230
MOST = 8  # bars of numbers that are shown


def bars(value: jax.Array, low: Any, high: Any) -> jax.Array:
    """A bar for each of the first few numbers [n] of a state, from 0, between two bounds."""
    picture = frames.canvas(HEIGHT, WIDTH)
    count = min(value.shape[0], MOST)
    zero = GROUND - (jnp.clip(0.0, low, high) - low) / (high - low) * (GROUND - 30)
    for i in range(count):
        middle = WIDTH * (i + 0.5) / count
        height = GROUND - (jnp.clip(value[i], low, high) - low) / (high - low) * (GROUND - 30)
        track = (WIDTH * 0.6 / max(count, 3), GROUND - 30)
        picture = frames.box(picture, (middle, 15 + GROUND / 2), track, frames.LIGHT, corner=4)
        size = track[0], jnp.maximum(jnp.abs(height - zero), 3)
        colour = jnp.where(value[i] < 0, frames.RED, frames.BLUE)
        picture = frames.box(picture, (middle, (height + zero) / 2), size, colour)
        shown = frames.number(value[i], 6, 2)
        picture = frames.text(picture, shown, (middle, GROUND + 34), 14, centred=True)
    return frames.finished(picture)


def doors(is_open: jax.Array) -> jax.Array:
    """Closed doors in grey, open ones in green, the first of them, which pays, in a darker one."""
    count = is_open.shape[0]
    columns = min(count, 8) if count <= 64 else 32
    side = WIDTH // columns
    picture = frames.canvas(side * -(-count // columns), WIDTH)
    x, y = frames.pixels(picture)
    column, row = jnp.floor(x / side), jnp.floor(y / side)
    index = (row * columns + column).astype(jnp.int32)
    away = jnp.maximum(jnp.abs(x - (column + 0.5) * side), jnp.abs(y - (row + 0.5) * side))
    distance = jnp.where(index < count, away - 0.42 * side, jnp.inf)
    index = jnp.minimum(index, count - 1)
    colour = jnp.where(is_open[index][..., None], frames.SKY, frames.LIGHT)
    pays = (index == jnp.argmax(is_open))[..., None]
    return frames.finished(frames.paint(picture, distance, jnp.where(pays, frames.GREEN, colour)))


def memory_chain(env: "MemoryChain", state: "ChainState") -> jax.Array:
    """The bits (1 filled, 0 hollow), bright while the agent sees them, and how far the chain is.

    A mark under a bit says that it is asked for.
    """
    picture = frames.canvas(260, 600)
    x, y = frames.pixels(picture)
    count = env.num_bits
    side = 600 / count
    index = jnp.clip(jnp.floor(x / side), 0, count - 1).astype(jnp.int32)
    away = jnp.hypot(x - (index + 0.5) * side, y - 100)
    radius = min(36.0, 0.4 * side)
    seen = state.t <= 1  # the first step shows what the reset did
    colour = jnp.where(seen, frames.BLUE, frames.GREY)
    hole = jnp.where(state.context[index] == 1, -1.0, radius * 0.62)
    picture = frames.paint(picture, jnp.maximum(away - radius, hole - away), colour)
    asked = (state.query + 0.5) * side, 100 + radius + 14
    bright = jnp.where(state.t >= env.length, frames.ORANGE, frames.PAPER)
    tip = [asked, (asked[0] + 14, asked[1] + 20), (asked[0] - 14, asked[1] + 20)]
    picture = frames.polygon(picture, tip, bright)
    words = jnp.where(seen, *map(frames.glyphs, ("SEEN    ", "HIDDEN  ")))
    words = jnp.where(state.t >= env.length, frames.glyphs("ASKED   "), words)
    picture = frames.text(picture, words, (20, 20), 21, colour)
    end = 20 + 560 * jnp.clip(state.t / (env.length + 1), 0, 1)
    picture = frames.line(picture, (20, 225), (580, 225), 14, frames.LIGHT)
    return frames.finished(frames.line(picture, (20, 225), (end, 225), 14, frames.BLUE))

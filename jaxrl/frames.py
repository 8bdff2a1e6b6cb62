"""Pictures drawn in jax.numpy: shapes by their signed distances, with smooth edges, and text.

A picture is float32 [H, W, 3] in [0, 1] while it is drawn, uint8 when it is `finished`. Places and
sizes are in pixels, (x, y) from the upper left corner; any of them may be traced, so that a
renderer can be compiled and mapped over states.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import font

number, glyphs = font.number, font.codes
HEAD = 32  # pixels of the line over a picture
DIGITS = 6  # of a number in it, with its sign
Point = tuple[Any, Any]  # x, y


def colour(code: str) -> np.ndarray:
    """Red, green and blue in [0, 1], float32 [3], of "#rrggbb"."""
    return np.array([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)


# The palette of Okabe and Ito, which the colour-blind tell apart, and greys.
PAPER, LIGHT, GREY, INK = map(colour, ("#fbfaf7", "#d9d8d2", "#8a8c91", "#23262d"))
BLUE, SKY, GREEN = map(colour, ("#0072b2", "#56b4e9", "#009e73"))
ORANGE, RED, YELLOW, PURPLE = map(colour, ("#e69f00", "#d55e00", "#f0e442", "#cc79a7"))


def canvas(height: int, width: int, background: np.ndarray = PAPER) -> jax.Array:
    """An empty picture."""
    return jnp.broadcast_to(jnp.array(background, jnp.float32), (height, width, 3))


def finished(picture: jax.Array) -> jax.Array:
    """The pixels, uint8."""
    return jnp.round(255 * jnp.clip(picture, 0, 1)).astype(jnp.uint8)


def pixels(picture: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """x [1, W] and y [H, 1] of the pixels' centres."""
    height, width, _ = picture.shape
    x, y = (np.arange(size, dtype=np.float32) + np.float32(0.5) for size in (width, height))
    return x[None, :], y[:, None]


def paint(picture: jax.Array, distance: Any, colour: Any, opacity: Any = 1.0) -> jax.Array:
    """The colour where `distance` [H, W] from a shape's edge is negative; a pixel of blend."""
    share = opacity * jnp.clip(0.5 - distance, 0, 1)[..., None]
    return picture + share * (jnp.asarray(colour) - picture)


def disc(picture: jax.Array, centre: Point, radius: Any, colour: Any) -> jax.Array:
    x, y = pixels(picture)
    return paint(picture, jnp.hypot(x - centre[0], y - centre[1]) - radius, colour)


def ring(picture: jax.Array, centre: Point, radius: Any, width: Any, colour: Any) -> jax.Array:
    x, y = pixels(picture)
    distance = jnp.abs(jnp.hypot(x - centre[0], y - centre[1]) - radius) - width / 2
    return paint(picture, distance, colour)


def line(picture: jax.Array, a: Point, b: Point, width: Any, colour: Any) -> jax.Array:
    """A line with round ends."""
    x, y = pixels(picture)
    along = b[0] - a[0], b[1] - a[1]
    length = jnp.maximum(along[0] ** 2 + along[1] ** 2, 1e-9)
    t = jnp.clip(((x - a[0]) * along[0] + (y - a[1]) * along[1]) / length, 0, 1)
    distance = jnp.hypot(x - a[0] - t * along[0], y - a[1] - t * along[1])
    return paint(picture, distance - width / 2, colour)


def box(
    picture: jax.Array, centre: Point, size: Point, colour: Any, angle: Any = 0.0, corner: Any = 0.0
) -> jax.Array:
    """A rectangle, turned clockwise by `angle`, with corners of radius `corner`."""
    x, y = pixels(picture)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    x, y = x - centre[0], y - centre[1]
    away_x = jnp.abs(cos * x + sin * y) - size[0] / 2 + corner
    away_y = jnp.abs(cos * y - sin * x) - size[1] / 2 + corner
    outside = jnp.hypot(jnp.maximum(away_x, 0), jnp.maximum(away_y, 0))
    return paint(picture, outside + jnp.minimum(jnp.maximum(away_x, away_y), 0) - corner, colour)


def polygon(picture: jax.Array, corners: list[Point], colour: Any) -> jax.Array:
    """A convex one; its corners are given clockwise, as seen."""
    x, y = pixels(picture)
    distance = -jnp.inf
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        length = jnp.maximum(jnp.hypot(bx - ax, by - ay), 1e-6)
        distance = jnp.maximum(distance, ((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / length)
    return paint(picture, distance, colour)


def text(
    picture: jax.Array, words: Any, at: Point, height: int, colour: Any = INK, centred: bool = False
) -> jax.Array:
    """Words, or glyphs of `font.number`, from their upper left corner, or around their centre.

    What does not fit is moved into the picture; None of it is drawn where it is larger than that.
    """
    glyphs = font.codes(words) if isinstance(words, str) else words
    dots = jnp.asarray(font.GLYPHS, jnp.float32)[glyphs]
    dots = jnp.pad(dots, ((0, 0), (0, 0), (0, 1)))  # a column between two glyphs
    dots = jnp.concatenate(list(dots), 1)[:, :-1]
    shape = height, round(height * dots.shape[1] / font.HEIGHT)
    if shape[0] > picture.shape[0] or shape[1] > picture.shape[1]:
        return picture
    smooth = jax.image.resize(dots, shape, "linear")
    share = jnp.clip(2 * smooth - 0.5, 0, 1)[..., None]  # rounded dots with edges of a pixel or so
    x, y = at
    if centred:  # around the glyphs without the blanks after them
        last = jnp.max(jnp.where(jnp.asarray(glyphs) > 0, jnp.arange(len(glyphs)) + 1, 1))
        x, y = x - height / font.HEIGHT * ((font.WIDTH + 1) * last - 1) / 2, y - height / 2
    corner = (
        jnp.round(jnp.asarray(y)).astype(jnp.int32),
        jnp.round(jnp.asarray(x)).astype(jnp.int32),
    )
    below = jax.lax.dynamic_slice(picture, (*corner, 0), (*shape, 3))
    drawn = below + share * (jnp.asarray(colour) - below)
    return jax.lax.dynamic_update_slice(picture, drawn, (*corner, 0))


def headed(picture: jax.Array, numbers: dict[str, tuple[Any, int]]) -> jax.Array:
    """A finished picture under a line of names, each with its number and how many decimals."""
    return jnp.concatenate([head(picture.shape[1], numbers), picture])


def head(width: int, numbers: dict[str, tuple[Any, int]]) -> jax.Array:
    """Such a line, uint8 [HEAD, width, 3]; the letters are as large as there is room."""
    line = canvas(HEAD, width, INK)
    sizes = [
        len(name) + 1 + DIGITS + 3 * (decimals > 0) + 1 for name, (_, decimals) in numbers.items()
    ]
    size = min(14, int((width - 16) / sum(sizes) * font.HEIGHT / (font.WIDTH + 1)))
    left, letter = 10.0, size / font.HEIGHT * (font.WIDTH + 1)
    for columns, (name, (value, decimals)) in zip(sizes, numbers.items(), strict=True):
        top = (HEAD - size) / 2
        line = text(line, name, (left, top), size, LIGHT)
        after = left + letter * (len(name) + 1)
        line = text(
            line, number(value, DIGITS + 3 * (decimals > 0), decimals), (after, top), size, PAPER
        )
        left += letter * columns
    return finished(line)


def title(width: int, words: str) -> jax.Array:
    """A line of words, uint8 [HEAD, width, 3]."""
    line = canvas(HEAD, width, INK)
    room = (width - 16) / max(len(words), 1) * font.HEIGHT / (font.WIDTH + 1)
    size = min(14, int(room))
    return finished(text(line, words, (10, (HEAD - size) / 2), size, YELLOW))

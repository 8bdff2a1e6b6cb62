"""What games say: templates, lists and boards."""

import string

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.numbers import from_int
from jaxrl.text.text import Part, Text, concat, literal, pack


def render(template: str, *values: jax.Array | int | Part, capacity: int) -> Text:
    """The template with each {} replaced by an integer or a text, as `str.format` does it.

    Braces of the text itself are written twice.
    """
    pieces = list(string.Formatter().parse(template))
    fields = [(name, spec, how) for _, name, spec, how in pieces if name is not None]
    if any(field != ("", "", None) for field in fields):
        raise ValueError(f"template={template!r} may hold {{}} only, no names or formats.")
    if len(fields) != len(values):
        raise ValueError(f"template={template!r} wants {len(fields)} values, not {len(values)}.")
    parts: list[Part] = []
    left = iter(values)
    for plain, name, _, _ in pieces:
        parts += [plain] if plain else []
        if name is not None:
            value = next(left)
            parts.append(value if isinstance(value, str | bytes | Text) else from_int(value))
    return concat(parts or [""], capacity)


def listed(
    value: jax.Array, count: jax.Array | int, separator: str = " ", *, capacity: int
) -> Text:
    """The first `count` of the integers [n], with the separator between them."""
    numbers = jax.vmap(from_int)(value)
    gap = literal(separator)
    n, room = numbers.bytes.shape
    # Each piece is a separator and a number; the first piece starts at its number.
    rows = jnp.concatenate([jnp.tile(gap.bytes, (n, 1)), numbers.bytes], 1)
    start = np.arange(n) * (gap.capacity + room) + gap.capacity * (np.arange(n) == 0)
    length = numbers.length + gap.capacity * (np.arange(n) > 0)
    length = jnp.where(jnp.arange(n) < count, length, 0)
    return pack(rows.ravel(), start, length, capacity)


def board(cell: jax.Array, symbols: str, separator: str = "") -> Text:
    """A board [H, W] of indices into `symbols`, one ASCII character a cell, rows on lines."""
    height, width = cell.shape
    glyph = jnp.asarray(np.frombuffer(symbols.encode("ascii"), np.uint8))[cell]
    between = jnp.asarray(np.frombuffer(separator.encode("ascii"), np.uint8))
    between = jnp.broadcast_to(between, (height, width, between.shape[0]))
    rows = jnp.concatenate([glyph[..., None], between], -1).reshape(height, -1)
    rows = rows[:, : rows.shape[1] - len(separator)]
    lines = jnp.pad(rows, ((0, 0), (0, 1)), constant_values=ord("\n")).ravel()[:-1]
    return Text(lines, jnp.asarray(lines.shape[0], jnp.int32), jnp.asarray(False))

"""Strings inside jit: bytes with a length, and what games do with them."""

import string
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


class Text(flax.struct.PyTreeNode):
    """At most L bytes. Functions here are written for one text; `jax.vmap` them."""

    bytes: jax.Array  # uint8 [L], 0 beyond `length`
    length: jax.Array  # int32 []
    cut: jax.Array  # bool []: something did not fit, bytes were lost

    @property
    def capacity(self) -> int:
        """L: bytes that fit."""
        return self.bytes.shape[-1]


Part = str | Text


def literal(value: str | bytes, capacity: int | None = None) -> Text:
    """A constant text; ValueError where it does not fit."""
    raw = value.encode() if isinstance(value, str) else value
    capacity = len(raw) if capacity is None else capacity
    if len(raw) > capacity:
        raise ValueError(f"capacity={capacity} is too small for {value!r}; try {len(raw)}.")
    data = np.zeros(capacity, np.uint8)
    data[: len(raw)] = np.frombuffer(raw, np.uint8)
    return Text(jnp.asarray(data), jnp.asarray(len(raw), jnp.int32), jnp.asarray(False))


def to_str(text: Text) -> str:
    """The text on the host; bytes that are no UTF-8 are shown as such."""
    length = int(text.length)
    return np.asarray(text.bytes)[:length].tobytes().decode("utf-8", errors="backslashreplace")


def concat(parts: Sequence[Part], capacity: int) -> Text:
    """One after the other; what does not fit is lost and told in `cut`."""
    texts = [literal(part) if isinstance(part, str) else part for part in parts]
    bytes_ = jnp.concatenate([text.bytes for text in texts])
    step = np.concatenate([np.arange(text.capacity) for text in texts])
    lengths = jnp.stack([text.length for text in texts])
    part = np.concatenate([np.full(text.capacity, i) for i, text in enumerate(texts)])
    start = jnp.cumsum(lengths) - lengths
    total = jnp.sum(lengths)
    at = jnp.where(step < lengths[part], start[part] + step, capacity)
    out = jnp.zeros(capacity, jnp.uint8).at[at].set(bytes_, mode="drop")
    lost = jnp.any(jnp.stack([text.cut for text in texts])) | (total > capacity)
    return Text(out, jnp.minimum(total, capacity).astype(jnp.int32), lost)


def resize(text: Text, capacity: int) -> Text:
    """The same text with room for `capacity` bytes."""
    return concat([text], capacity)


def equal(a: Text, b: Part) -> jax.Array:
    """bool []: the same bytes; the `cut` flags do not count."""
    b = literal(b) if isinstance(b, str) else b
    size = max(a.capacity, b.capacity)
    pad = [jnp.pad(x.bytes, (0, size - x.capacity)) for x in (a, b)]
    return (a.length == b.length) & jnp.all(pad[0] == pad[1])


def where(condition: jax.Array, a: Text, b: Text) -> Text:
    """a or b, whichever the condition [] says, in the larger capacity."""
    size = max(a.capacity, b.capacity)
    a, b = resize(a, size), resize(b, size)
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def select(index: jax.Array, options: Sequence[str], capacity: int | None = None) -> Text:
    """The `index`-th of constant texts."""
    size = max(len(option.encode()) for option in options) if capacity is None else capacity
    table = [literal(option, size) for option in options]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *table)
    return jax.tree.map(lambda x: x[index], stacked)


MAX_DIGITS = 10  # of an int32


def from_int(value: jax.Array) -> Text:
    """A number of int32 in decimal, at most 11 bytes."""
    value = jnp.asarray(value, jnp.int32)
    negative = value < 0
    # As unsigned, because the least int32 has no positive counterpart.
    size = jnp.where(negative, -value.astype(jnp.uint32), value.astype(jnp.uint32))
    powers = np.asarray([10**i for i in range(MAX_DIGITS)], np.uint32)
    count = jnp.maximum(jnp.sum(size >= powers, dtype=jnp.int32), 1)
    place = count - 1 - (jnp.arange(MAX_DIGITS + 1) - negative)
    digit = (size // jnp.asarray(powers)[jnp.clip(place, 0, MAX_DIGITS - 1)]) % 10
    symbol = jnp.where(place == count, ord("-"), digit.astype(jnp.uint8) + ord("0"))
    symbol = jnp.where(negative & (jnp.arange(MAX_DIGITS + 1) == 0), ord("-"), symbol)
    out = jnp.where(place >= 0, symbol, 0).astype(jnp.uint8)
    return Text(out, count + negative, jnp.asarray(False))


def render(template: str, *values: jax.Array | int | Text, capacity: int) -> Text:
    """The template with each {} replaced by an integer or a text, as `str.format` does it.

    Braces of the text itself are written twice.
    """
    pieces = [literal or "" for literal, _, _, _ in string.Formatter().parse(template)]
    fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    if len(fields) != len(values) or any(fields):
        raise ValueError(f"template={template!r} wants {len(fields)} values, not {len(values)}.")
    parts: list[Part] = []
    left = list(values)
    for piece, (_, name, _, _) in zip(pieces, string.Formatter().parse(template), strict=True):
        parts += [piece] if piece else []
        if name is not None:
            value = left.pop(0)
            parts.append(value if isinstance(value, Text) else from_int(jnp.asarray(value)))
    return concat(parts or [""], capacity)

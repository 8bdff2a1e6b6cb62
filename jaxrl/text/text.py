"""Strings inside jit: bytes with a length, and what games do with them."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


class Text(flax.struct.PyTreeNode):
    """At most L bytes. Functions here are written for one text; `jax.vmap` them.

    What does not fit is lost, which `cut` says; every text made of this one inherits it.
    """

    bytes: jax.Array  # uint8 [L], 0 beyond `length`
    length: jax.Array  # int32 []
    cut: jax.Array  # bool []: something did not fit, bytes were lost

    @property
    def capacity(self) -> int:
        """L: bytes that fit."""
        return self.bytes.shape[-1]


Part = str | bytes | Text


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


def as_text(part: Part) -> Text:
    return part if isinstance(part, Text) else literal(part)


def concat(parts: Sequence[Part], capacity: int) -> Text:
    """One after the other; what does not fit is lost, which `cut` says."""
    texts = [as_text(part) for part in parts]
    if len(texts) == 1:
        return resize(texts[0], capacity)
    rooms = [text.capacity for text in texts]
    return pack(
        jnp.concatenate([text.bytes for text in texts]),
        np.cumsum([0, *rooms[:-1]]),
        jnp.stack([text.length for text in texts]),
        capacity,
        jnp.any(jnp.stack([text.cut for text in texts])),
    )


def pack(
    buffer: jax.Array,
    start: jax.Array | np.ndarray,
    length: jax.Array,
    capacity: int,
    cut: jax.Array | bool = False,
) -> Text:
    """The pieces buffer[start[i] : start[i] + length[i]] one after the other.

    A gather: each place of the result knows how many pieces end before it. Reading goes on where
    the next piece starts, so each piece that is over adds the gap that follows it.
    """
    place = jnp.arange(capacity, dtype=jnp.int32)
    end = jnp.cumsum(length, dtype=jnp.int32)
    gap = start[1:] - start[:-1] - length[:-1]
    source = (
        place
        + start[0]
        + jnp.sum(jnp.where(place[:, None] >= end[:-1], gap, 0), 1, dtype=jnp.int32)
    )
    data = jnp.take(buffer, source, mode="clip")
    total = end[-1].astype(jnp.int32)
    data = jnp.where(place < total, data, 0).astype(jnp.uint8)
    return Text(data, jnp.minimum(total, capacity), jnp.asarray(cut | (total > capacity)))


def resize(text: Text, capacity: int) -> Text:
    """The same text with room for `capacity` bytes."""
    if capacity >= text.capacity:
        return text.replace(bytes=jnp.pad(text.bytes, (0, capacity - text.capacity)))
    lost = text.cut | (text.length > capacity)
    return Text(text.bytes[:capacity], jnp.minimum(text.length, capacity), lost)


def substring(text: Text, start: jax.Array | int, stop: jax.Array | int, capacity: int) -> Text:
    """Bytes start .. stop-1, with `capacity` room; places beyond the text's ends are left out."""
    start = jnp.clip(start, 0, text.length)
    length = jnp.clip(stop, start, text.length) - start
    return pack(text.bytes, start[None], length[None], capacity, text.cut)


def equal(a: Text, b: Part) -> jax.Array:
    """bool []: the same bytes; the `cut` flags do not count."""
    b = as_text(b)
    size = max(a.capacity, b.capacity)
    same = resize(a, size).bytes == resize(b, size).bytes
    return (a.length == b.length) & jnp.all(same)


def where(condition: jax.Array, a: Part, b: Part) -> Text:
    """a or b, whichever the condition [] says, in the larger capacity."""
    a, b = as_text(a), as_text(b)
    size = max(a.capacity, b.capacity)
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), resize(a, size), resize(b, size))


def select(index: jax.Array, options: Sequence[Part], capacity: int | None = None) -> Text:
    """The `index`-th text, in `capacity` or, by default, the largest one's."""
    texts = [as_text(option) for option in options]
    size = max(text.capacity for text in texts) if capacity is None else capacity
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(resize(text, size) for text in texts))
    return jax.tree.map(lambda x: x[index], stacked)


def matches_at(text: Text, part: Part) -> jax.Array:
    """bool [L]: `part` stands in the text from this place on."""
    part = as_text(part)
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    padded = jnp.pad(text.bytes, (0, part.capacity))
    same = place + part.length <= text.length
    for i in range(part.capacity):
        here = padded[i : i + text.capacity] == part.bytes[i]
        same &= here | (i >= part.length)
    return same


def find(text: Text, part: Part) -> jax.Array:
    """int32 []: the first place where `part` stands, -1 if nowhere; like `str.find`."""
    here = matches_at(text, part)
    return jnp.where(jnp.any(here), jnp.argmax(here), -1).astype(jnp.int32)


def find_last(text: Text, part: Part) -> jax.Array:
    """int32 []: the last place where `part` stands, -1 if nowhere."""
    here = matches_at(text, part)
    return jnp.max(jnp.where(here, jnp.arange(text.capacity, dtype=jnp.int32), -1)).astype(
        jnp.int32
    )

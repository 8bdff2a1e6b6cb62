"""Tool calls written inside jit, as a scripted player says them."""

import json
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.calls import ARGUMENTS, NUMBER_BYTES
from jaxrl.text.text import Text, pack
from jaxrl.text.tools import Tool

SEPARATOR, TAIL = b", ", b"}}"
LONGEST = {"string": 2, "integer": 11, "number": NUMBER_BYTES, "boolean": 5}


def call_bytes(tools: Sequence[Tool], arguments: str = ARGUMENTS) -> int:
    """Bytes of the longest call that `write_call` writes, of strings without escapes."""
    sizes = []
    for tool in tools:
        sizes.append(len(_head(tool, arguments)) + len(TAIL))
        for p in tool.parameters:
            size = LONGEST[p.type] + p.size * (p.type == "string")
            sizes[-1] += len(SEPARATOR) + len(_key(p.name)) + size
    return max(sizes)


def _head(tool: Tool, arguments: str) -> bytes:
    return f'{{"name": "{tool.name}", "{arguments}": {{'.encode()


def _key(name: str) -> bytes:
    return f'"{name}": '.encode()


def write_call(
    tools: Sequence[Tool],
    tool: jax.Array | int,
    value: Text,
    given: jax.Array,
    arguments: str = ARGUMENTS,
) -> Text:
    """A call as `json.dumps` writes it; `value` [P] are the arguments, of which `given` [P] count.

    A string as it is, anything else as it is spelled in JSON. `arguments` is what they are called.
    """
    words = [_head(tool, arguments) for tool in tools]
    keys = [[_key(p.name) for p in tool.parameters] for tool in tools]
    types = [[p.type == "string" for p in tool.parameters] for tool in tools]
    size = given.shape[0]
    head, head_length = (x[tool] for x in _rows(words))
    flat = [key for row in keys for key in row + [b""] * (size - len(row))]
    key, key_length = (x.reshape(len(words), size, *x.shape[1:])[tool] for x in _rows(flat))
    strings = np.asarray([row + [False] * (size - len(row)) for row in types])
    value = jax.vmap(quoted)(value, jnp.asarray(strings)[tool])
    comma = given & (jnp.cumsum(given) > 1)
    ones = jnp.broadcast_to(jnp.asarray(list(SEPARATOR), jnp.uint8), (size, len(SEPARATOR)))
    rows = jnp.concatenate([ones, key, value.bytes], 1)  # [P, ...]
    lengths = jnp.stack([comma * len(SEPARATOR), given * key_length, given * value.length], 1)
    within = np.cumsum([0, ones.shape[1], key.shape[1]])
    starts = head.shape[0] + np.arange(size)[:, None] * rows.shape[1] + within
    buffer = jnp.concatenate([head, rows.ravel(), jnp.asarray(list(TAIL), jnp.uint8)])
    start = np.concatenate([[0], starts.ravel(), [buffer.shape[0] - len(TAIL)]])
    ends = jnp.asarray([len(TAIL)], jnp.int32)
    length = jnp.concatenate([head_length[None], lengths.astype(jnp.int32).ravel(), ends])
    return pack(buffer, start, length, call_bytes(tools, arguments), jnp.any(value.cut))


def _rows(words: Sequence[bytes]) -> tuple[jax.Array, jax.Array]:
    """uint8 [n, L], int32 [n]: texts and their lengths."""
    data = np.zeros((len(words), max(1, *map(len, words))), np.uint8)
    for i, word in enumerate(words):
        data[i, : len(word)] = np.frombuffer(word, np.uint8)
    return jnp.asarray(data), jnp.asarray([len(word) for word in words], jnp.int32)


def quoted_bytes(size: int) -> int:
    """Room for a text of `size` bytes in quotes, each escaped by a backslash."""
    return 2 * size + 2


def quoted(text: Text, is_string: jax.Array | bool = True) -> Text:
    """A string as JSON writes it; where it is none the text as it is."""
    room = quoted_bytes(text.capacity)
    is_string = jnp.asarray(is_string)
    written = jnp.where(is_string, jnp.asarray(ESCAPES)[text.bytes], 0)
    written = written.at[:, 0].set(jnp.where(is_string, written[:, 0], text.bytes))
    inside = jnp.arange(text.capacity, dtype=jnp.int32) < text.length
    there = inside[:, None] & ((written > 0) | (jnp.arange(written.shape[1]) == 0))
    flat = jnp.append(there.ravel(), jnp.asarray([True, True]) & is_string)  # and both quotes
    end = jnp.cumsum(flat[:-2], dtype=jnp.int32)
    total = jnp.sum(flat, dtype=jnp.int32)
    at = jnp.concatenate([end - 1 + is_string, jnp.stack([0 * total, total - 1])])
    marks = jnp.full(2, ord('"'), jnp.uint8)
    data = jnp.zeros(room, jnp.uint8)
    data = data.at[jnp.where(flat, at, room)].set(jnp.append(written, marks), mode="drop")
    return Text(data, jnp.minimum(total, room), text.cut | (total > room))


def _escapes() -> np.ndarray:
    """uint8 [256, 6]: how each byte is written in a string of JSON, 0 behind it."""
    table = np.zeros((256, 6), np.uint8)
    table[:, 0] = np.arange(256)
    for byte in range(128):
        raw = json.dumps(chr(byte), ensure_ascii=False)[1:-1].encode()
        table[byte, : len(raw)] = np.frombuffer(raw, np.uint8)
    return table


ESCAPES = _escapes()

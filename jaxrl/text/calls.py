"""Tool calls read inside jit from what a model wrote.

A call is `<tool_call>{"name": "N", "arguments": {..}}</tool_call>` (Qwen 2.5 and 3), as often as a
response likes; a response without one that begins with `{` is a call as a whole (Llama 3), with
`parameters` or `arguments`. Of a key that stands there twice the last one counts, as in Python.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text import json_automaton as automaton
from jaxrl.text.characters import characters
from jaxrl.text.numbers import MAX_DIGITS, POWERS, from_int, integer
from jaxrl.text.text import Text, equal, matches_at, resize, substring
from jaxrl.text.tools import Tool, check_toolbox

OPENING, CLOSING = "<tool_call>", "</tool_call>"
ARGUMENTS, PARAMETERS, NAME = "arguments", "parameters", "name"
NUMBER_BYTES = 32  # of a number; a longer one does not fit
# What may be wrong with a call, and what the model is told; the first that holds.
FINE, NO_JSON, NO_CALL, NO_TOOL, UNKNOWN, MISSING, TYPE, SIZE = range(8)
ERRORS = (
    "",
    "error: the call is no JSON",
    'error: a call is {"name": .., "arguments": {..}}',
    "error: no tool has that name",
    "error: the tool has no such argument",
    "error: an argument is missing",
    "error: an argument has the wrong type",
    "error: an argument is too long",
)
# The types of arguments, as they were written.
ABSENT, STRING, INTEGER, NUMBER, BOOLEAN, NULL, NESTED = range(7)
ALLOWED = {"string": (STRING,), "integer": (INTEGER,), "number": (INTEGER, NUMBER)}
ALLOWED["boolean"] = (BOOLEAN,)


class Calls(flax.struct.PyTreeNode):
    """The first C calls of a response; arguments [P] are in the order of the tool's parameters."""

    count: jax.Array  # int32 []: how many it has, which may be more than C
    tool: jax.Array  # int32 [C]: which tool, -1 where none has that name
    error: jax.Array  # int32 [C]: FINE, or the index of what is wrong
    given: jax.Array  # bool [C, P]: the argument is there
    text: Text  # [C, P]: a string decoded, or a number as it is spelled
    number: jax.Array  # float32 [C, P]: a number's value, 1 for true; else 0
    integer: jax.Array  # int32 [C, P]: an integer's value, exactly; else 0


class _Plan(NamedTuple):
    """What the tools make of the automaton."""

    names: automaton.Names
    tool: np.ndarray  # int32 [tools]: node of each name
    parameter: np.ndarray  # int32 [tools, P]: and of each parameter's, -1 where there is none
    allowed: np.ndarray  # bool [tools, P, types]
    size: np.ndarray  # int32 [tools, P]: most bytes
    required: np.ndarray  # bool [tools, P]
    is_integer: np.ndarray  # bool [tools, P]


@cache
def _plan(tools: tuple[Tool, ...]) -> _Plan:
    check_toolbox(tools)
    words = [NAME, ARGUMENTS, PARAMETERS]
    words += [tool.name for tool in tools] + [p.name for tool in tools for p in tool.parameters]
    names = automaton.Names.of(words)
    shape = len(tools), max(1, *(len(tool.parameters) for tool in tools))
    parameter, size = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    allowed, required = np.zeros((*shape, NESTED + 1), bool), np.zeros(shape, bool)
    for t, tool in enumerate(tools):
        for i, p in enumerate(tool.parameters):
            parameter[t, i], required[t, i] = names.node[p.name], p.required
            size[t, i] = p.size if p.type == "string" else NUMBER_BYTES
            allowed[t, i, list(ALLOWED[p.type])] = True
    tool_nodes = np.asarray([names.node[tool.name] for tool in tools], np.int32)
    is_integer = ~allowed[..., NUMBER] & allowed[..., INTEGER]
    return _Plan(names, tool_nodes, parameter, allowed, size, required, is_integer)


class _Scan(NamedTuple):
    """What each byte told [L], and of which call it is one."""

    seen: automaton.Seen
    inside: jax.Array  # bool [L]
    call: jax.Array  # int32 [L]: the number of calls begun


def _scan(text: Text, names: automaton.Names) -> _Scan:
    """Reads a text once, from the first byte to the last."""
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    opening = matches_at(text, OPENING)
    white = jnp.isin(text.bytes, jnp.asarray(list(automaton.WHITE), jnp.uint8))
    first = jnp.argmax(~white)
    whole = ~jnp.any(opening) & (text.bytes[first] == ord("{"))
    opens = jnp.pad(opening, (len(OPENING), 0))[: text.capacity] | (whole & (place == first))
    closes = matches_at(text, CLOSING) & ~whole
    table, trie = jnp.asarray(automaton.TABLE), jnp.asarray(names.table)

    def step(carry, x):
        head, inside, call = carry
        byte, opens, closes, there = x
        enters = ~inside & opens
        head = jax.tree.map(lambda a, b: jnp.where(enters, a, b), automaton.start(), head)
        inside, call = (inside | enters) & ~closes, call + enters
        after, seen = automaton.read(head, byte, table, trie)
        head = jax.tree.map(lambda a, b: jnp.where(inside & there, a, b), after, head)
        return (head, inside, call), (seen, inside & there, call)

    start = (automaton.start(), jnp.asarray(False), jnp.zeros((), jnp.int32))
    xs = (text.bytes.astype(jnp.int32), opens, closes, place < text.length)
    return _Scan(*jax.lax.scan(step, start, xs)[1])


def read_calls(tools: Sequence[Tool], text: Text, most: int = 1) -> Calls:
    """The calls of a response, at most C = `most` of them."""
    plan = _plan(tuple(tools))
    text = resize(text, text.capacity + 1)  # so that a call may begin behind the last byte
    scan = _scan(text, plan.names)
    begins, depth = scan.seen.begins & scan.inside, scan.seen.depth
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    mine = scan.call == 1 + jnp.arange(most, dtype=jnp.int32)[:, None]  # [C, L]

    def last(where):
        return jnp.max(jnp.where(where, place, -1), -1)

    end = last(mine & scan.inside)
    complete = (end >= 0) & scan.seen.complete[end] & characters(text).valid
    root = last(mine & begins & (depth == 0))
    key = plan.names.node
    level = mine & begins & (depth == 1)
    name = last(level & (scan.seen.outer == key[NAME]))
    arguments = last(level & (scan.seen.outer == key[ARGUMENTS]))
    parameters = last(level & (scan.seen.outer == key[PARAMETERS]))
    arguments = jnp.where(arguments < 0, parameters, arguments)

    def at(index, symbol):
        return (index >= 0) & (text.bytes[index] == ord(symbol))

    well_formed = at(root, "{") & at(name, '"') & ((arguments < 0) | at(arguments, "{"))
    closed = jax.lax.cummin(jnp.where(scan.seen.closes, place, text.capacity - 1), reverse=True)
    is_tool = scan.seen.node[closed[name]][:, None] == jnp.asarray(plan.tool)
    tool = jnp.where(jnp.any(is_tool, 1) & well_formed, jnp.argmax(is_tool, 1), -1)

    parent = jax.lax.cummax(jnp.where(begins & (depth == 1), place, -1))
    entry = mine & begins & (depth == 2) & (parent == arguments[:, None])
    wanted = jnp.asarray(plan.parameter)[tool]  # [C, P]
    matches = entry[:, None] & (scan.seen.inner == wanted[..., None])  # [C, P, L]
    unknown = jnp.any(entry & ~jnp.any(matches, 1), 1)
    where = last(matches)
    value, kind = _values(text, scan, begins, where, max(NUMBER_BYTES, int(plan.size.max())))
    allowed = jnp.take_along_axis(jnp.asarray(plan.allowed)[tool], kind[..., None], 2)[..., 0]
    given = where >= 0
    is_integer = jnp.asarray(plan.is_integer)[tool]
    numeric = bool(plan.allowed[..., INTEGER].any())
    number, whole, in_range = _numbers(value, kind, is_integer) if numeric else _no_numbers(kind)
    is_true = (kind == BOOLEAN) & (text.bytes[where] == ord("t"))
    number = jnp.where(is_true, 1.0, number)
    fits = in_range & (value.length <= jnp.asarray(plan.size)[tool]) & ~value.cut
    problems = (
        (SIZE, jnp.any(given & ~fits, 1)),
        (TYPE, jnp.any(given & ~allowed, 1)),
        (MISSING, jnp.any(jnp.asarray(plan.required)[tool] & ~given, 1)),
        (UNKNOWN, unknown),
        (NO_TOOL, tool < 0),
        (NO_CALL, ~well_formed),
        (NO_JSON, ~complete),
    )
    error = jnp.zeros(most, jnp.int32)
    for index, holds in problems:
        error = jnp.where(holds, index, error)
    given &= (error == FINE)[:, None]
    return Calls(scan.call[-1], tool.astype(jnp.int32), error, given, value, number, whole)


def _values(
    text: Text, scan: _Scan, begins: jax.Array, where: jax.Array, capacity: int
) -> tuple[Text, jax.Array]:
    """The values that begin at `where` [C, P], decoded, and their types; ABSENT for -1.

    What an escape stands for is no longer than the escape: its bytes are put where that ends, and
    the rest of it is left out.
    """
    point = scan.seen.point
    size = 1 + (point >= 0x80) + (point >= 0x800) + (point >= 0x10000)
    escaped = scan.inside & (point >= 0)
    kept, data = scan.inside & scan.seen.plain, text.bytes.astype(jnp.int32)
    for i in range(4):  # from the last byte of a character
        byte = jnp.where(i == size - 1, 0xF0 << (4 - size) & 0xF0, 0x80) | (point >> 6 * i & 0x3F)
        byte = jnp.where(size == 1, point, byte)
        here = jnp.pad(escaped & (size > i), (0, i))[i:]
        data = jnp.where(here, jnp.pad(byte, (0, i))[i:], data)
        kept |= here
    length = text.capacity
    ends = jnp.cumsum(kept, dtype=jnp.int32)
    at = jnp.append(0, ends)  # how many are kept before a place
    dense = jnp.zeros(length, jnp.uint8)
    dense = dense.at[jnp.where(kept, ends - 1, length)].set(data.astype(jnp.uint8), mode="drop")
    place = jnp.arange(length, dtype=jnp.int32)
    following = jax.lax.cummin(jnp.where(begins, place, length), reverse=True)
    following = jnp.append(following[1:], length)

    start = at[jnp.maximum(where, 0)]
    count = jnp.where(where < 0, 0, at[following[where]] - start)
    source = start[..., None] + jnp.arange(capacity, dtype=jnp.int32)
    inside = jnp.arange(capacity) < count[..., None]
    value = jnp.where(inside, dense[jnp.minimum(source, length - 1)], 0)
    value = Text(value, jnp.minimum(count, capacity), count > capacity)

    fraction = jnp.any(jnp.isin(value.bytes, jnp.asarray(list(b".eE"), jnp.uint8)), -1)
    of_byte = np.full(256, INTEGER, np.int32)
    of_byte[list(b'"tfn{[')] = STRING, BOOLEAN, BOOLEAN, NULL, NESTED, NESTED
    kind = jnp.asarray(of_byte)[text.bytes[where]]
    kind = jnp.where((kind == INTEGER) & fraction, NUMBER, kind)
    kind = jnp.where(where < 0, ABSENT, kind)
    return value, kind


class _Numbers(NamedTuple):
    value: jax.Array  # float32 [C, P]
    whole: jax.Array  # int32 [C, P]
    fits: jax.Array  # bool [C, P]


def _numbers(text: Text, kind: jax.Array, is_integer: jax.Array) -> _Numbers:
    """The values of numbers; 0 for all else. What is no finite float32 (int32) does not fit."""
    short = Text(text.bytes[..., :NUMBER_BYTES], text.length, text.cut)
    whole = jax.vmap(jax.vmap(integer))(short)
    exact = (whole == 0) | jax.vmap(jax.vmap(equal))(jax.vmap(jax.vmap(from_int))(whole), short)
    value = jax.vmap(jax.vmap(_decimal))(short)
    numeric = (kind == INTEGER) | (kind == NUMBER)
    fits = ~numeric | jnp.where(is_integer, exact, jnp.isfinite(value))
    whole = jnp.where((kind == INTEGER) & exact, whole, 0)
    return _Numbers(jnp.where(numeric & jnp.isfinite(value), value, 0.0), whole, fits)


def _no_numbers(kind: jax.Array) -> _Numbers:
    """For tools that take none: there is nothing to compile."""
    zero = jnp.zeros(kind.shape, jnp.int32)
    return _Numbers(zero.astype(jnp.float32), zero, jnp.ones(kind.shape, jnp.bool_))


def _decimal(text: Text) -> jax.Array:
    """float32 []: a number of JSON, from its first nine digits; within 1e-6 of it."""
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    exponent_at = _first(jnp.isin(text.bytes, jnp.asarray(list(b"eE"), jnp.uint8)), text.length)
    point = _first(text.bytes == ord("."), exponent_at)
    digit = text.bytes.astype(jnp.int32) - ord("0")
    is_digit = (digit >= 0) & (digit <= 9) & (place < exponent_at)
    counts = is_digit & (jax.lax.cummax(jnp.where(is_digit, digit, 0)) > 0)
    rank = jnp.cumsum(counts, dtype=jnp.int32)
    taken = counts & (rank < MAX_DIGITS)
    number = jnp.max(jnp.where(taken, rank, 0))
    weight = jnp.asarray(POWERS.astype(np.int32))[jnp.clip(number - rank, 0, MAX_DIGITS - 2)]
    mantissa = jnp.sum(jnp.where(taken, digit * weight, 0), dtype=jnp.int32)
    final = jnp.max(jnp.where(taken, place, 0))
    power = integer(substring(text, exponent_at + 1, text.length, text.capacity))
    power = jnp.clip(power, -200, 200) + point - final - (final < point)
    power = jnp.clip(power, -90, 76)
    half = power // 2  # in two factors, as 10^power alone may be no float32
    ten = jnp.asarray((10.0 ** np.arange(-45, 39)).astype(np.float32))
    size = mantissa.astype(jnp.float32) * ten[half + 45] * ten[power - half + 45]
    return jnp.where(text.bytes[0] == ord("-"), -size, size)


def _first(where: jax.Array, otherwise: jax.Array) -> jax.Array:
    """int32 []: the first place of a row."""
    return jnp.where(jnp.any(where), jnp.argmax(where), otherwise).astype(jnp.int32)

r"""Reading a move out of what a model wrote: the payload of its last `\boxed{...}`."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.text.numbers import integer
from jaxrl.text.regular import ALL, Automaton, Reader, automaton, bits, cat, sets, star
from jaxrl.text.text import Text, concat, find_last, substring

OPENING = "\\boxed{"
BRACES = bits(b"\\{}")


class Move(NamedTuple):
    r"""What the last complete `\boxed{...}` of a text holds."""

    payload: Text  # empty where there is none
    found: jax.Array  # bool []
    last: jax.Array  # int32 []: the place of its closing brace, -1 where there is none


class Integer(NamedTuple):
    """A number read from a text."""

    value: jax.Array  # int32 [], saturating; 0 where there is none
    found: jax.Array  # bool []


def boxed(pattern: str, text: Text, capacity: int | None = None) -> Move:
    r"""The payload of the last match, as `re.findall(r"\\boxed{(pattern)}", text)[-1]` has it.

    The pattern is of `jaxrl.text.regular` and matches no brace and no backslash. So two matches
    never overlap, and one automaton that reads the text once finds where the last one ends.
    """
    machine = _machine(pattern)
    last = _last_match(machine, text)
    read = substring(text, 0, last, text.capacity)
    begin = find_last(read, OPENING) + len(OPENING)
    room = text.capacity if capacity is None else capacity
    payload = substring(text, jnp.where(last < 0, 0, begin), jnp.maximum(last, 0), room)
    return Move(payload, last >= 0, last)


def boxed_integer(text: Text, *, signed: bool = False) -> Integer:
    r"""The integer of the last `\boxed{N}`: digits of ASCII, `signed` ones after a minus."""
    move = boxed(r"-?\d+" if signed else r"\d+", text)
    return Integer(integer(move.payload), move.found)


def last_match(pattern: str, text: Text) -> jax.Array:
    """int32 []: where the last match of a pattern has its last byte, -1 if there is none.

    A pattern may ask for the byte before or behind what it looks for: a space stands at both ends
    of the text. It must not match nothing.
    """
    last = _last_match(_ending(pattern), concat([" ", text, " "], text.capacity + 2))
    return jnp.maximum(last, 0) - 1


@functools.cache
def _ending(pattern: str) -> Automaton:
    """It accepts every text that ends with a match of the pattern."""
    return automaton(cat(star(("set", ALL)), Reader(pattern).read()))


def _last_match(machine: Automaton, text: Text) -> jax.Array:
    """int32 []: where the last match has its last byte, -1 if there is none."""
    table = jnp.asarray(machine.table)
    kind = jnp.asarray(machine.byte_class)[text.bytes]

    def read(state, kind):
        state = table[state, kind]
        return state, state

    _, state = jax.lax.scan(read, jnp.zeros((), table.dtype), kind)
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    ends = jnp.asarray(machine.accepts)[state] & (place < text.length)
    return jnp.max(jnp.where(ends, place, -1))


@functools.cache
def _machine(pattern: str) -> Automaton:
    r"""It accepts every text that ends with a match."""
    payload = Reader(pattern).read()
    if any(members & BRACES for members in sets(payload)):
        raise ValueError(
            f"pattern={pattern!r} may match a brace or a backslash, which end a payload; "
            r"try [^\\{}] in place of such a class."
        )
    symbols = [("set", bits(symbol.encode())) for symbol in OPENING]
    parts = [star(("set", ALL)), *symbols, payload, ("set", bits(b"}"))]
    return automaton(functools.reduce(lambda rest, part: cat(part, rest), reversed(parts)))

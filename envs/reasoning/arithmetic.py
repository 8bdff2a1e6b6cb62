"""The value of an expression such as `(3+5)*2-4/2`, exactly, inside jit.

One pass over the bytes. Each open parenthesis has a frame: the sum of the terms that are over, and
the term that is being read. Precedence needs no more: `+` and `-` end a term, `*` and `/` go on
with it, and what a parenthesis holds enters the term of the frame around it like a number.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.text import Text

ZERO, ONE = (0, 1), (1, 1)
LARGEST_NUMBER = 10**8  # a longer number is read as this: no question gives one so large


class Value(NamedTuple):
    """What an expression comes to."""

    numerator: jax.Array  # int32 []
    denominator: jax.Array  # int32 []: may be negative
    valid: jax.Array  # bool []: well formed, no division by 0, every number used exactly once


class _Reader(NamedTuple):
    frame: jax.Array  # int32 [depth, 5]: sum (numerator, denominator), term (the same), dividing
    depth: jax.Array  # int32 []: parentheses open
    number: jax.Array  # int32 []: the digits read so far
    operand: jax.Array  # bool []: a number or an opening parenthesis must come next
    unused: jax.Array  # bool [N]: this number has not been used yet
    valid: jax.Array  # bool []


def evaluate(text: Text, number: jax.Array, count: jax.Array, most_depth: int) -> Value:
    r"""Of digits, + - * / ( ) and spaces, each of the first `count` numbers [N] exactly once.

    No sign before a number, no power. Numerator and denominator of whatever uses each number at
    most once are below the product of (number + 1), so that int32 is exact where that is below
    2**31; an expression that uses others may overflow, and is not valid.
    """
    data = jnp.where(jnp.arange(text.capacity) < text.length, text.bytes, ord(" "))
    following = jnp.pad(data[1:], (0, 1), constant_values=ord(" "))
    start = _Reader(
        frame=jnp.zeros((most_depth + 1, 5), jnp.int32).at[0].set(_opened(1)),
        depth=jnp.zeros((), jnp.int32),
        number=jnp.zeros((), jnp.int32),
        operand=jnp.asarray(True),
        unused=jnp.arange(number.shape[0]) < count,
        valid=~text.cut,
    )

    def read(reader, symbols):
        symbol, following = symbols
        return _read(reader, symbol, following, number), None

    end, _ = jax.lax.scan(read, start, (data, following))
    value = _sum(end.frame[0])
    valid = end.valid & ~end.operand & (end.depth == 0) & ~jnp.any(end.unused)
    return Value(value[0], value[1], valid)


def _opened(sign: jax.Array | int) -> jax.Array:
    """int32 [5]: a frame in which nothing has been read."""
    return jnp.stack([jnp.asarray(x, jnp.int32) for x in (*ZERO, sign, 1, 0)])


def _sum(frame: jax.Array) -> jax.Array:
    """int32 [2]: the terms that are over and the one that is read."""
    a, b, c, d, _ = frame
    return jnp.stack([a * d + c * b, b * d])


def _read(reader: _Reader, symbol: jax.Array, following: jax.Array, given: jax.Array) -> _Reader:
    """One byte."""

    def among(letters: str):
        return jnp.any(symbol == jnp.asarray([*letters.encode()], jnp.uint8))

    digit = (symbol - ord("0")).astype(jnp.int32)
    is_digit, goes_on = digit <= 9, following - ord("0") <= 9
    opens, closes, space = among("("), among(")"), among(" ")
    adds, multiplies = among("+-"), among("*/")
    number = jnp.where(is_digit, jnp.minimum(reader.number * 10 + digit, LARGEST_NUMBER), 0)
    complete = is_digit & ~goes_on

    here = reader.frame[reader.depth]
    around = reader.frame[jnp.maximum(reader.depth - 1, 0)]
    frame = jnp.where(closes, around, here)
    operand = jnp.where(closes, _sum(here), jnp.stack([number, jnp.ones((), jnp.int32)]))
    dividing = frame[4] == 1
    factor = jnp.where(dividing, operand[::-1], operand)
    enters = complete | closes
    frame = frame.at[2:4].multiply(jnp.where(enters, factor, 1))
    by_zero = enters & dividing & (operand[0] == 0)
    sign = jnp.where(symbol == ord("-"), -1, 1)
    after_term = jnp.concatenate([_sum(frame), _opened(sign)[2:]])
    frame = jnp.where(adds, after_term, frame)
    frame = frame.at[4].set(jnp.where(multiplies, symbol == ord("/"), frame[4]))

    depth = reader.depth + opens - closes
    fits = (depth >= 0) & (depth < reader.frame.shape[0])
    frame = jnp.where(opens, _opened(1), frame)
    found = reader.unused & (given == number)
    used = complete & (jnp.arange(given.shape[0]) == jnp.argmax(found))
    wants_operand = is_digit | opens
    expected = jnp.where(reader.operand, wants_operand, adds | multiplies | closes)
    valid = reader.valid & (space | expected) & fits & ~by_zero & (~complete | jnp.any(found))
    return _Reader(
        frame=reader.frame.at[jnp.clip(depth, 0, reader.frame.shape[0] - 1)].set(frame),
        depth=jnp.where(fits, depth, reader.depth),
        number=jnp.where(goes_on, number, 0),
        operand=jnp.where(space, reader.operand, (is_digit & goes_on) | opens | adds | multiplies),
        unused=reader.unused & ~used,
        valid=valid,
    )

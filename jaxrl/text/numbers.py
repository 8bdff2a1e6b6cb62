"""Integers to decimal and back; what an int32 cannot hold saturates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.text import Text

MAX_DIGITS = 10  # of an int32
MAX_BYTES = MAX_DIGITS + 1  # with a sign
LARGEST = 2**31 - 1
POWERS = np.asarray([10**i for i in range(MAX_DIGITS)], np.uint32)


def from_int(value: jax.Array | int) -> Text:
    """A number of int32 in decimal, in room for 11 bytes."""
    value = jnp.asarray(value, jnp.int32)
    negative = value < 0
    # As unsigned, because the least int32 has no positive counterpart.
    size = jnp.where(negative, -value.astype(jnp.uint32), value.astype(jnp.uint32))
    count = 1 + jnp.sum(size >= POWERS[1:], dtype=jnp.int32)
    length = count + negative
    exponent = length - 1 - jnp.arange(MAX_BYTES)  # of the digit at this place
    power = jnp.asarray(POWERS)[jnp.clip(exponent, 0, MAX_DIGITS - 1)]
    digit = ((size // power) % 10).astype(jnp.uint8) + ord("0")
    symbol = jnp.where(exponent == count, ord("-"), digit)
    data = jnp.where(exponent >= 0, symbol, 0).astype(jnp.uint8)
    return Text(data, length, jnp.asarray(False))


class Integers(NamedTuple):
    """The numbers of a text, in order."""

    value: jax.Array  # int32 [n]; 0 where there is none
    count: jax.Array  # int32 []: how many the text has, which may be more than n


def integers(text: Text, n: int) -> Integers:
    """The first n runs of digits, each negative if a minus stands right before it."""
    place = jnp.arange(text.capacity)
    digit = jnp.where(place < text.length, text.bytes - ord("0"), 255)  # wraps below "0"
    inside = digit <= 9
    before = jnp.pad(inside, (1, 0))[:-1]
    begins = inside & ~before
    run = jnp.cumsum(begins, dtype=jnp.int32) - 1
    # How far it is to the last digit of the run: the next place that is none, less one.
    beyond = jax.lax.cummin(jnp.where(inside, text.capacity, place), reverse=True)
    exponent = beyond - 1 - place
    mine = inside & (run == jnp.arange(n)[:, None])
    weight = jnp.asarray(POWERS.astype(np.int32))[jnp.clip(exponent, 0, MAX_DIGITS - 2)]
    digit = digit.astype(jnp.int32)
    parts = jnp.where(mine & (exponent < MAX_DIGITS - 1), digit * weight, 0)
    low = jnp.sum(parts, 1, dtype=jnp.int32)
    top = jnp.where(mine & (exponent == MAX_DIGITS - 1), digit, 0)
    top = jnp.sum(top, 1, dtype=jnp.int32)
    beyond_all = jnp.any(mine & (exponent >= MAX_DIGITS) & (digit > 0), 1)
    billion = 10 ** (MAX_DIGITS - 1)
    fits = (top < 2) | ((top == 2) & (low <= LARGEST - 2 * billion))
    size = jnp.where(fits & ~beyond_all, jnp.minimum(top, 2) * billion + low, LARGEST)
    minus = jnp.pad(text.bytes == ord("-"), (1, 0))[:-1]
    negative = jnp.any(mine & begins & minus, 1)
    return Integers(jnp.where(negative, -size, size), jnp.sum(begins, dtype=jnp.int32))


def integer(text: Text) -> jax.Array:
    """int32 []: the first number of a text, 0 where there is none."""
    return integers(text, 1).value[0]

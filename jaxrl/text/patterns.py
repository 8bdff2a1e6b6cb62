r"""Reading a move out of what a model wrote: the payload of its last `\boxed{...}`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.text import Text

OPENING = np.frombuffer(rb"\boxed{", np.uint8)
CLOSING = ord("}")
LARGEST = 999_999_999  # larger integers are read as this: every game's range ends far below


class Integer(NamedTuple):
    """A number read from a text."""

    value: jax.Array  # int32 [], at most LARGEST; 0 where there is none
    found: jax.Array  # bool []


def boxed_integer(text: Text) -> Integer:
    r"""The integer of the last `\boxed{DIGITS}`, as `re.findall(r"\\boxed{(\d+)}", text)[-1]`.

    Digits of ASCII alone, no sign and no space.
    """
    size = text.capacity
    inside = jnp.arange(size) < text.length
    padded = jnp.pad(text.bytes, (0, OPENING.size))
    windows = [padded[i : i + size] == byte for i, byte in enumerate(OPENING)]
    opens = jnp.all(jnp.stack(windows), 0) & inside
    digit = text.bytes - ord("0")
    is_digit = (digit <= 9) & inside
    # For each place: where the run of digits that goes through it began, and where it ends.
    place = jnp.arange(size)
    starts = jax.lax.cummax(jnp.where(is_digit, -1, place)) + 1
    closes = (text.bytes == CLOSING) & inside
    before = starts - OPENING.size  # of the run that ends just before this place
    first = jnp.roll(before, 1).at[0].set(-1)
    ends = jnp.roll(is_digit, 1).at[0].set(False)
    match = closes & ends & (first >= 0) & opens[jnp.maximum(first, 0)]
    last = jnp.max(jnp.where(match, place, -1))
    begin = jnp.where(last >= 0, first[last] + OPENING.size, 0)
    return Integer(_decimal(digit, begin, last), last >= 0)


def _decimal(digit: jax.Array, begin: jax.Array, end: jax.Array) -> jax.Array:
    """int32 []: the digits of places begin .. end-1 as a number, at most LARGEST."""
    power = end - 1 - jnp.arange(digit.shape[0])
    used = (power >= 0) & (jnp.arange(digit.shape[0]) >= begin)
    weight = jnp.asarray([10**i for i in range(9)], jnp.int32)[jnp.clip(power, 0, 8)]
    value = jnp.sum(jnp.where(used & (power < 9), digit.astype(jnp.int32) * weight, 0))
    large = jnp.any(used & (power >= 9) & (digit > 0))
    return jnp.where(large, LARGEST, value)

r"""Reading an answer out of free text, honestly: the last one counts, and all of it.

What a number is: digits, or digits in groups of three with commas between (`1,234`), with a
fraction behind a point (`12.50`, `.5`). A point that no digit follows ends a sentence. A minus
(`-`, U+2212 or the dash U+2013) right before it, or before its `$`, is a sign unless a letter or a
digit stands before that. Digits with two points (`1.2.3`) are no number, and neither is the end of
an expression: what an operator joins to a number before it (`8-4`, `3 + 4`, `2*3`, `2 x 3`,
`2 \times 3`, but not the 4 of `8-4=4`), however many spaces stand between. Letters, `$`, `%` and
units around a number say nothing.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.numbers import LARGEST, integer
from jaxrl.text.patterns import OPENING
from jaxrl.text.text import Text, concat, find_last, matches_at, substring, where

NUMBER_BYTES = 32  # of a number in one spelling; a longer one is cut, and equals none
MARK = "####"  # stands before an answer, as in GSM8K
WHITE = b" \t\r\n"
MARKS = WHITE + b".*_`\"'"  # what may stand around an answer
CLOSING = MARKS + b")]}$%\\"  # what may stand behind one that ends a response
MULTIPLIER = 16777619  # of the Fowler-Noll-Vo hash


class Reading(NamedTuple):
    """An answer that was read."""

    text: Text  # in one spelling
    found: jax.Array  # bool []
    formed: jax.Array  # bool []: found, and in the form that was asked for


def last_box(text: Text) -> tuple[jax.Array, jax.Array]:
    r"""int32 [], int32 []: first byte of the last complete `\\boxed{...}`'s payload, its brace.

    The payload may hold pairs of braces. (-1, -1) where there is none.
    """
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    depth = jnp.cumsum((text.bytes == ord("{")).astype(jnp.int32) - (text.bytes == ord("}")))
    lowest = jax.lax.cummin(depth, reverse=True)
    begins = jnp.pad(matches_at(text, OPENING), (len(OPENING) - 1, 0))[: text.capacity]
    last = jnp.max(jnp.where(begins & (lowest < depth), place, -1))  # its opening brace
    closes = (place > last) & (depth < depth[last])
    found = last >= 0
    return jnp.where(found, last + 1, -1), jnp.where(found, jnp.argmax(closes), -1).astype(
        jnp.int32
    )


class Stated(NamedTuple):
    """Where a response states its answer."""

    text: Text
    marked: jax.Array  # bool []: behind `####`, or in a box
    last: jax.Array  # int32 []: the place of its last byte


def stated(text: Text) -> Stated:
    r"""What is in the last `\boxed{...}` or behind the last `####`, whichever comes later.

    The latter to the end of its line, which may be the next one. Without either all of the text.
    """
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    start, brace = last_box(text)
    mark = find_last(text, MARK)
    white = among(text, WHITE)
    inside = place < text.length
    behind = mark + len(MARK)
    begin = jnp.min(jnp.where((place >= behind) & ~white & inside, place, text.length))
    over = (place >= begin) & ((text.bytes == ord("\n")) | ~inside)
    end = jnp.min(jnp.where(over, place, text.length))
    boxed, hashed = brace > mark, mark >= 0
    first = jnp.where(boxed, start, jnp.where(hashed, begin, 0))
    stop = jnp.where(boxed, brace, jnp.where(hashed, end, text.length))
    said = substring(text, first, stop, text.capacity)
    return Stated(said, boxed | hashed, jnp.where(boxed, brace, stop - 1))


class _Number(NamedTuple):
    """The last number of a text."""

    text: Text  # in one spelling
    found: jax.Array  # bool []
    joined: jax.Array  # bool []: an operator joins it to a number before it
    begin: jax.Array  # int32 []: the place of its first digit
    end: jax.Array  # int32 []: of its last one


def last_number(text: Text) -> Reading:
    r"""The last number of the last `\boxed{...}`, or without one of all the text.

    In one spelling: no commas, no zeros in front or at the end of a fraction, a minus if not 0.
    It is formed if the text ends with it but for marks and white space. A text that was cut has
    no answer: more may have followed.
    """
    start, brace = last_box(text)
    boxed = brace >= 0
    stop = jnp.where(boxed, brace, text.length)
    number = _last_number(substring(text, jnp.maximum(start, 0), stop, text.capacity))
    found = number.found & ~number.joined & ~text.cut
    return Reading(number.text, found, found & ends(text, jnp.where(boxed, brace, number.end)))


def last_ratio(text: Text, ratio: jax.Array | None) -> tuple[Text, jax.Array, jax.Array]:
    r"""The last number, bool []: there is one, bool []: it is the fraction `ratio` [2].

    Where that is one (not 0), `3/4`, `6/8` and `\frac{3}{4}` are numbers too, and `1 3/4` is none.
    """
    number = _last_number(text)
    if ratio is None:
        return number.text, number.found & ~number.joined, jnp.asarray(False)
    slash = (_at(text, number.begin - 1) == ord("/")) | _braced(text, number.begin)
    above = _last_number(substring(text, 0, number.begin - 1, text.capacity))
    over, under = whole(above.text), whole(number.text)
    fraction = (ratio[1] > 0) & slash & above.found & ~above.joined
    mixed = (_at(text, above.begin - 1) == ord(" ")) & is_digit(_at(text, above.begin - 2))
    fraction &= (above.end >= number.begin - 3) & ~mixed
    size, unit = jnp.abs(ratio[0]), jnp.maximum(ratio[1], 1)
    times = jnp.maximum(under // unit, 1)  # of the fraction in lowest terms on both sides
    exact = (under % unit == 0) & (under > 0) & (jnp.maximum(jnp.abs(over), under) < LARGEST)
    same = (jnp.abs(over) // times == size) & (jnp.abs(over) % times == 0)
    same &= (over < 0) == (ratio[0] < 0)
    text = where(fraction, concat([above.text, "/", number.text], NUMBER_BYTES), number.text)
    found = number.found & (fraction | ~number.joined)
    return text, found, fraction & exact & same


def last_choice(text: Text) -> Text:
    """The last of A to E that stands alone, as one capital letter; empty without one."""
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    word = jnp.pad(_is_word(text.bytes), 1)
    letter = (text.bytes - ord("A") < 5) & ~word[:-2] & ~word[2:]
    last = jnp.max(jnp.where(letter, place, -1))
    return substring(text, jnp.maximum(last, 0), last + 1, 1)


def normal(text: Text, capacity: int) -> Text:
    """The last line: letters of ASCII small, white space single, no marks at either end."""
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    inside = place < text.length
    solid = inside & ~among(text, MARKS)
    last = jnp.max(jnp.where(solid, place, -1))
    line = jnp.max(jnp.where((text.bytes == ord("\n")) & (place < last), place + 1, 0))
    first = jnp.min(jnp.where(solid & (place >= line), place, text.capacity))
    white = among(text, WHITE)
    mask = (place >= first) & (place <= last) & ~(white & jnp.pad(white, (1, 0))[:-1])
    capital = text.bytes - ord("A") < 26
    small = jnp.where(capital, text.bytes + 32, jnp.where(white, ord(" "), text.bytes))
    return kept(text.replace(bytes=small.astype(jnp.uint8)), mask, capacity)


def among(text: Text, symbols: bytes) -> jax.Array:
    """bool [L]: the byte is one of these."""
    return jnp.any(text.bytes[:, None] == jnp.asarray([*symbols], jnp.uint8), 1)


def ends(text: Text, last: jax.Array) -> jax.Array:
    """bool []: nothing but marks and white space stands behind this place."""
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    return jnp.all(among(text, CLOSING) | (place <= last) | (place >= text.length))


def kept(text: Text, mask: jax.Array, capacity: int) -> Text:
    """The bytes where the mask [L] is set, one after the other."""
    count = jnp.cumsum(mask, dtype=jnp.int32)
    place = jnp.arange(capacity, dtype=jnp.int32)
    source = jnp.searchsorted(count, place, side="right")
    data = jnp.where(place < count[-1], jnp.take(text.bytes, source, mode="clip"), 0)
    return Text(data, jnp.minimum(count[-1], capacity), text.cut | (count[-1] > capacity))


def whole(number: Text) -> jax.Array:
    """int32 []: a number in one spelling; a fraction or a larger one reads as the largest."""
    fraction = jnp.any(number.bytes == ord("."))
    return jnp.where(fraction, LARGEST, integer(number))


def fingerprint(reading: Reading) -> jax.Array:
    """float32 []: an integer below 2^24, the same for the same answer; -1 without one."""
    power = np.cumprod(np.full(reading.text.capacity, MULTIPLIER, np.uint32), dtype=np.uint32)
    mixed = jnp.sum(reading.text.bytes * jnp.asarray(power), dtype=jnp.uint32)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x85EBCA6B)
    return jnp.where(reading.found, (mixed >> 8).astype(jnp.float32), -1.0)


def _last_number(text: Text) -> _Number:
    digit, member = _members(text)
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    end = jnp.max(jnp.where(digit, place, -1))
    begin = jnp.max(jnp.where(~member & (place < end), place + 1, 0))
    token = (place >= begin) & (place <= end)
    points = token & (text.bytes == ord("."))
    negative, joined = _before(text, begin)
    found = (end >= 0) & (jnp.sum(points) < 2)
    return _Number(
        _spelled(text, token & digit, points, negative, found), found, joined, begin, end
    )


def _at(text: Text, place: jax.Array) -> jax.Array:
    """uint8 []: the byte there, 0 beyond the ends."""
    inside = (place >= 0) & (place < text.length)
    return jnp.where(inside, text.bytes[jnp.maximum(place, 0)], 0)


def _braced(text: Text, begin: jax.Array) -> jax.Array:
    r"""bool []: the number that begins here is the lower one of a `\frac{3}{4}`."""
    closed = (_at(text, begin - 1) == ord("{")) & (_at(text, begin - 2) == ord("}"))
    return closed & is_digit(_at(text, begin - 3))


def _members(text: Text) -> tuple[jax.Array, jax.Array]:
    """bool [L], bool [L]: digits; what is part of a number, its commas and its point included."""
    data = text.bytes
    digit = is_digit(data)

    def at(mask, step):
        """The mask `step` places further on."""
        padded = jnp.pad(mask, (4, 4))
        return jax.lax.dynamic_slice_in_dim(padded, 4 + step, mask.shape[0])

    point = data == ord(".")
    three = at(digit, 1) & at(digit, 2) & at(digit, 3) & ~at(digit, 4)
    group = jnp.zeros_like(digit)  # one to three digits before it, which are no fraction
    for size in (1, 2, 3):
        run = jnp.all(jnp.stack([at(digit, -i) for i in range(1, size + 1)]), 0)
        group |= run & ~at(digit, -size - 1) & ~at(point, -size - 1)
    comma = (data == ord(",")) & three & group
    opens = ~at(_is_word(data) | point, -1)  # .5
    return digit, digit | comma | (point & at(digit, 1) & (at(digit, -1) | opens))


def _before(text: Text, begin: jax.Array) -> tuple[jax.Array, jax.Array]:
    """bool [], bool []: the number that begins here is negative; it is joined to one before it."""
    at = partial(_at, text)
    fraction = jnp.asarray(True)
    for step, symbol in enumerate(b"{carf", 1):  # \\frac{, \\dfrac{ or \\tfrac{ stands before it
        fraction &= at(begin - step) == symbol
    start = begin - jnp.where(fraction, 5, 0)
    start -= fraction & ((at(start - 1) == ord("d")) | (at(start - 1) == ord("t")))
    start -= fraction & (at(start - 1) == ord("\\"))
    dollar = at(start - 1) == ord("$")
    start -= dollar
    start -= dollar & (at(start - 1) == ord("\\"))
    last = _solid_before(text, start)  # byte of what may be an operator
    apart = last < start - 1
    # Of three bytes: U+2212, and the dash U+2013 that is written for it.
    long_minus = (at(last) == 0x92) & (at(last - 1) == 0x88) & (at(last - 2) == 0xE2)
    long_minus |= (at(last) == 0x93) & (at(last - 1) == 0x80) & (at(last - 2) == 0xE2)
    times = ((at(last) == 0x97) | (at(last) == 0xB7)) & (at(last - 1) == 0xC3)
    minus = long_minus | (at(last) == ord("-"))
    width = jnp.where(long_minus, 3, jnp.where(times, 2, 1))
    named = jnp.asarray(False)
    for word in (b"**", b"\\times", b"\\cdot", b"\\div"):
        here = jnp.all(jnp.stack([at(last - i) == x for i, x in enumerate(reversed(word))]))
        named, width = named | here, jnp.where(here, len(word), width)
    letter = at(last) == ord("x")  # 2x3, 2 x 3
    operator = minus | times | named | letter | _among(at(last), b"+*/^")
    before = last - width
    operand = _solid_before(text, before + 1)
    spaced, symbol = operand < before, at(operand)
    joined = is_digit(symbol) | ((symbol == ord(")")) & (apart | ~spaced))
    return minus & ~apart & ~_is_word(at(before)), (operator & joined) | _braced(text, begin)


def _solid_before(text: Text, place: jax.Array) -> jax.Array:
    """int32 []: the nearest place before this one where no space stands, -1 if there is none."""
    here = jnp.arange(text.capacity, dtype=jnp.int32)
    return jnp.max(jnp.where((here < place) & (text.bytes != ord(" ")), here, -1))


def _among(byte: jax.Array, symbols: bytes) -> jax.Array:
    return jnp.any(byte == jnp.asarray([*symbols], jnp.uint8))


def _spelled(
    text: Text, digit: jax.Array, point: jax.Array, negative: jax.Array, found: jax.Array
) -> Text:
    """The number of these digits with its point, in one spelling."""
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    split = jnp.where(jnp.any(point), jnp.argmax(point), text.capacity)
    solid = digit & (text.bytes != ord("0"))
    first, last = jnp.argmax(solid), jnp.max(jnp.where(solid, place, -1))
    zero = ~jnp.any(solid)
    keep = digit & jnp.where(place < split, place >= first, place <= last)
    keep |= point & (last > split)
    size = kept(text, keep & ~zero & found, NUMBER_BYTES)
    signs = where(zero, "0", where(negative, "-", ""))
    return concat([where(found, signs, ""), size], NUMBER_BYTES)


def is_digit(data: jax.Array) -> jax.Array:
    """bool [...]: of bytes."""
    return (data - ord("0")) <= 9


def _is_word(data: jax.Array) -> jax.Array:
    letter = ((data | 32) - ord("a")) < 26
    return is_digit(data) | letter

"""The characters of a text inside jit: code points, their classes, white space, the form NFC.

Tables are made of Python's own `unicodedata`. A code point that it does not know has the class
UNKNOWN, for a later version of Unicode may have made a letter of it.
"""

import unicodedata
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.pairs import Pairs
from jaxrl.text.text import Text, substring

POINTS = 0x110000
PAGE = 256

# Classes: letters by their case, the two characters that end a line, white space, and the rest.
UPPER, LOWER, LETTER, MARK, NUMBER, OTHER, UNKNOWN, NEWLINE, SPACE, BLANK = range(10)
_CLASS_OF = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "Lm": LETTER, "Lo": LETTER, "Cn": UNKNOWN}
_CLASS_OF |= {kind: MARK for kind in ("Mn", "Mc", "Me")}
_CLASS_OF |= {kind: NUMBER for kind in ("Nd", "Nl", "No")}
# White_Space of the Unicode database but for space and the ends of lines.
_BLANKS = (9, 11, 12, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F)
_BLANKS += (0x3000,)
_PICTURES = range(0x1F300, 0x1FB00)  # blocks in which new characters are symbols
_NEVER = 255  # in place of a combining class: the character does not occur in NFC


class Table(NamedTuple):
    """A value for every code point; equal pages are kept once."""

    page: np.ndarray  # int32 [POINTS / PAGE]
    value: np.ndarray  # [pages, PAGE]

    @classmethod
    def of(cls, value: np.ndarray) -> "Table":
        pages, page = np.unique(value.reshape(-1, PAGE), axis=0, return_inverse=True)
        return cls(page.reshape(-1).astype(np.int32), pages)

    def at(self, point: jax.Array) -> jax.Array:
        page = jnp.asarray(self.page)[point // PAGE]
        return jnp.asarray(self.value).reshape(-1)[page * PAGE + point % PAGE]


class Characters(NamedTuple):
    """A text as characters of UTF-8; each byte knows of which it is one."""

    point: jax.Array  # int32 [L]: the code point
    size: jax.Array  # int32 [L]: bytes of the character
    first: jax.Array  # bool [L]: its first byte
    valid: jax.Array  # bool []: the whole text is UTF-8


def characters(text: Text) -> Characters:
    """Where the characters of a text are, and which."""
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    byte = jnp.where(place < text.length, text.bytes, 0).astype(jnp.int32)
    first = (byte & 0xC0) != 0x80
    size = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
    ahead = jnp.pad(byte, (0, 3)) & 0x3F
    point = jnp.where(size == 1, byte, byte & (0x7F >> size))
    for i in range(1, 4):
        point = jnp.where(size > i, point << 6 | ahead[i : i + text.capacity], point)
    least = jnp.asarray([0, 0, 0x80, 0x800, 0x10000])[size]
    sound = (point >= least) & (point < POINTS) & (byte < 0xF8)
    sound &= (point < 0xD800) | (point > 0xDFFF)
    continued = jnp.zeros_like(first)
    point = jnp.clip(point, 0, POINTS - 1)
    for i in (3, 2, 1):  # the nearest last
        leads = _before(first & (size > i), i)
        continued |= leads
        point = jnp.where(~first & _before(first, i), _before(point, i), point)
        size = jnp.where(~first & _before(first, i), _before(size, i), size)
    valid = jnp.all((continued == ~first) & (sound | ~first))
    return Characters(point, size, first, valid)


def _before(x: jax.Array, places: int) -> jax.Array:
    """What stands so many places before; 0 at the start."""
    return jnp.pad(x, (places, 0))[: x.shape[0]]


def classes(found: Characters) -> jax.Array:
    """int [L]: the class of each byte's character."""
    return _classes().at(found.point).astype(jnp.int32)


def known(text: str) -> bool:
    """Whether every character has a class, asked on the host."""
    page, value = _classes()
    points = np.fromiter(map(ord, text), np.int64, len(text))
    return bool(np.all(value[page[points // PAGE], points % PAGE] != UNKNOWN))


@cache
def _classes() -> Table:
    value = np.full(POINTS, OTHER, np.uint8)
    for point in range(POINTS):
        value[point] = _CLASS_OF.get(unicodedata.category(chr(point)), OTHER)
    value[list(_BLANKS)], value[32], value[[10, 13]] = BLANK, SPACE, NEWLINE
    pictures = value[_PICTURES.start : _PICTURES.stop]
    pictures[pictures == UNKNOWN] = OTHER
    return Table.of(value)


def strip(text: Text) -> Text:
    """Without white space at both ends, like `str.strip`; as it is where it is no UTF-8."""
    found = characters(text)
    white = (classes(found) >= NEWLINE) | ((found.point >= 28) & (found.point < 32))
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    solid = ~(white & found.valid) & (place < text.length)
    start = jnp.where(jnp.any(solid), jnp.argmax(solid), text.length)
    stop = jnp.max(jnp.where(solid, place + 1, 0), initial=0)
    return substring(text, start, jnp.maximum(stop, start), text.capacity)


def is_nfc(found: Characters) -> jax.Array:
    """bool []: the text is in the form NFC.

    So it is when no character has a canonical equal that is preferred, marks stand in the order of
    their classes, and none could be made one with the letter before it (UAX 15).
    """
    orders, compositions = _canonical()
    place = jnp.arange(found.point.shape[0], dtype=jnp.int32)
    order = orders.at(found.point).astype(jnp.int32)
    before = _before(order, 1)
    starter = jax.lax.cummax(jnp.where(found.first & (order == 0), place, -1))
    starter = jnp.pad(starter, (1, 0), constant_values=-1)[:-1]
    letter = jnp.where(starter < 0, -1, found.point[jnp.maximum(starter, 0)])
    joins = compositions.find(letter, found.point)[0] >= 0
    joins |= _hangul(letter, found.point)
    odd = (order == _NEVER) | ((order > 0) & (before > order))
    odd |= joins & ((before == 0) | (before < order))
    return ~jnp.any(odd & found.first)


def _hangul(left: jax.Array, right: jax.Array) -> jax.Array:
    """bool: two pieces of a syllable, which is written as one character."""
    vowel = (left >= 0x1100) & (left < 0x1113) & (right >= 0x1161) & (right < 0x1176)
    open_syllable = (left >= 0xAC00) & (left < 0xD7A4) & ((left - 0xAC00) % 28 == 0)
    return vowel | (open_syllable & (right > 0x11A7) & (right < 0x11C3))


@cache
def _canonical() -> tuple[Table, Pairs]:
    """(combining classes, pairs of code points that NFC makes others of)."""
    order = np.zeros(POINTS, np.uint8)
    letters, marks = set(), set()
    for point in range(POINTS):
        char = chr(point)
        order[point] = unicodedata.combining(char)
        parts = unicodedata.decomposition(char).split()
        if parts and not parts[0].startswith("<"):
            if _nfc(char) != char:
                order[point] = _NEVER
            elif len(parts) == 2:
                letters |= {char, chr(int(parts[0], 16))}
                marks.add(chr(int(parts[1], 16)))
    pairs = [(ord(x), ord(y)) for x in letters for y in marks if _nfc(x + y) != x + y]
    pair = np.array(pairs, np.int32)
    with jax.ensure_compile_time_eval():
        return Table.of(order), Pairs.of(pair, np.zeros_like(pair))


_nfc = partial(unicodedata.normalize, "NFC")

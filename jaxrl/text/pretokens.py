"""Where a byte-level BPE tokenizer splits a text before it merges: an automaton over bytes.

The regular expressions of GPT-2, Qwen2 and Llama-3 look ahead by a few bytes and to the end of a
run of white space. With that folded into a symbol for each byte, one state tells whether a byte
goes on with the token before it, and all states come out of one associative scan.
"""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.text import Text

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_MODERN = (
    rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Pattern:
    """One of the known regular expressions, restricted to ASCII."""

    name: str
    regex: str
    digits: int  # in a token at most; 0: any number
    modern: bool  # Qwen2's and Llama-3's treatment of new lines, prefixes and upper case


GPT2 = Pattern(
    "gpt2",
    rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",
    digits=0,
    modern=False,
)
QWEN2 = Pattern("qwen2", _MODERN % r"\p{N}", digits=1, modern=True)
LLAMA3 = Pattern("llama3", _MODERN % r"\p{N}{1,3}", digits=3, modern=True)
PATTERNS = {pattern.name: pattern for pattern in (GPT2, QWEN2, LLAMA3)}

# Classes of bytes.
_LETTER, _DIGIT, _OTHER, _NEWLINE, _SPACE, _BLANK = range(6)

# Symbols: a byte with what follows it.
(
    LETTER,
    DIGIT,
    OTHER,
    OTHER_BEFORE_LETTER,
    SHORT,  # the apostrophe of 's
    LONG,  # the apostrophe of 're
    NEWLINE,  # the last new line of a run of white space
    NEWLINE_INSIDE,
    BLANK_BEFORE_NEWLINE,  # white space with a new line further on in its run
    LAST_SPACE,  # a space right before what is no white space
    LAST_BLANK,  # other white space there
    BLANK,
) = range(12)

# States: what the token so far is.
(
    START,  # nothing: the next byte starts a token
    WORD,
    DIGITS_1,
    DIGITS_2,
    DIGITS_3,
    SIGNS,
    SIGNS_NEWLINE,  # new lines after signs, still of their token
    WHITE,
    WHITE_NEWLINE,  # white space that goes on to a new line
    SPACE_PREFIX,
    BLANK_PREFIX,
    SIGN_PREFIX,
    ONE_MORE,  # inside a contraction
    TWO_MORE,
) = range(14)


def _follow(pattern: Pattern, symbol: int, state: int) -> tuple[int, bool]:
    """(state after the byte, whether the byte starts a token)."""
    if state in (ONE_MORE, TWO_MORE):
        return (START if state == ONE_MORE else ONE_MORE), False
    if symbol == LETTER:
        prefixes = (SPACE_PREFIX, BLANK_PREFIX, SIGN_PREFIX) if pattern.modern else (SPACE_PREFIX,)
        return WORD, state not in (WORD, *prefixes)
    if symbol == DIGIT:
        return _digit(pattern, state)
    if symbol in (OTHER, OTHER_BEFORE_LETTER, SHORT, LONG):
        if state in (SIGNS, SPACE_PREFIX):
            return SIGNS, False
        if symbol in (SHORT, LONG):
            return (ONE_MORE if symbol == SHORT else TWO_MORE), True
        prefix = pattern.modern and symbol == OTHER_BEFORE_LETTER
        return (SIGN_PREFIX if prefix else SIGNS), True
    if symbol in (NEWLINE, NEWLINE_INSIDE):
        if state in (SIGNS, SIGNS_NEWLINE):
            return SIGNS_NEWLINE, False
        return (WHITE_NEWLINE if symbol == NEWLINE_INSIDE else START), state != WHITE_NEWLINE
    if symbol == BLANK_BEFORE_NEWLINE:
        return WHITE_NEWLINE, state != WHITE_NEWLINE
    if symbol == LAST_SPACE:
        return SPACE_PREFIX, True
    if symbol == LAST_BLANK:
        return BLANK_PREFIX, True
    return WHITE, state != WHITE


def _digit(pattern: Pattern, state: int) -> tuple[int, bool]:
    if pattern.digits == 0:
        return DIGITS_1, state not in (DIGITS_1, SPACE_PREFIX)
    counted = {DIGITS_1: DIGITS_2, DIGITS_2: DIGITS_3}
    if pattern.digits == 3 and state in counted:
        return counted[state], False
    return DIGITS_1, True


@cache
def _tables(pattern: Pattern) -> tuple[np.ndarray, np.ndarray]:
    """(next state, starts a token), both [symbols, states]."""
    rules = [[_follow(pattern, symbol, state) for state in range(14)] for symbol in range(12)]
    return np.array([[r[0] for r in row] for row in rules]), np.array(
        [[r[1] for r in row] for row in rules]
    )


@cache
def _classes() -> np.ndarray:
    """int [256]: the class of each byte; above 127 they mean nothing."""
    classes = np.full(256, _OTHER)
    for byte in range(128):
        char = chr(byte)
        if char.isalpha():
            classes[byte] = _LETTER
        elif char.isdigit():
            classes[byte] = _DIGIT
    classes[[9, 11, 12]], classes[32], classes[[10, 13]] = _BLANK, _SPACE, _NEWLINE
    return classes


def starts(text: Text, pattern: Pattern, gap: jax.Array | None = None) -> jax.Array:
    """bool [L]: a pre-token begins at this byte. Exact for ASCII.

    Bytes in a gap belong to none; what stands before and after one are texts of their own.
    """
    size = text.capacity
    inside = jnp.arange(size, dtype=jnp.int32) < text.length
    inside = inside if gap is None else inside & ~gap
    symbol = _symbols(text, inside, pattern)
    following, begins = (jnp.asarray(table) for table in _tables(pattern))
    step = jnp.where(inside[:, None], following[symbol], START)  # [L, states]

    def then(first, second):
        return jnp.take_along_axis(second, first, -1)

    after = jax.lax.associative_scan(then, step)[:, START]
    before = jnp.concatenate([jnp.full(1, START, after.dtype), after[:-1]])
    return begins[symbol, before] & inside


def _symbols(text: Text, inside: jax.Array, pattern: Pattern) -> jax.Array:
    """int32 [L]: each byte with what of the text after it matters, up to where `inside` ends."""
    size = text.capacity
    place = jnp.arange(size, dtype=jnp.int32)
    kind = jnp.where(inside, jnp.asarray(_classes())[text.bytes], -1)
    white = kind >= _NEWLINE
    newline = (kind == _NEWLINE) & pattern.modern

    def following(here):
        """The next place after this one where `here`; beyond the end if none."""
        at = jnp.append(jnp.where(here, place, size), size)
        return jax.lax.cummin(at, reverse=True)[1:]

    before_newline = following(newline) < following(~white)
    after = jnp.append(kind[1:], -1)
    last = (after >= 0) & (after < _NEWLINE)
    other = jnp.where(after == _LETTER, OTHER_BEFORE_LETTER, OTHER)
    contraction = _contractions(text, inside, pattern)
    other = jnp.where(contraction == 0, other, jnp.where(contraction == 1, SHORT, LONG))
    blank = jnp.where(last, jnp.where(kind == _SPACE, LAST_SPACE, LAST_BLANK), BLANK)
    blank = jnp.where(before_newline, BLANK_BEFORE_NEWLINE, blank)
    symbol = jnp.where(kind == _LETTER, LETTER, jnp.where(kind == _DIGIT, DIGIT, other))
    symbol = jnp.where(white, blank, symbol)
    return jnp.where(newline, jnp.where(before_newline, NEWLINE_INSIDE, NEWLINE), symbol)


def _contractions(text: Text, inside: jax.Array, pattern: Pattern) -> jax.Array:
    """int32 [L]: letters of the contraction that would begin at this byte, 0 where none."""
    data = jnp.pad(jnp.where(inside, text.bytes, 0), (0, 2))
    if pattern.modern:
        data = jnp.where((data >= 65) & (data <= 90), data + 32, data)
    first, second, third = data[:-2], data[1:-1], data[2:]
    found = jnp.zeros(text.capacity, jnp.int32)
    for word in _CONTRACTIONS.split("|"):
        same = (first == ord("'")) & (second == ord(word[1]))
        if len(word) == 3:
            same &= third == ord(word[2])
        found = jnp.where(same, len(word) - 1, found)
    return found

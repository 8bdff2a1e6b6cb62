"""Where a tokenizer splits a text before it merges: an automaton over characters.

The regular expressions of GPT-2, Qwen2, Llama-3 and GPT-4o look ahead by a few characters and to
the end of a run. With that folded into a symbol for each byte, one state tells whether a byte
goes on with the token before it.
"""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.characters import (
    LETTER,
    LOWER,
    MARK,
    NEWLINE,
    NUMBER,
    SPACE,
    UPPER,
    Characters,
    classes,
)
from jaxrl.text.text import Text

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_SPLITS = r"%s| ?[^\s\p{L}\p{N}]+[\r\n%s]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_MODERN = rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = "".join(
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}{upper}{_LOWER}{lower}(?i:{_CONTRACTIONS})?|"
    for upper, lower in ("*+", "+*")
)


@dataclass(frozen=True)
class Pattern:
    """One of the known ways to split."""

    name: str
    regex: str  # "": it does not split at all
    digits: int = 0  # in a token at most; 0: any number
    modern: bool = False  # new lines, prefixes and upper case as since GPT-4's tokenizer
    cased: bool = False  # a word ends where upper case begins, as in GPT-4o's
    alone: bool = False  # each digit is a text of its own, and so is what stands between


_OLD = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
GPT2 = Pattern("gpt2", _OLD)
SMOLLM = Pattern("smollm", _OLD, alone=True)
QWEN2 = Pattern("qwen2", _MODERN + _SPLITS % (r"\p{N}", ""), digits=1, modern=True)
LLAMA3 = Pattern("llama3", _MODERN + _SPLITS % (r"\p{N}{1,3}", ""), digits=3, modern=True)
GPT4O = Pattern("gpt4o", _CASED + _SPLITS % (r"\p{N}{1,3}", "/"), digits=3, modern=True, cased=True)
GEMMA = Pattern("gemma", "")
PATTERNS = {p.name: p for p in (GPT2, SMOLLM, QWEN2, LLAMA3, GPT4O, GEMMA)}

# Symbols: a byte with what follows it.
(
    INSIDE,  # a byte of a character that has begun
    ANY_LETTER,
    CAPITAL,
    SMALL,
    EITHER,  # a letter without case
    EITHER_LAST,  # after which only capitals follow in the word
    MARKED,  # a mark, which is no letter but may stand in for one without case
    MARKED_LAST,
    DIGIT,
    SIGN,
    SIGN_BEFORE_LETTER,
    SLASH,
    SLASH_BEFORE_LETTER,
    SHORT,  # the apostrophe of 's
    LONG,  # the apostrophe of 're
    LINE,  # the last new line of a run of white space
    LINE_INSIDE,
    BLANK_BEFORE_LINE,  # white space with a new line further on in its run
    LAST_SPACE,  # a space right before what is no white space
    LAST_BLANK,  # other white space there
    WHITE_INSIDE,
) = range(21)
_APOSTROPHES, _SLASHES = (SHORT, LONG), (SLASH, SLASH_BEFORE_LETTER)
_SIGNS = (SIGN, SIGN_BEFORE_LETTER, *_SLASHES, *_APOSTROPHES)

# States: what the token so far is.
(
    START,  # nothing: the next character starts a token
    CAPITALS,  # a word in which small letters may still follow
    WORD,
    DIGITS_1,
    DIGITS_2,
    DIGITS_3,
    SIGNS,
    SIGNS_LINE,  # new lines after signs, still of their token
    WHITE,
    WHITE_LINE,  # white space that goes on to a new line
    SPACE_PREFIX,
    BLANK_PREFIX,
    SIGN_PREFIX,
    ONE_MORE,  # inside a contraction
    TWO_MORE,
) = range(15)


def _follow(pattern: Pattern, symbol: int, state: int) -> tuple[int, bool]:
    """(state after the byte, whether the byte starts a token)."""
    if symbol == INSIDE:
        return state, False
    if state in (ONE_MORE, TWO_MORE):
        return (START if state == ONE_MORE else ONE_MORE), False
    if ANY_LETTER <= symbol <= MARKED_LAST:
        return _letter(pattern, symbol, state)
    if symbol == DIGIT:
        return _digit(pattern, state)
    if symbol in _SIGNS:
        return _sign(pattern, symbol, state)
    if symbol in (LINE, LINE_INSIDE):
        if state in (SIGNS, SIGNS_LINE):
            return SIGNS_LINE, False
        return (WHITE_LINE if symbol == LINE_INSIDE else START), state != WHITE_LINE
    if symbol == BLANK_BEFORE_LINE:
        return WHITE_LINE, state != WHITE_LINE
    if symbol == LAST_SPACE:
        return SPACE_PREFIX, True
    if symbol == LAST_BLANK:
        return BLANK_PREFIX, True
    return WHITE, state != WHITE


def _letter(pattern: Pattern, symbol: int, state: int) -> tuple[int, bool]:
    prefixes = (SPACE_PREFIX, BLANK_PREFIX, SIGN_PREFIX) if pattern.modern else (SPACE_PREFIX,)
    if symbol in (MARKED, MARKED_LAST) and state == SIGNS:
        return SIGNS, False
    if symbol == CAPITAL:
        return CAPITALS, state not in (CAPITALS, *prefixes)
    goes_on = state in (CAPITALS, WORD, *prefixes)
    open_word = symbol in (EITHER, MARKED) and state != WORD
    return (CAPITALS if open_word else WORD), not goes_on


def _digit(pattern: Pattern, state: int) -> tuple[int, bool]:
    if pattern.digits == 0:
        return DIGITS_1, state not in (DIGITS_1, SPACE_PREFIX)
    counted = {DIGITS_1: DIGITS_2, DIGITS_2: DIGITS_3}
    if pattern.digits == 3 and state in counted:
        return counted[state], False
    return DIGITS_1, True


def _sign(pattern: Pattern, symbol: int, state: int) -> tuple[int, bool]:
    if state in (SIGNS, SPACE_PREFIX):
        return SIGNS, False
    if symbol in _SLASHES and state == SIGNS_LINE:
        return SIGNS_LINE, False
    contraction = ONE_MORE if symbol == SHORT else TWO_MORE
    if pattern.cased and symbol in _APOSTROPHES and state in (CAPITALS, WORD):
        return contraction, False
    if not pattern.cased and symbol in _APOSTROPHES:
        return contraction, True
    prefix = symbol in (SIGN_BEFORE_LETTER, SLASH_BEFORE_LETTER, *_APOSTROPHES)
    return (SIGN_PREFIX if prefix and pattern.modern else SIGNS), True


@cache
def _tables(pattern: Pattern) -> tuple[np.ndarray, np.ndarray]:
    """(next state, starts a token), both [symbols, states]."""
    rules = [
        [_follow(pattern, symbol, state) for state in range(TWO_MORE + 1)]
        for symbol in range(WHITE_INSIDE + 1)
    ]
    table = np.array(rules, np.int32)
    return table[..., 0], table[..., 1] > 0


def starts(
    text: Text, found: Characters, pattern: Pattern, gap: jax.Array | None = None
) -> jax.Array:
    """bool [L]: a pre-token begins at this byte of a text of these characters.

    Bytes in a gap belong to none; what stands before and after one are texts of their own.
    """
    inside = jnp.arange(text.capacity, dtype=jnp.int32) < text.length
    inside = inside if gap is None else inside & ~gap
    if not pattern.regex:
        return inside & ~jnp.append(False, inside[:-1])
    kind = classes(found)
    digit = inside & (kind == NUMBER) & pattern.alone
    inside &= ~digit
    symbol = _symbols(text, found, jnp.where(inside, kind, -1), pattern)
    following, begins = (jnp.asarray(table) for table in _tables(pattern))

    def read(state, byte):
        symbol, inside = byte
        return jnp.where(inside, following[symbol, state], START), begins[symbol, state] & inside

    _, here = jax.lax.scan(read, jnp.int32(START), (symbol, inside))
    return here | (digit & found.first)


def _symbols(text: Text, found: Characters, kind: jax.Array, pattern: Pattern) -> jax.Array:
    """int32 [L]: each byte with what of the text after it matters; `kind` is -1 where it ends."""
    size = text.capacity
    place = jnp.arange(size, dtype=jnp.int32)
    begins = found.first | (kind < 0)

    def following(here):
        """The next place after this one where a character is `here`; beyond the end if none."""
        at = jnp.append(jnp.where(here & begins, place, size), size)
        return jax.lax.cummin(at, reverse=True)[1:]

    white, newline = kind >= NEWLINE, (kind == NEWLINE) & pattern.modern
    before_newline = following(newline) < following(~white)
    after = kind.at[place + found.size].get(mode="fill", fill_value=-1)
    last = (after >= 0) & (after < NEWLINE)
    blank = jnp.where(last, jnp.where(kind == SPACE, LAST_SPACE, LAST_BLANK), WHITE_INSIDE)
    blank = jnp.where(before_newline, BLANK_BEFORE_LINE, blank)
    blank = jnp.where(newline, jnp.where(before_newline, LINE_INSIDE, LINE), blank)
    letter = ANY_LETTER
    if pattern.cased:
        going = following((kind >= LOWER) & (kind <= MARK))
        last = (going == size) | (following(kind != UPPER) < going)
        letter = jnp.where(kind == UPPER, CAPITAL, SMALL)
        letter = jnp.where(kind == LETTER, EITHER + last, letter)
        letter = jnp.where(kind == MARK, MARKED + last, letter)
    is_letter = (kind >= 0) & (kind <= (MARK if pattern.cased else LETTER))
    before_letter = (after >= 0) & (after <= (MARK if pattern.cased else LETTER))
    slash = (text.bytes == ord("/")) & pattern.cased
    sign = jnp.where(slash, SLASH, SIGN) + before_letter
    contraction = _contractions(text, kind, pattern)
    sign = jnp.where(contraction == 0, sign, jnp.where(contraction == 1, SHORT, LONG))
    symbol = jnp.where(is_letter, letter, jnp.where(kind == NUMBER, DIGIT, sign))
    return jnp.where(begins, jnp.where(white, blank, symbol), INSIDE)


def _contractions(text: Text, kind: jax.Array, pattern: Pattern) -> jax.Array:
    """int32 [L]: letters of the contraction that would begin at this byte, 0 where none."""
    data = jnp.pad(jnp.where(kind >= 0, text.bytes, 0), (0, 2))
    if pattern.modern:
        data = jnp.where((data >= 65) & (data <= 90), data + 32, data)
    first, second, third = data[:-2], data[1:-1], data[2:]
    found = jnp.zeros(text.capacity, jnp.int32)
    for word in _CONTRACTIONS.split("|"):
        same = second == ord(word[1])
        if len(word) == 3:
            same &= third == ord(word[2])
        found = jnp.where(same, len(word) - 1, found)
    if pattern.modern:  # the long s, which is an s in another case
        found = jnp.where((second == 0xC5) & (third == 0xBF), 1, found)
    return jnp.where(first == ord("'"), found, 0)

r"""JSON read byte by byte inside jit: RFC 8259 as an automaton with a stack of 31 levels.

Strings must be UTF-8 once decoded: half of a surrogate pair (`"\ud800"`) is no JSON here, and
neither is what is nested deeper. The names that a reader asks for are found on the way, in a trie
over decoded characters, so that `"n\u0061me"` is the name `name`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

MOST_DEPTH = 31
# What was read so far: `VALUE` waits for one, `FIRST` stands behind a `[`, `OPENED` behind a `{`.
DEAD, VALUE, FIRST, OPENED, KEY, COLON, AFTER, STRING, ESCAPE, HEX = range(10)
HIGH, HIGH_ESCAPE, MINUS, ZERO, WHOLE, POINT, FRACTION, EXPONENT, SIGN, POWER = range(13, 23)
LITERAL = 23  # the first of the states inside true, false and null
# What the table asks for in place of a state.
PUSH_OBJECT, PUSH_ARRAY, POP_OBJECT, POP_ARRAY, COMMA, QUOTE, CLOSE, HEX_END = range(40, 48)

WHITE = b" \t\n\r"
DIGITS = b"0123456789"
ESCAPES = dict(zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True))
NUMBERS = (MINUS, ZERO, WHOLE, POINT, FRACTION, EXPONENT, SIGN, POWER)
COMPLETE = (AFTER, ZERO, WHOLE, FRACTION, POWER)  # a value may end here
IS_COMPLETE = np.isin(np.arange(64), COMPLETE)
ROOT, OTHER = 0, 1  # nodes of the trie: nothing read, and no name


def _transitions() -> np.ndarray:
    """uint8 [states, 256]: where a byte leads."""
    table = np.full((40, 256), DEAD, np.uint8)

    def lead(states: Iterable[int], symbols: bytes, target: int) -> None:
        for state in states:
            table[state, list(symbols)] = target

    lead((AFTER,), b",", COMMA)
    lead((AFTER, OPENED), b"}", POP_OBJECT)
    lead((AFTER, FIRST), b"]", POP_ARRAY)
    lead((AFTER,), WHITE, AFTER)
    for state in COMPLETE[1:]:
        table[state] = table[AFTER]
    values = (VALUE, FIRST)
    for symbol, target in zip(b'{["-0', (PUSH_OBJECT, PUSH_ARRAY, QUOTE, MINUS, ZERO), strict=True):
        lead(values, bytes([symbol]), target)
    lead(values, DIGITS[1:], WHOLE)
    lead((OPENED, KEY), b'"', QUOTE)
    lead((COLON,), b":", VALUE)
    for state in (*values, OPENED, KEY, COLON):
        lead((state,), WHITE, state)
    state = LITERAL
    for word in (b"true", b"false", b"null"):
        lead(values, word[:1], state)
        for symbol in word[1:-1]:
            lead((state,), bytes([symbol]), state + 1)
            state += 1
        lead((state,), word[-1:], AFTER)
        state += 1
    lead((STRING,), bytes(range(32, 256)), STRING)
    lead((STRING,), b'"', CLOSE)
    lead((STRING,), b"\\", ESCAPE)
    lead((ESCAPE,), bytes(ESCAPES), STRING)
    lead((ESCAPE, HIGH_ESCAPE), b"u", HEX)
    lead((HIGH,), b"\\", HIGH_ESCAPE)
    for i in range(4):
        lead((HEX + i,), DIGITS + b"abcdefABCDEF", HEX + i + 1 if i < 3 else HEX_END)
    lead((MINUS,), b"0", ZERO)
    lead((MINUS, WHOLE), DIGITS[1:], WHOLE)
    lead((WHOLE,), b"0", WHOLE)
    lead((ZERO, WHOLE), b".", POINT)
    lead((POINT, FRACTION), DIGITS, FRACTION)
    lead((ZERO, WHOLE, FRACTION), b"eE", EXPONENT)
    lead((EXPONENT,), b"+-", SIGN)
    lead((EXPONENT, SIGN, POWER), DIGITS, POWER)
    return table


TABLE = _transitions()
ESCAPED = np.zeros(256, np.int32)
ESCAPED[list(ESCAPES)] = list(ESCAPES.values())
HEX_DIGIT = np.zeros(256, np.int32)
for _i, _symbols in enumerate(zip(b"0123456789abcdef", b"0123456789ABCDEF", strict=True)):
    HEX_DIGIT[list(_symbols)] = _i


class Names(NamedTuple):
    """Names to be found, each by the node of the trie where it ends."""

    table: np.ndarray  # int16 [nodes, 128]: where a character leads
    node: dict[str, int]

    @classmethod
    def of(cls, words: Iterable[str]) -> "Names":
        rows = [np.full(128, OTHER, np.int16) for _ in (ROOT, OTHER)]
        node: dict[str, int] = {}
        for word in dict.fromkeys(words):
            at = ROOT
            for symbol in word.encode("ascii"):
                if rows[at][symbol] == OTHER:
                    rows[at][symbol] = len(rows)
                    rows.append(np.full(128, OTHER, np.int16))
                at = int(rows[at][symbol])
            node[word] = at
        return cls(np.stack(rows), node)


class Head(flax.struct.PyTreeNode):
    """Where a reader stands."""

    state: jax.Array  # int32 []
    depth: jax.Array  # int32 []: open objects and arrays
    stack: jax.Array  # uint32 []: bit 0 is the innermost one, set where it is an object
    is_key: jax.Array  # bool []: of the string that was read last
    node: jax.Array  # int32 []: of that string in the trie
    code: jax.Array  # int32 []: hexadecimal digits so far
    high: jax.Array  # int32 []: the first half of a surrogate pair, 0 where there is none
    outer: jax.Array  # int32 []: node of the last key of the outermost object
    inner: jax.Array  # int32 []: and of one in it


class Seen(NamedTuple):
    """What a byte told."""

    depth: jax.Array  # int32 []: before it
    complete: jax.Array  # bool []: the text may end behind it
    begins: jax.Array  # bool []: a value begins here
    closes: jax.Array  # bool []: a string that is a value ends here
    outer: jax.Array  # int32 []: the keys of a value that begins here
    inner: jax.Array  # int32 []
    node: jax.Array  # int32 []: of the string
    plain: jax.Array  # bool []: the byte is one of a value's, as it is
    point: jax.Array  # int32 []: the character of a value whose escape ends here, -1: none


def start() -> Head:
    """Before the first byte."""
    zero, no = jnp.zeros((), jnp.int32), jnp.asarray(False)
    return Head(zero + VALUE, zero, jnp.zeros((), jnp.uint32), no, zero, zero, zero, zero, zero)


def read(head: Head, byte: jax.Array, table: jax.Array, trie: jax.Array) -> tuple[Head, Seen]:
    """One byte on; `table` is TABLE and `trie` that of the names."""
    goal = table[head.state, byte].astype(jnp.int32)
    in_object = head.stack & 1 == 1
    push = (goal == PUSH_OBJECT) | (goal == PUSH_ARRAY)
    pop = (goal == POP_OBJECT) | (goal == POP_ARRAY)
    quote, close = goal == QUOTE, goal == CLOSE
    refused = pop & ((head.depth == 0) | (in_object != (goal == POP_OBJECT)))
    refused |= (goal == COMMA) & (head.depth == 0)
    refused |= push & (head.depth == MOST_DEPTH)
    # Strings: the character that ends here, if one does.
    code = jnp.where(head.state == ESCAPE, 0, head.code)
    code = jnp.where(head.state == HIGH_ESCAPE, 0, code * 16 + jnp.asarray(HEX_DIGIT)[byte])
    ends, paired = goal == HEX_END, head.high > 0
    first = ends & ~paired & (code >> 10 == 0xD800 >> 10)
    second = code >> 10 == 0xDC00 >> 10
    refused |= ends & ~first & (paired != second)
    point = jnp.where(paired, 0x10000 + ((head.high & 0x3FF) << 10) + (code & 0x3FF), code)
    escape = (head.state == ESCAPE) & (goal == STRING)
    point = jnp.where(escape, jnp.asarray(ESCAPED)[byte], point)
    escaped = escape | (ends & ~first)
    verbatim = (head.state == STRING) & (goal == STRING)
    letter = jnp.where(escaped, point, byte)
    node = jnp.where(letter < 128, trie[head.node, jnp.minimum(letter, 127)], OTHER)
    node = jnp.where(escaped | verbatim, node.astype(jnp.int32), jnp.where(quote, 0, head.node))
    is_key = jnp.where(quote, (head.state == OPENED) | (head.state == KEY), head.is_key)

    state = jnp.where(goal == PUSH_OBJECT, OPENED, jnp.where(goal == PUSH_ARRAY, FIRST, goal))
    state = jnp.where(pop, AFTER, state)
    state = jnp.where(goal == COMMA, jnp.where(in_object, KEY, VALUE), state)
    state = jnp.where(quote | (ends & ~first), STRING, jnp.where(first, HIGH, state))
    state = jnp.where(close, jnp.where(is_key, COLON, AFTER), state)
    opened = head.stack << 1 | (goal == PUSH_OBJECT).astype(jnp.uint32)
    named = close & is_key
    after = Head(
        state=jnp.where(refused, DEAD, state),
        depth=head.depth + push - pop,
        stack=jnp.where(push, opened, jnp.where(pop, head.stack >> 1, head.stack)),
        is_key=is_key,
        node=node,
        code=code,
        high=jnp.where(first, code, jnp.where(ends, 0, head.high)),
        outer=jnp.where(named & (head.depth == 1), node, head.outer),
        inner=jnp.where(named & (head.depth == 2), node, head.inner),
    )
    numeric = (state >= MINUS) & (state <= POWER)
    waits = (head.state == VALUE) | (head.state == FIRST)
    return after, Seen(
        depth=head.depth,
        complete=(after.depth == 0) & jnp.asarray(IS_COMPLETE)[after.state],
        begins=waits & (goal != head.state) & (goal != POP_ARRAY),
        closes=close & ~is_key,
        outer=head.outer,
        inner=head.inner,
        node=node,
        plain=(verbatim & ~is_key) | numeric,
        point=jnp.where(escaped & ~is_key, point, -1),
    )

"""Text and tokens inside jit."""

from jaxrl.text.numbers import from_int, integer, integers
from jaxrl.text.render import board, listed, render
from jaxrl.text.text import (
    Text,
    concat,
    equal,
    find,
    find_last,
    literal,
    resize,
    select,
    substring,
    to_str,
    where,
)
from jaxrl.text.tokens import ByteTokenizer, PlainChat, Tokens

__all__ = [
    "ByteTokenizer",
    "PlainChat",
    "Text",
    "Tokens",
    "board",
    "concat",
    "equal",
    "find",
    "find_last",
    "from_int",
    "integer",
    "integers",
    "listed",
    "literal",
    "render",
    "resize",
    "select",
    "substring",
    "to_str",
    "where",
]

"""Text and tokens inside jit."""

from jaxrl.text.text import Text, concat, equal, from_int, literal, render, select, to_str, where
from jaxrl.text.tokens import ByteTokenizer, PlainChat, Tokens

__all__ = [
    "ByteTokenizer",
    "PlainChat",
    "Text",
    "Tokens",
    "concat",
    "equal",
    "from_int",
    "literal",
    "render",
    "select",
    "to_str",
    "where",
]

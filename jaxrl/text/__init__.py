"""Text and tokens inside jit."""

from jaxrl.text.bpe import BpeTokenizer
from jaxrl.text.characters import strip
from jaxrl.text.chat import Chat, make_chat
from jaxrl.text.formats import FORMATS
from jaxrl.text.numbers import from_int, integer, integers
from jaxrl.text.render import board, listed, render
from jaxrl.text.template import Template
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
from jaxrl.text.tokens import ByteTokenizer, Tokenizer, Tokens

__all__ = [
    "FORMATS",
    "BpeTokenizer",
    "ByteTokenizer",
    "Chat",
    "Template",
    "Text",
    "Tokenizer",
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
    "make_chat",
    "render",
    "resize",
    "select",
    "strip",
    "substring",
    "to_str",
    "where",
]

"""Conversations as tokens, in the words of a form or of a model's template; as if encoded whole.

A text is encoded together with the plain words around it up to the next special tokens, which no
merge can cross; so the pieces of a conversation are the tokens of the whole one. Special tokens
come from these words alone: in what is said, by whomever, their names are plain text.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.struct
import jax

from jaxrl.text.characters import strip
from jaxrl.text.formats import FORMATS, Format, Opening, Words, special_tokens, words_of
from jaxrl.text.text import Text, concat, literal
from jaxrl.text.tokens import Tokenizer, Tokens, constant, join
from jaxrl.text.tool_forms import Schemas


class Piece(flax.struct.PyTreeNode):
    """Fixed tokens around a text that is encoded with a few fixed words before and after it."""

    before: tuple[int, ...] = flax.struct.field(pytree_node=False)
    prefix: str = flax.struct.field(pytree_node=False)
    suffix: str = flax.struct.field(pytree_node=False)
    after: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @property
    def overhead(self) -> int:
        """Most tokens that it adds to those of the text."""
        return len(self.before) + self.spoken_bytes + len(self.after)

    @property
    def spoken_bytes(self) -> int:
        """Of the words that are encoded with the text."""
        return len((self.prefix + self.suffix).encode())


class Chat(flax.struct.PyTreeNode):
    """A form of conversation for one tokenizer; `make_chat` builds it.

    `words.tools` says how calls of tools are written, where it tells of some.
    """

    tokenizer: Any  # a Tokenizer
    first_piece: Piece
    next_piece: Piece
    end_of_turn: int = flax.struct.field(pytree_node=False)
    words: Words = flax.struct.field(pytree_node=False)

    @property
    def overhead(self) -> int:
        """Most tokens that `first` or `next` add to those of the text."""
        return max(self.first_piece.overhead, self.next_piece.overhead)

    def first(self, text: Text, capacity: int) -> Tokens:
        """What precedes the first response."""
        return self._say(self.first_piece, text, capacity)

    def next(self, text: Text, capacity: int) -> Tokens:
        """What follows a response's end of turn, up to the next response."""
        return self._say(self.next_piece, text, capacity)

    def response(self, text: Text, capacity: int) -> Tokens:
        """An assistant's turn, its end of turn included."""
        text = strip(text) if self.words.strips_reply else text
        tokens = self.tokenizer.encode(text, text.capacity)
        return join([tokens, constant([self.end_of_turn])], capacity)

    def _say(self, piece: Piece, text: Text, capacity: int) -> Tokens:
        size = text.capacity + piece.spoken_bytes
        text = strip(text) if self.words.strips else text
        parts = [part for part in (piece.prefix, text, piece.suffix) if part]
        tokens = self.tokenizer.encode(concat(parts, size), size)
        return join([constant(piece.before), tokens, constant(piece.after)], capacity)


def make_chat(
    tokenizer: Tokenizer,
    name: str = "",
    system: str = "",
    words: Words | None = None,
    tools: Schemas = (),
) -> Chat:
    """A form of conversation, by default the one whose special tokens the tokenizer has.

    `words`, those of a model's template, replace the form's, a system message and what is told of
    tools. Raises ValueError for an unknown form, or one whose tokens the tokenizer does not have.
    """
    if words is None:
        form = matching(tokenizer, name)
        missing = [special for special in special_tokens(form) if special not in tokenizer.special]
        if missing:
            raise ValueError(
                f"chat={form.name} needs the special token {missing[0]}, which the tokenizer lacks;"
                f" try another of {', '.join(FORMATS)}."
            )
        check_told(tokenizer, tools)
        words = words_of(form, system or None, tools)
    if words.end not in tokenizer.special:
        raise ValueError(f"the tokenizer lacks the special token {words.end}, the end of a turn.")
    encode = partial(_encode, tokenizer)
    first = make_piece(tokenizer, words.opening, words.reply, encode)
    between = (words.following.removeprefix(words.end),)
    following = make_piece(tokenizer, between, words.reply, encode)
    return Chat(tokenizer, first, following, tokenizer.special[words.end], words)


def check_told(tokenizer: Tokenizer, tools: Schemas) -> None:
    """ValueError where what is told of tools would be read as a special token."""
    for name, index in tokenizer.special.items():
        if index in tokenizer.control and any(name in tool for tool in tools):
            raise ValueError(f"what is told of tools has the special token {name}; leave it out.")


def matching(tokenizer: Tokenizer, name: str) -> Format:
    """The form of this name; without one the first whose tokens the tokenizer has."""
    if name in FORMATS:
        return FORMATS[name]
    if name:
        raise ValueError(f"chat={name} is not known; try one of {', '.join(FORMATS)}.")
    for form in FORMATS.values():
        if all(special in tokenizer.special for special in special_tokens(form)):
            return form
    raise ValueError(
        f"the tokenizer has the special tokens of none of {', '.join(FORMATS)}; it has "
        f"{', '.join(list(tokenizer.special)[:6])}."
    )


def make_piece(
    tokenizer: Tokenizer, before: Opening, after: str, encode: Callable[[str], Sequence[int]]
) -> Piece:
    """What stands around a text that is said between these words; `encode` reads plain ones."""
    ahead, behind = spelled(tokenizer, before), split_special(tokenizer, after)
    prefix = ahead.pop() if ahead and isinstance(ahead[-1], str) else ""
    suffix = behind.pop(0) if behind and isinstance(behind[0], str) else ""
    assert isinstance(prefix, str) and isinstance(suffix, str)
    if len(prefix) > LONG:  # what is told of tools: encoded once, but for its end
        raw, at = prefix.encode(), tokenizer.seam(prefix)
        ahead, prefix = [*ahead, raw[:at].decode()], raw[at:].decode()
    ids = [
        tuple(x for part in parts for x in ([part] if isinstance(part, int) else encode(part)))
        for parts in (ahead, behind)
    ]
    return Piece(ids[0], prefix, suffix, ids[1])


def spelled(tokenizer: Tokenizer, opening: Opening) -> list[str | int]:
    """Special tokens of the form's words by id, and between them plain words and what is said."""
    parts: list[str | int] = []
    for i, words in enumerate(opening):
        for part in split_special(tokenizer, words) if i % 2 == 0 else [words]:
            if isinstance(part, str) and parts and isinstance(parts[-1], str):
                parts[-1] += part
            elif part != "":
                parts.append(part)
    return parts


def split_special(tokenizer: Tokenizer, words: str) -> list[str | int]:
    """Special tokens by id, and the plain words between them.

    Other added tokens, as `<think>` or Gemma's newlines, are found where the words are encoded.
    """
    special = {name: x for name, x in tokenizer.special.items() if x in tokenizer.control}
    names = sorted(special, key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, names)) + ")", words)
    return [special.get(piece, piece) for piece in pieces if piece]


LONG = 128  # characters before a text that are worth to be cut
WORDS = 64


@jax.jit
def _plain(tokenizer: Any, text: Text) -> Tokens:
    return tokenizer.encode(text, text.capacity)


def _encode(tokenizer: Tokenizer, words: str) -> list[int]:
    if reason := tokenizer.unread(words):
        raise ValueError(f"the chat's words {short(words)} cannot be read: {reason}.")
    room = max(WORDS, 1 << (len(words.encode()) - 1).bit_length())  # few sizes, few compilations
    tokens = _plain(tokenizer, literal(words, room))
    return tokens.ids[: int(tokens.length)].tolist()


def short(value: Any, most: int = 300) -> str:
    """A text in quotes, or any other value, cut where it is long."""
    text = repr(value[: most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most else text[: most - 3] + "..."

"""Conversations as tokens: ChatML, Llama-3, Gemma and plain, equal to encoding them whole.

A text is encoded together with the plain words around it up to the next special tokens, which no
merge can cross; so the pieces of a conversation are the tokens of the whole one. Special tokens
come from the words of the form alone: in what is said, by whomever, their names are plain text.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import flax.struct
import jax

from jaxrl.text.formats import FORMATS, Format, Opening, opening_of, special_tokens
from jaxrl.text.jinja import render
from jaxrl.text.text import Text, concat, literal, strip
from jaxrl.text.tokens import Tokenizer, Tokens, constant, join


class Piece(flax.struct.PyTreeNode):
    """Fixed tokens around a text that is encoded with a few fixed words before and after it."""

    before: tuple[int, ...] = flax.struct.field(pytree_node=False)
    prefix: str = flax.struct.field(pytree_node=False)
    suffix: str = flax.struct.field(pytree_node=False)
    after: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @property
    def overhead(self) -> int:
        """Most tokens that it adds to those of the text."""
        return len(self.before) + len(self.prefix) + len(self.suffix) + len(self.after)


class Chat(flax.struct.PyTreeNode):
    """A form of conversation for one tokenizer; `make_chat` builds it."""

    tokenizer: Any  # a Tokenizer
    first_piece: Piece
    next_piece: Piece
    end_of_turn: int = flax.struct.field(pytree_node=False)
    strips: bool = flax.struct.field(pytree_node=False)

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
        tokens = self.tokenizer.encode(text, text.capacity)
        return join([tokens, constant([self.end_of_turn])], capacity)

    def _say(self, piece: Piece, text: Text, capacity: int) -> Tokens:
        size = len(piece.prefix) + text.capacity + len(piece.suffix)
        text = strip(text) if self.strips else text
        parts = [part for part in (piece.prefix, text, piece.suffix) if part]
        tokens = self.tokenizer.encode(concat(parts, size), size)
        return join([constant(piece.before), tokens, constant(piece.after)], capacity)


def make_chat(
    tokenizer: Tokenizer, name: str = "", system: str = "", opening: Opening | str | None = None
) -> Chat:
    """A form of conversation, by default the one whose special tokens the tokenizer has.

    `opening` replaces everything before the first user's turn, a system message among it: words of
    the form and the message in turn. Raises ValueError for an unknown form, or one whose tokens the
    tokenizer does not have.
    """
    form = matching(tokenizer, name)
    missing = [special for special in special_tokens(form) if special not in tokenizer.special]
    if missing:
        raise ValueError(
            f"chat={form.name} needs the special token {missing[0]}, which the tokenizer lacks; "
            f"try another of {', '.join(FORMATS)}."
        )
    if opening is None:
        opening = opening_of(form, system or None)
    opening = (opening,) if isinstance(opening, str) else opening
    first = _piece(tokenizer, (*opening, "", form.user), form.reply)
    following = _piece(tokenizer, (form.after_end + form.user,), form.reply)
    return Chat(tokenizer, first, following, tokenizer.special[form.end], form.strips)


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


def _piece(tokenizer: Tokenizer, before: Opening, after: str) -> Piece:
    ahead, behind = spelled(tokenizer, before), split_special(tokenizer, after)
    prefix = ahead.pop() if ahead and isinstance(ahead[-1], str) else ""
    suffix = behind.pop(0) if behind and isinstance(behind[0], str) else ""
    assert isinstance(prefix, str) and isinstance(suffix, str)
    return Piece(_encode(tokenizer, ahead), prefix, suffix, _encode(tokenizer, behind))


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
    """Special tokens by id, and the plain words between them."""
    names = sorted(tokenizer.special, key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, names)) + ")", words)
    return [tokenizer.special.get(piece, piece) for piece in pieces if piece]


WORDS = 64


@jax.jit
def _plain(tokenizer: Any, text: Text) -> Tokens:
    return tokenizer.encode(text, text.capacity)


def _encode(tokenizer: Tokenizer, parts: Sequence[str | int]) -> tuple[int, ...]:
    ids: list[int] = []
    for part in parts:
        if isinstance(part, int):
            ids.append(part)
        else:
            if reason := tokenizer.unread(part):
                raise ValueError(f"the chat's words {short(part)} cannot be read: {reason}.")
            room = -(-len(part.encode()) // WORDS) * WORDS  # few sizes, so few compilations
            tokens = _plain(tokenizer, literal(part, room))
            ids += tokens.ids[: int(tokens.length)].tolist()
    return tuple(ids)


SPOKEN = (
    ("user", " Guess 1, or 2.\n"),
    ("assistant", "It is 2"),
    ("user", "Too low: <5 & 'low'."),
)
# Two messages that show what a template does with a text: which white space it takes away, say.
SHOWN = (" \n\tSay <A> & 'b'.\t\n ", '\n \tsay "c".\t \n')


def opening_by(
    template: str,
    tokenizer: Tokenizer,
    name: str,
    system: str | None,
    tokens: Mapping[str, str],
    date: str = "",
) -> Opening:
    """What a model's own chat template writes before the first user's turn.

    `tokens` are the names the template uses, such as bos_token; `date` is its "now". Raises
    ValueError where a conversation written by the template is not the one of the form, or where it
    does more to a system message than to take the white space around it away. Needs `hf`.
    """
    form, named = matching(tokenizer, name), tuple(tokens.items())
    if system is None:
        (theirs,) = render(template, [SPOKEN], tokens, date)
        return (_before_spoken(form, theirs),)
    words, strips = _around_system(template, form, named, date)
    said = system.strip() if strips else system
    return tuple(part for word in words for part in (word, said))[:-1]


@cache
def _around_system(
    template: str, form: Format, tokens: tuple[tuple[str, str], ...], date: str
) -> tuple[tuple[str, ...], bool]:
    """(words before, between and after a system message's text, white space around it goes)."""
    conversations = [[("system", text), *SPOKEN] for text in SHOWN]
    written = render(template, conversations, dict(tokens), date)
    openings = [_before_spoken(form, theirs) for theirs in written]
    for strips in (False, True):
        places = [text.strip() if strips else text for text in SHOWN]
        first, other = (x.split(place) for x, place in zip(openings, places, strict=True))
        if first == other and len(first) > 1:
            return tuple(first), strips
    raise ValueError(
        "the chat template leaves system messages out or rewrites them; leave yours out, or name a "
        f"form with --chat, one of {', '.join(FORMATS)}."
    )


def _before_spoken(form: Format, theirs: str) -> str:
    """The part of a conversation before the first user's turn; ValueError for another form."""
    ours = "".join(
        form.user + (text.strip() if form.strips else text) + form.reply
        if role == "user"
        else text + form.end + form.after_end
        for role, text in SPOKEN
    )
    if not theirs.endswith(ours):
        raise ValueError(
            f"chat={form.name} is not what the chat template writes: {short(ours)} against "
            f"{short(theirs[-len(ours) :])}; name a form with --chat, one of {', '.join(FORMATS)}, "
            "to go on without the template."
        )
    return theirs.removesuffix(ours)


def short(value: Any, most: int = 300) -> str:
    """A text in quotes, or any other value, cut where it is long."""
    text = repr(value[: most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most else text[: most - 3] + "..."

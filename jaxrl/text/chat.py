"""Conversations as tokens: ChatML, Llama-3, Gemma and plain, equal to encoding them whole.

A text is encoded together with the plain words around it up to the next special tokens, which no
merge can cross; so the pieces of a conversation are the tokens of the whole one.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax

from jaxrl.text.text import Text, concat, literal, strip
from jaxrl.text.tokens import Tokenizer, Tokens, constant, join


@dataclass(frozen=True)
class Format:
    """The words around what is said. `end` is the token that the assistant ends its turn with."""

    name: str
    opening: str  # before everything
    system: str  # a system message, {} its text; "" where there is none
    user: str  # before the user's text
    reply: str  # after it, up to the response
    end: str
    after_end: str  # up to the next `user`
    strips: bool = False  # white space around texts goes


FORMATS = {
    form.name: form
    for form in (
        Format("plain", "", "", "<|user|>", "<|assistant|>", "<|end|>", ""),
        Format(
            "chatml",
            opening="",
            system="<|im_start|>system\n{}<|im_end|>\n",
            user="<|im_start|>user\n",
            reply="<|im_end|>\n<|im_start|>assistant\n",
            end="<|im_end|>",
            after_end="\n",
        ),
        Format(
            "llama3",
            opening="<|begin_of_text|>",
            system="<|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>",
            user="<|start_header_id|>user<|end_header_id|>\n\n",
            reply="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            end="<|eot_id|>",
            after_end="",
            strips=True,
        ),
        Format(
            "gemma",
            opening="<bos>",
            system="",
            user="<start_of_turn>user\n",
            reply="<end_of_turn>\n<start_of_turn>model\n",
            end="<end_of_turn>",
            after_end="\n",
            strips=True,
        ),
    )
}


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
    tokenizer: Tokenizer, name: str = "", system: str = "", opening: str | None = None
) -> Chat:
    """A form of conversation, by default the one whose special tokens the tokenizer has.

    `opening` replaces everything before the first user's turn, a system message among it. Raises
    ValueError for an unknown form, or one whose tokens the tokenizer does not have.
    """
    form = matching(tokenizer, name)
    missing = [special for special in special_tokens(form) if special not in tokenizer.special]
    if missing:
        raise ValueError(
            f"chat={form.name} needs the special token {missing[0]}, which the tokenizer lacks; "
            f"try another of {', '.join(FORMATS)}."
        )
    if opening is None:
        opening = opening_of(form, system)
    first = _piece(tokenizer, opening + form.user, form.reply)
    following = _piece(tokenizer, form.after_end + form.user, form.reply)
    return Chat(tokenizer, first, following, tokenizer.special[form.end], form.strips)


def opening_of(form: Format, system: str) -> str:
    """What precedes the first user's turn; ValueError for a form without system messages."""
    if system and not form.system:
        raise ValueError(f"chat={form.name} has no system messages; leave system={system!r} out.")
    text = system.strip() if form.strips else system
    return form.opening + (form.system.format(text) if system else "")


def special_tokens(form: Format) -> list[str]:
    """The names of a form's special tokens, each once."""
    whole = form.opening + form.system + form.user + form.reply + form.end
    return list(dict.fromkeys(re.findall(r"<[^<>\s]+>", whole)))


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


def _piece(tokenizer: Tokenizer, before: str, after: str) -> Piece:
    ahead, behind = split_special(tokenizer, before), split_special(tokenizer, after)
    prefix = ahead.pop() if ahead and isinstance(ahead[-1], str) else ""
    suffix = behind.pop(0) if behind and isinstance(behind[0], str) else ""
    assert isinstance(prefix, str) and isinstance(suffix, str)
    return Piece(_encode(tokenizer, ahead), prefix, suffix, _encode(tokenizer, behind))


def split_special(tokenizer: Tokenizer, words: str) -> list[str | int]:
    """Special tokens by id, and the plain words between them."""
    names = sorted(tokenizer.special, key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, names)) + ")", words)
    return [tokenizer.special.get(piece, piece) for piece in pieces if piece]


def _encode(tokenizer: Tokenizer, parts: Sequence[str | int]) -> tuple[int, ...]:
    ids: list[int] = []
    for part in parts:
        if isinstance(part, int):
            ids.append(part)
        else:
            text = literal(part)
            tokens = jax.jit(tokenizer.encode, static_argnums=1)(text, text.capacity)
            if bool(tokens.cut):
                raise ValueError(
                    f"the chat's words {part!r} are not ASCII, which is not supported."
                )
            ids += tokens.ids[: int(tokens.length)].tolist()
    return tuple(ids)


def check_template(
    tokenizer: Tokenizer, name: str, system: str, template: str, tokens: dict[str, str]
) -> str:
    """What a model's own chat template writes before the first user's turn.

    `tokens` are the names the template uses, such as bos_token. Raises ValueError where a
    conversation written by the template is not the one of the form. Needs the extra `hf`.
    """
    form = matching(tokenizer, name)
    texts = [
        ("user", "Guess 1, or 2."),
        ("assistant", "It is 2"),
        ("user", "Too low."),
    ]
    first = [("system", system)] if system else []
    theirs = render(template, first + texts, tokens)
    ours = "".join(
        form.user + text + form.reply if role == "user" else text + form.end + form.after_end
        for role, text in texts
    )
    if not theirs.endswith(ours):
        raise ValueError(
            f"chat={form.name} is not what the model's chat template writes: {ours!r} against "
            f"{theirs!r}; choose another of {', '.join(FORMATS)}."
        )
    return theirs.removesuffix(ours)


def template_of(form: Format, opening: str) -> str:
    """A Jinja chat template that writes conversations of this form, for other libraries.

    `opening` stands before the first user's turn where a conversation has no system message.
    """
    before, _, after = form.system.partition("{}")
    trim = " | trim" if form.strips else ""
    content = f"message['content']{trim}"
    start = f"{{{{- {json.dumps(opening)} -}}}}"
    if form.system:
        own = f"(messages[0]['content']{trim})"
        start = f"""{{%- if messages[0]['role'] == 'system' -%}}
{{{{- {json.dumps(form.opening + before)} + {own} + {json.dumps(after)} -}}}}
{{%- else -%}}
{start}
{{%- endif -%}}"""
    return f"""{start}
{{%- for message in messages -%}}
{{%- if message['role'] == 'user' -%}}
{{{{- {json.dumps(form.user)} + ({content}) + {json.dumps(form.reply)} -}}}}
{{%- elif message['role'] == 'assistant' -%}}
{{{{- ({content}) + {json.dumps(form.end + form.after_end)} -}}}}
{{%- endif -%}}
{{%- endfor -%}}"""


def render(template: str, texts: Sequence[tuple[str, str]], tokens: dict[str, str]) -> str:
    """A conversation as a Jinja template writes it, up to the next response."""
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise ImportError("chat templates need jinja2: pip install 'jaxrl[hf]'") from None

    def refuse(message: str):
        raise ValueError(f"the model's chat template refuses a conversation: {message}")

    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    sandbox.globals["raise_exception"] = refuse
    messages = [{"role": role, "content": text} for role, text in texts]
    return sandbox.from_string(template).render(
        messages=messages, add_generation_prompt=True, tools=None, **tokens
    )

"""The forms of conversation that are known: ChatML, Llama-3, Gemma and plain."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxrl.text.tool_forms import IPYTHON, Schemas, bare, in_tags


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
    tools: str = ""  # how calls are written, in `tool_forms.FORMS`; "": it has none
    before_result: str | None = None  # after `end`, before what calls gave; None: as for a user


FORMATS = {
    form.name: form
    for form in (
        Format("plain", "", "", "<|user|>", "<|assistant|>", "<|end|>", "", tools="tags"),
        Format(
            "chatml",
            opening="",
            system="<|im_start|>system\n{}<|im_end|>\n",
            user="<|im_start|>user\n",
            reply="<|im_end|>\n<|im_start|>assistant\n",
            end="<|im_end|>",
            after_end="\n",
            tools="tags",
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
            tools="bare",
            before_result="<|start_header_id|>ipython<|end_header_id|>\n\n",
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

OTHERS = ", ".join(name for name, form in FORMATS.items() if form.tools)
WITHOUT_TOOLS = (
    f"try --chat with one of {OTHERS}, or leave tools out: --env-args prompt=terse, or no --tools"
)


def special_tokens(form: Format) -> list[str]:
    """The names of a form's special tokens, each once."""
    whole = form.opening + form.system + form.user + form.reply + form.end
    return list(dict.fromkeys(re.findall(r"<[^<>\s]+>", whole)))


CONTROL = frozenset(name for form in FORMATS.values() for name in special_tokens(form))

Opening = tuple[str, ...]  # words, what a system message says, words again, ...


@dataclass(frozen=True)
class Words:
    """What stands around the texts of a conversation, special tokens by their names."""

    opening: Opening  # before the first user's text
    reply: str  # after a user's text, up to the response
    following: str  # after a response's text, up to the next user's; it begins with `end`
    end: str  # the token that a response ends with
    strips: bool = False  # white space around a user's text goes
    strips_reply: bool = False  # and around a response
    begun: str = ""  # the end of `reply` that a template leaves out of earlier turns
    drops: bool = False  # a template leaves thoughts out of earlier turns, where they stay here
    tools: str = ""  # it tells of tools, whose calls are in this one of `tool_forms.FORMS`
    results: str = ""  # then: after a response's text, up to what its calls gave

    def __post_init__(self):
        if len(self.opening) % 2 == 0:
            raise ValueError(f"opening={self.opening} must hold an odd number of texts.")

    def conversation(self, texts: Sequence[str]) -> str:
        """What user and assistant say in turn, up to the next response, as a template has it."""
        parts = list(self.opening)
        for i, text in enumerate(texts):
            if i % 2:
                parts += [text.strip() if self.strips_reply else text, self.following]
            else:
                said = text.strip() if self.strips else text
                is_last = i == len(texts) - 1
                parts += [said, self.reply if is_last else self.reply.removesuffix(self.begun)]
        return "".join(parts)


def words_of(form: Format, system: str | None, tools: Schemas = ()) -> Words:
    """A form's words after this system message, with tools; ValueError where it has none of these.

    ChatML tells of tools in the system message, the others before the first question.
    """
    if tools and not form.tools:
        raise ValueError(f"chat={form.name} has no tools; {WITHOUT_TOOLS}.")
    if system is not None and not form.system:
        raise ValueError(
            f"chat={form.name} has no system messages; leave system={system[:40]!r} out."
        )
    said = system.strip() if system is not None and form.strips else system or ""
    before, after = form.system.split("{}") if form.system else ("", "")
    told = ""  # before the first question
    if tools and form.tools == "bare":
        before, told = before + IPYTHON, bare(tools)
    elif tools and form.system:
        after = "\n\n" * bool(said) + in_tags(tools) + after
    elif tools:
        told = f"{in_tags(tools)}\n\n"
    opening: Opening = (form.opening,)
    if system is not None:
        opening = (form.opening + before, said, after)
    elif tools and form.system:
        opening = (form.opening + before + after,)
    words = words_after(form, opening)
    if not tools:
        return words
    opening = (*words.opening[:-1], words.opening[-1] + told)
    follows = form.after_end + form.user if form.before_result is None else form.before_result
    return replace(words, opening=opening, tools=form.tools, results=form.end + follows)


def words_after(form: Format, opening: Opening) -> Words:
    """A form's words where these stand before the first user's turn."""
    return Words(
        opening=(*opening[:-1], opening[-1] + form.user),
        reply=form.reply,
        following=form.end + form.after_end + form.user,
        end=form.end,
        strips=form.strips,
        strips_reply=form.strips,
    )


def template_of(words: Words, told: Words | None = None) -> str:
    """A Jinja chat template that writes conversations in these words, for other libraries.

    `told` are those after a system message with white space around it, for conversations with one
    of their own; None where there can be none.
    """
    user = f"message['content']{' | trim' * words.strips}"
    reply = f"message['content']{' | trim' * words.strips_reply}"
    system = "raise_exception('this template has no system messages')"
    if told is not None:
        said = told.opening[1]
        content = f"(messages[0]['content']{' | trim' * (said == said.strip())})"
        system = " + ".join(content if i % 2 else _quoted(x) for i, x in enumerate(told.opening))
    following = words.following.removeprefix(words.end)
    return f"""{{%- if messages[0]['role'] == 'system' -%}}
{{{{- {system} -}}}}
{{%- set messages = messages[1:] -%}}
{{%- else -%}}
{{{{- {_quoted("".join(words.opening))} -}}}}
{{%- endif -%}}
{{%- for message in messages -%}}
{{%- if message['role'] == 'user' -%}}
{{{{- ('' if loop.first else {_quoted(following)}) + ({user}) -}}}}
{{{{- {_quoted(words.reply.removesuffix(words.begun))} -}}}}
{{{{- {_quoted(words.begun)} if loop.last else '' -}}}}
{{%- elif message['role'] == 'assistant' -%}}
{{{{- ({reply}) + {_quoted(words.end)} -}}}}
{{%- endif -%}}
{{%- endfor -%}}"""


def _quoted(text: str) -> str:
    """A text as Jinja reads it back, to which the halves of a surrogate pair are two characters."""
    return json.dumps(text, ensure_ascii=False)

"""The forms of conversation that are known: ChatML, Llama-3, Gemma and plain."""

import json
import re
from dataclasses import dataclass


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


def special_tokens(form: Format) -> list[str]:
    """The names of a form's special tokens, each once."""
    whole = form.opening + form.system + form.user + form.reply + form.end
    return list(dict.fromkeys(re.findall(r"<[^<>\s]+>", whole)))


CONTROL = frozenset(name for form in FORMATS.values() for name in special_tokens(form))

Opening = tuple[str, ...]  # words of the form, what a system message says, words again, ...


def opening_of(form: Format, system: str | None) -> Opening:
    """What precedes the first user's turn; ValueError for a form without system messages."""
    if system is None:
        return (form.opening,)
    if not form.system:
        raise ValueError(
            f"chat={form.name} has no system messages; leave system={system[:40]!r} out."
        )
    before, after = form.system.split("{}")
    return (form.opening + before, system.strip() if form.strips else system, after)


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

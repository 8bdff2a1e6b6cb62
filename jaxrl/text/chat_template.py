"""The words of a model's own chat template, found in what it writes around marked texts."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from jaxrl.text.chat import check_told, short, split_special
from jaxrl.text.formats import FORMATS, Words
from jaxrl.text.jinja import Message, render
from jaxrl.text.tokens import Tokenizer
from jaxrl.text.tool_forms import Schemas
from jaxrl.text.tool_template import tool_words

# The words are found around MARKS, and must be those around the texts of PROBES: white space, empty
# texts and characters of other formats show what else a template does with what is said.
MARKS = (
    " \n\tSay <A> & 'b'.\t\n ",
    '\n \tsay "c".\t \n',
    "\t\n Guess 1, or 2.\n \t",
    " \t\nIt is {{ 2 }}\n\t ",
    "\n\t Too low: [5 &amp; 'low'].\t \n",
)
PROBES = (("  Is it 2?\n",), ("x\n\n", " y ", ""), ("", "", "1 < 2", "a\n", " "))
THOUGHT = ("Why?", "<think>\nHm.\n</think>\n\nSo.", "Why so?")
SYSTEMS = (" \n\tBe <brief> & 'kind'.\t\n ", '\n \tsay "d".\t \n', "s ", "\nt", "u")
OTHERWISE = f"name a form with --chat, one of {', '.join(FORMATS)}, to go on without the template"
SWITCHES = ("enable_thinking", "thinking")  # what templates call it


def template_words(
    template: str,
    tokenizer: Tokenizer,
    system: str | None,
    names: Mapping[str, str],
    date: str = "",
    thinking: str = "",
    tools: Schemas = (),
) -> Words:
    """The words of a model's chat template around what is said, after this system message.

    `names` are those of tokens that it uses, such as bos_token; `date` is its "now"; `thinking`,
    "on" or "off", is whether a response begins with thoughts; of `tools` it tells. ValueError where
    the template does more to a text than to take the white space around it away, does not write
    the same words in every turn, or knows no tools. Needs `hf`.
    """
    check_told(tokenizer, tools)
    values: dict[str, Any] = dict(names)
    if thinking:
        if not any(re.search(rf"\b{name}\b", template) for name in SWITCHES):
            raise ValueError(
                f"thinking={thinking} means nothing to this chat template; leave --thinking out."
            )
        values |= dict.fromkeys(SWITCHES, thinking == "on")
    has_system = system is not None
    words, around, strips = _found(template, tuple(values.items()), date, has_system, tools)
    if system is not None:
        said = system.strip() if strips else system
        words = replace(words, opening=tuple(x for word in around for x in (word, said))[:-1])
    first = next(iter(split_special(tokenizer, words.following)), "")
    if first not in tokenizer.control:
        raise ValueError(
            f"the chat template writes {short(words.following, 60)} after a response, where a "
            f"special token of the tokenizer has to stand first; {OTHERWISE}."
        )
    end = next(name for name, index in tokenizer.special.items() if index == first)
    if tools and not words.results.startswith(end):
        raise ValueError(
            f"the chat template ends a call with {short(words.results, 60)}, a response with {end}."
        )
    return replace(words, end=end)


@cache
def _found(
    template: str,
    values: tuple[tuple[str, Any], ...],
    date: str,
    has_system: bool,
    tools: Schemas,
) -> tuple[Words, tuple[str, ...], bool]:
    """(words, of the opening those around a system message, white space around that goes)."""
    talks = [MARKS, *PROBES, THOUGHT]
    systems = SYSTEMS if has_system else ("",) * len(talks)
    start = [[("system", text)] if has_system else [] for text in systems]
    spoken = [
        [("assistant" if i % 2 else "user", text) for i, text in enumerate(talk)] for talk in talks
    ]
    whole = [[*a, *b] for a, b in zip(start, spoken, strict=True)]
    written = render(template, whole, dict(values), date, tools)
    words = _around(written[0])
    around, strips = words.opening, False
    if has_system:
        around, strips = _around_system(words.opening[0], systems[0])
    for talk, system, theirs in zip(talks, systems, written, strict=True):
        system = system.strip() if strips else system
        ours = replace(words, opening=(system.join(around),)).conversation(talk)
        if talk is THOUGHT and "Hm." not in theirs:
            words = replace(words, drops=True)
        elif theirs != ours:
            raise ValueError(_difference(theirs, ours))
    if tools:

        def write(talks: list[list[Message]], with_tools: bool) -> list[str]:
            return render(template, talks, dict(values), date, tools if with_tools else ())

        words = tool_words(words, list(start[0]), write)
    return words, around, strips


def _around(written: str) -> Words:
    """The words around MARKS, each found once."""
    parts, bare, rest = [], [], written
    for text in MARKS:
        exact = text in rest
        before, found, rest = rest.partition(text if exact else text.strip())
        if not found:
            raise ValueError(
                f"the chat template leaves {short(text)} out or rewrites it; {OTHERWISE}."
            )
        parts.append(before)
        bare.append(not exact)
    opening, between, following = parts[:3]
    if not rest.startswith(between):
        between = rest  # a difference, which is told where the whole is compared
    return Words(
        opening=(opening,),
        reply=rest,
        following=following,
        end="",
        strips=bare[0],
        strips_reply=bare[1],
        begun=rest.removeprefix(between),
    )


def _around_system(opening: str, system: str) -> tuple[tuple[str, ...], bool]:
    """The words around a system message, and whether it has lost the white space around it."""
    strips = system not in opening
    around = tuple(opening.split(system.strip() if strips else system))
    if len(around) < 2:
        raise ValueError(
            "the chat template leaves system messages out or rewrites them; leave yours out, or "
            f"{OTHERWISE}."
        )
    return around, strips


def _difference(theirs: str, ours: str) -> str:
    """The first place where a template does not write what its words elsewhere ask for."""
    same = [a == b for a, b in zip(theirs, ours, strict=False)]
    at = [*same, False].index(False)
    before, there, here = theirs[max(at - 30, 0) : at], theirs[at : at + 40], ours[at : at + 40]
    return (
        f"the chat template does not write the same words around every text: after {before!r} "
        f"comes {there!r}, not {here!r}; {OTHERWISE}."
    )

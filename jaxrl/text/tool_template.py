"""How a model's own chat template tells of tools, calls and what they give, found by trying it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from jaxrl.text.formats import WITHOUT_TOOLS, Words
from jaxrl.text.jinja import Message
from jaxrl.text.tool_forms import FORMS, ToolForm

Call = tuple[str, dict[str, Any]]  # name, arguments
Step = tuple[str, list[Call], list[str]]  # what is said before calls, these, what they give

QUESTION = "Who is it?"
ONE: Step = ("", [("look_up", {"name": "<\u00c4> & \"b'", "count": -2})], ['2 "rows"\n<a> & {b}'])
TWO: Step = ("", [("now", {})], ["error: no"])
BOTH: Step = ("Let me see.", [*ONE[1], *TWO[1]], [*ONE[2], *TWO[2]])


def tool_words(
    words: Words, start: list[Message], write: Callable[[list[list[Message]], bool], list[str]]
) -> Words:
    """Words with how calls and results stand in them, where the template knows of any.

    `start` is the system message, `write` makes texts of conversations, with tools or without.
    ValueError where it does not tell of tools, or writes calls in a form that is not read here.
    """
    opened = [*start, ("user", QUESTION)]
    try:
        (told,), (untold,) = write([opened], True), write([opened], False)
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')}, with tools; {WITHOUT_TOOLS}.") from None
    if told == untold:
        raise ValueError(f"the chat template says nothing of tools; {WITHOUT_TOOLS}.")
    try:
        (whole,) = write([[*opened, *spoken(ONE)]], True)
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')}, with a call; {WITHOUT_TOOLS}.") from None
    begun = told.removesuffix(words.begun)
    for name, form in FORMS.items():
        said, gave = form.calls(ONE[1]), form.results(ONE[2])
        rest = whole.removeprefix(begun + said)
        before, found, after = rest.partition(gave)
        if rest != whole and found and after == words.reply:
            words = replace(words, tools=name, results=before)
            check(words, form, told, opened, write)
            return words
    raise ValueError(
        f"the chat template writes a call and what it gives as {whole.removeprefix(begun)[:120]!r},"
        f" which is not read here; {WITHOUT_TOOLS}."
    )


def check(words: Words, form: ToolForm, told: str, opened: list[Message], write: Any) -> None:
    """ValueError where a longer conversation is not what these words make of it."""
    steps = [ONE, TWO] if form.quotes else [TWO, BOTH, ONE]  # Llama has one call at a time
    (theirs,) = write([[*opened, *(message for step in steps for message in spoken(step))]], True)
    ours = [told.removesuffix(words.begun)]
    for i, (content, calls, results) in enumerate(steps):
        said = "\n".join(text for text in (content, form.calls(calls)) if text)
        reply = words.reply if i == len(steps) - 1 else words.reply.removesuffix(words.begun)
        ours += [said, words.results, form.results(results), reply]
    if theirs != "".join(ours):
        raise ValueError(
            "the chat template does not write the same words around every call of a tool; "
            f"{WITHOUT_TOOLS}."
        )


def spoken(step: Step) -> Sequence[Message]:
    """The messages of a step, as `transformers` takes them."""
    content, calls, results = step
    named = [{"name": name, "arguments": arguments} for name, arguments in calls]
    functions = [{"type": "function", "function": function} for function in named]
    told = [
        {"role": "tool", "name": name, "content": text}
        for (name, _), text in zip(calls, results, strict=True)
    ]
    return [{"role": "assistant", "content": content, "tool_calls": functions}, *told]

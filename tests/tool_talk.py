"""Conversations with tools: as an agent reads them, and as chat templates take them."""

from typing import Any

from quick import jit

from jaxrl.text import literal, to_str
from jaxrl.text.tool_forms import TERSE

ROOM = 512  # bytes of a response


def played(env: Any, said, key, steps):
    """(the texts of an episode in turn, its messages): the k-th response makes the k-th calls.

    `said` stands before the calls of a response. What a call gives is what the same world tells of
    it alone, in its tersest form.
    """
    plain = env.replace(prompt="terse", calls=1, turns=50)
    step, alone = jit(env.step), jit(plain.step)
    state, ts = jit(env.reset)(key)
    other = state
    texts = [to_str(ts.obs)]
    messages: list[dict[str, Any]] = [{"role": "user", "content": texts[0]}]
    for content, calls in zip(said, steps, strict=True):
        functions = [{"name": name, "arguments": arguments} for name, arguments in calls]
        called = [{"type": "function", "function": function} for function in functions]
        messages.append({"role": "assistant", "content": content, "tool_calls": called})
        texts.append("\n".join(x for x in (content, env.form.calls(calls)) if x))
        for call in calls:
            bare = literal(TERSE.calls([call]), ROOM)
            other, ts = alone(other, bare, key)
            messages.append({"role": "tool", "name": call[0], "content": to_str(ts.obs)})
        state, ts = step(state, literal(texts[-1], ROOM), key)
        assert not bool(ts.done) and not bool(ts.obs.cut)
        texts.append(to_str(ts.obs))
    return texts, messages


def tokens(host, chat, texts):
    """The ids of these texts, up to the next response."""
    found = []
    for i, text in enumerate(texts):
        piece = chat.next_piece if i else chat.first_piece
        found += host.response(text) if i % 2 else host.user(piece, text)
    return found

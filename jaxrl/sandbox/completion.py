"""The code that a model wrote: in a fence, between <python> and </python>, or all it said."""

import re
from typing import Any

BLOCK = re.compile(
    r"<python>(?P<tagged>.*?)(?:</python>|\Z)"
    r"|```[ \t]*(?P<name>[A-Za-z0-9+#.-]*)[^\n`]*\n(?P<fenced>.*?)(?:```|\Z)",
    re.DOTALL,
)
PYTHON = ("python", "python3", "py")


def code_of(completion: Any) -> str:
    """The last block of Python in a completion, a text or a conversation; without one, all of it.

    A block without a language counts where none is said to be Python. One that was cut off ends
    where the text does.
    """
    text = said(completion)
    found = [(m, (m["name"] or "").lower()) for m in BLOCK.finditer(text)]
    python = [m for m, name in found if m["tagged"] is not None or name in PYTHON]
    blocks = python or [m for m, name in found if not name]
    if not blocks:
        return text if not found else ""
    if blocks[-1]["tagged"] is None:
        return blocks[-1]["fenced"]
    inner = blocks[-1]["tagged"]
    return code_of(inner) if "```" in inner else inner


def said(completion: Any) -> str:
    """A completion's text; of a conversation what the assistant said last."""
    if isinstance(completion, str):
        return completion
    spoken = [turn.get("content") for turn in completion if turn.get("role") == "assistant"]
    return str(spoken[-1] or "") if spoken else ""

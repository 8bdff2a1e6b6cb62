"""Texts of models, environments and files as a terminal may safely show them."""

import unicodedata

JOINERS = "\u200c\u200d"  # inside words of Persian, and inside emoji


def printable(text: str, keep: str = "\n\t") -> str:
    """The text with what a terminal would obey, hide or turn around written as an escape.

    These are control characters other than those of `keep`, directions of writing, separators of
    lines, and halves of surrogate pairs.
    """
    if text.isprintable():
        return text
    return "".join(x if x in keep or _shows(x) else _escape(x) for x in text)


def _shows(character: str) -> bool:
    return (
        character.isprintable()
        or character in JOINERS
        or unicodedata.category(character) in ("Zs", "Cn", "Co")
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

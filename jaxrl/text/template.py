"""A text with named fields, which knows how long it can become."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxrl.text.render import render
from jaxrl.text.text import Part, Text


@dataclass(frozen=True)
class Template:
    r"""`Template(r"Guess {low}-{high}: \boxed{{N}}", {"low": 99, "high": 100})`.

    Each field is given by its widest value: an integer (the largest, or the least where that is a
    longer text), or an example of its longest text. Braces of the text itself are written twice.
    """

    text: str
    fields: Mapping[str, int | str] | None = None

    def __post_init__(self):
        for _, name, spec, how in string.Formatter().parse(self.text):
            if name is not None and (not name.isidentifier() or spec or how):
                raise ValueError(
                    f"text={self.text!r} may hold plain names in braces only, {{low}} for example."
                )
        if set(self._names) != set(self.fields or {}):
            raise ValueError(
                f"text={self.text!r} has the fields {sorted(set(self._names))} and not "
                f"{sorted(self.fields or {})}; give the widest value of each."
            )

    @property
    def size(self) -> int:
        """Bytes of the longest text."""
        return len(self.text.format(**(self.fields or {})).encode())

    def render(self, capacity: int | None = None, **values: jax.Array | int | Part) -> Text:
        """The text with these values, in room for `size` bytes or for `capacity`."""
        if values.keys() != set(self._names):
            raise ValueError(
                f"text={self.text!r} wants the fields {sorted(set(self._names))}, not "
                f"{sorted(values)}."
            )
        parts: list[Any] = [values[name] for name in self._names]
        capacity = self.size if capacity is None else capacity
        return render(self._places, *parts, capacity=capacity)

    @property
    def _names(self) -> list[str]:
        """The fields in the order of the text, as often as they stand there."""
        return [name for _, name, _, _ in string.Formatter().parse(self.text) if name is not None]

    @property
    def _places(self) -> str:
        """The text with {} in place of every name."""
        pieces = string.Formatter().parse(self.text)
        braced = (
            (plain.replace("{", "{{").replace("}", "}}"), name) for plain, name, _, _ in pieces
        )
        return "".join(plain + ("" if name is None else "{}") for plain, name in braced)

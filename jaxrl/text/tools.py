"""Tools that a model may call, each declared once: prompts and automata are made of this."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxrl.text.tool_forms import Schemas, dumped

TYPES = ("string", "integer", "number", "boolean")
MOST_BYTES = 4096
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True)
class Parameter:
    """One argument of a tool."""

    name: str
    type: str = "string"  # string, integer (of int32), number (float32) or boolean
    size: int = 64  # bytes that a string may have
    description: str = ""
    required: bool = True

    def __post_init__(self):
        if self.type not in TYPES:
            raise ValueError(
                f"type={self.type} of the parameter {self.name!r} is not known; try one of "
                f"{', '.join(TYPES)}."
            )
        check_name("parameter", self.name)
        if not 1 <= self.size <= MOST_BYTES:
            raise ValueError(
                f"size={self.size} of the parameter {self.name!r} must be 1 to {MOST_BYTES} bytes; "
                "try 64."
            )


@dataclass(frozen=True)
class Tool:
    """A function with flat arguments."""

    name: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()

    def __post_init__(self):
        check_name("tool", self.name)
        check_different("parameters", [p.name for p in self.parameters])

    @property
    def schema(self) -> dict[str, Any]:
        """As chat templates take it."""
        properties = {
            p.name: {"type": p.type} | ({"description": p.description} if p.description else {})
            for p in self.parameters
        }
        required = [p.name for p in self.parameters if p.required]
        parameters = {"type": "object", "properties": properties, "required": required}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


def schemas(tools: Sequence[Tool]) -> Schemas:
    """Of each tool, in order."""
    return tuple(dumped(tool.schema) for tool in tools)


def check_name(what: str, name: str) -> None:
    if not NAME.match(name):
        raise ValueError(
            f"name={name!r} of a {what} must begin with a letter and go on with letters, digits, "
            "_, . or -; try "
            f"{re.sub('[^A-Za-z0-9_.-]', '_', name).lstrip('0123456789.-') or 'add'}."
        )


def check_toolbox(tools: Sequence[Tool]) -> None:
    """ValueError for no tools, and for two of one name."""
    if not tools:
        raise ValueError("tools=() must hold a Tool at least.")
    check_different("tools", [tool.name for tool in tools])


def check_different(what: str, names: list[str]) -> None:
    """ValueError where two have one name."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{what}={names} has {name!r} twice; give each its own name.")

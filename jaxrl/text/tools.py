"""Tools that a model may call, each declared once: prompts and automata are made of this."""

import json
import re
from dataclasses import dataclass
from typing import Any

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


def check_name(what: str, name: str) -> None:
    if not NAME.match(name):
        raise ValueError(
            f"name={name!r} of a {what} must begin with a letter and go on with letters, digits, "
            "_, . or -; try "
            f"{re.sub('[^A-Za-z0-9_.-]', '_', name).lstrip('0123456789.-') or 'add'}."
        )


def check_different(what: str, names: list[str]) -> None:
    """ValueError where two have one name."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{what}={names} has {name!r} twice; give each its own name.")


CALL_FORM = '{"name": <function-name>, "arguments": <args-json-object>}'


def described(tools: tuple[Tool, ...]) -> str:
    """What Qwen's system message says of tools."""
    lines = "\n".join(json.dumps(tool.schema, ensure_ascii=False) for tool in tools)
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        f"<tools>\n{lines}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        f"<tool_call></tool_call> XML tags:\n<tool_call>\n{CALL_FORM}\n</tool_call>"
    )


def system_with(system: str, tools: tuple[Tool, ...]) -> str:
    """A system message, and behind it what Qwen's template says of tools."""
    return "\n\n".join(text for text in (system, described(tools) if tools else "") if text)

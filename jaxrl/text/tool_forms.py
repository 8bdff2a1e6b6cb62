"""How families of models are told of tools, and how calls and what they give are written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Schemas = tuple[str, ...]  # of tools, each JSON


@dataclass(frozen=True)
class ToolForm:
    """The words around a call and around what it gives."""

    call: tuple[str, str]
    result: tuple[str, str]
    arguments: str = "arguments"  # what a call names them
    quotes: bool = False  # what a response's calls gave is one JSON string

    def calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls of one response by name and arguments."""
        before, after = self.call
        told = [
            f'{before}{{"name": "{name}", "{self.arguments}": {dumped(arguments)}}}{after}'
            for name, arguments in calls
        ]
        return "\n".join(told)

    def results(self, texts: Sequence[str]) -> str:
        """What its calls gave."""
        told = "\n".join(self.result[0] + text + self.result[1] for text in texts)
        return dumped(told) if self.quotes else told


TERSE = ToolForm(("", ""), ("", ""))
FORMS = {
    "tags": ToolForm(
        ("<tool_call>\n", "\n</tool_call>"), ("<tool_response>\n", "\n</tool_response>")
    ),
    "bare": ToolForm(("", ""), ("", ""), "parameters", quotes=True),
}


def dumped(value: Any, indent: int | None = None) -> str:
    """JSON as chat templates write it."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def in_tags(tools: Schemas) -> str:
    """What Qwen 2.5 and 3 say of tools in the system message."""
    lines = "\n".join(tools)
    form = '{"name": <function-name>, "arguments": <args-json-object>}'
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        f"<tools>\n{lines}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        f"<tool_call></tool_call> XML tags:\n<tool_call>\n{form}\n</tool_call>"
    )


def bare(tools: Schemas) -> str:
    """What Llama 3.1 and 3.2 say of tools before the first question."""
    return (
        "Given the following functions, please respond with a JSON for a function call with its "
        "proper arguments that best answers the given prompt.\n\n"
        'Respond in the format {"name": function name, "parameters": dictionary of argument name '
        "and its value}.Do not use variables.\n\n"
        + "".join(f"{dumped(json.loads(tool), 4)}\n\n" for tool in tools)
    )


# Before a system message of Llama 3.1 where there are tools; its template has this date fixed.
IPYTHON = "Environment: ipython\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"

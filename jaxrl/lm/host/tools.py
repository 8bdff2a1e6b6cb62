"""Tools as a model calls them: told in the form of Qwen 2.5 and 3, read from what it wrote.

A call is `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, as often as it likes in a
response; a response that is nothing but such an object is one too, as Llama 3 writes it, with
`parameters`. What it gives comes back between `<tool_response>` and `</tool_response>`.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)


def describe(schemas: Sequence[dict[str, Any]]) -> str:
    """What a system message says of tools with these JSON schemas."""
    lines = "\n".join(json.dumps(schema, ensure_ascii=False) for schema in schemas)
    form = '{"name": <function-name>, "arguments": <args-json-object>}'
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        f"<tools>\n{lines}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        f"<tool_call></tool_call> XML tags:\n<tool_call>\n{form}\n</tool_call>"
    )


def calls(said: str) -> list[dict[str, Any]]:
    """Name and arguments of each call in a response, or why it is none ("error"); in order."""
    found = CALL.findall(said)
    if not found:
        return [read(said)] if '"name"' in said and said.strip()[:1] == "{" else []
    return [read(text) for text in found]


def read(text: str) -> dict[str, Any]:
    """One call."""
    try:
        value = json.loads(text)
    except ValueError as error:
        return {"error": f"the call is no JSON: {error}"}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return {"error": 'a call is {"name": .., "arguments": {..}}'}
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, dict):
        return {"error": f"the arguments of {value['name']} are no JSON object"}
    return {"name": value["name"], "arguments": arguments}


def results(texts: Sequence[str]) -> str:
    """What a user's turn holds after calls that gave this."""
    return "\n".join(f"<tool_response>\n{text}\n</tool_response>" for text in texts)

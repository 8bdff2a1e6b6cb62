"""Calls of tools, read on the host from what a model wrote.

A call is `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, as often as it likes in a
response; a response that is nothing but such an object is one too, as Llama 3 writes it, with
`parameters`.
"""

import json
import re
from typing import Any

CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)


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

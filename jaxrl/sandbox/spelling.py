"""A value's way out of a sandbox: as text that the code in there may forge and cannot misuse."""

import json
from typing import Any

from jaxrl.sandbox.outcome import Opaque

LONGEST = 2**20  # characters of a value
CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict}


def spelled(value):
    """JSON of plain data, its containers by name; runs in the sandbox, in few words of Python."""
    import json

    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        return '{"%s": [%s]}' % (kind.__name__, ", ".join([spelled(x) for x in value]))  # noqa: UP031
    if kind is dict:
        return '{"dict": [%s]}' % ", ".join([spelled(pair) for pair in value.items()])  # noqa: UP031
    if value is None or kind in (bool, int, float, str):
        return json.dumps(value)
    return '{"opaque": []}'


def value_of(text: str) -> Any:
    """What `spelled` wrote; `Opaque` for anything else.

    The sandbox's own objects are never looked at: a list that holds another a thousand times, and
    that one another, is small until somebody compares it or writes it out.
    """
    try:
        return json.loads(text, object_hook=_container) if len(text) <= LONGEST else Opaque()
    except (ValueError, TypeError, KeyError, RecursionError, MemoryError):
        return Opaque()


def _container(named: dict[str, Any]) -> Any:
    ((name, entries),) = named.items()
    return Opaque() if name == "opaque" else CONTAINERS[name](entries)

"""What the source says of a dataclass's fields: the comment behind each, or above it."""

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from typing import Any


@functools.cache
def of_class(cls: type) -> dict[str, tuple[str, str]]:
    """field -> (its annotation, its comment), of the class itself."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines, found = source.splitlines(), {}
    body = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)).body
    for node in body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        end = node.end_lineno or node.lineno
        _, _, comment = lines[end - 1][node.end_col_offset or 0 :].partition("#")
        above, i = [], node.lineno - 2
        while not comment and i >= 0 and lines[i].strip().startswith("#"):
            above.insert(0, lines[i].strip().lstrip("# "))
            i -= 1
        text = comment.strip() or " ".join(above)
        found[node.target.id] = re.sub(r"\w+\.(?=[A-Z])", "", ast.unparse(node.annotation)), text
    return found


def of_fields(cls: Any) -> dict[str, tuple[str, str]]:
    """The same with what it derives from: the nearest class that says a field counts."""
    found: dict[str, tuple[str, str]] = {}
    for parent in reversed(cls.__mro__):
        if dataclasses.is_dataclass(parent):
            found |= of_class(parent)
    return found

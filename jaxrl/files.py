"""Files that a user, another program or a killed run left: read by one rule, written whole.

What is missing, cut short, not UTF-8, no JSON or of another type is a ValueError of one line that
names the file and, inside it, the field.
"""

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def reason_of(error: OSError) -> str:
    """What the system says, in lower case: `no space left on device`."""
    return (error.strerror or str(error)).lower()


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, whatever the locale, without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}).") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason_of(error)}.") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, split at newlines alone: U+2028 may stand inside JSON strings."""
    lines = read_text(path).split("\n")
    return lines if lines[-1] else lines[:-1]


def parse_json(text: str, where: str) -> Any:
    """JSON as the standard has it, so without NaN; ValueError that begins with `where`."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{where} holds the number {constant}, which JSON does not have.")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}.") from None
    except RecursionError:
        raise ValueError(f"{where} is not JSON that can be read: nested too deep.") from None


def read_json(path: Path, hint: type[T] = dict) -> T:
    """The JSON of a file as a value of this type, or as a dataclass of these fields."""
    return as_type(hint, parse_json(read_text(path), str(path)), str(path))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all; OSError where it cannot be."""
    partial = path.with_name(f".{path.name}.tmp")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """The same with JSON that a person can read."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def as_type(hint: Any, value: Any, where: str) -> Any:
    """A value from JSON as the type that is wanted, which may be a dataclass or a union.

    `where` is the file, or a field in it. ValueError for another type, a number that is not finite,
    and of a dataclass for a field that it does not have or that is missing.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _as_dataclass(hint, value, where)
    if origin in (typing.Union, types.UnionType):
        return _as_one_of(inner, value, where)
    if origin is Literal:
        if value in inner and any(type(value) is type(x) for x in inner):
            return value
        raise ValueError(f"{where}={_short(value)} is none of {', '.join(map(str, inner))}.")
    kind: Any = origin or hint
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**1000 else math.inf
    given = {tuple: list, Path: str, Sequence: list}.get(kind, kind)
    if type(value) is not given:
        wanted = NAMES.get(given, getattr(given, "__name__", str(given)))
        raise ValueError(f"{where}={_short(value)} must be {wanted}.")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{where}={value} must be a finite number.")
    if kind is Path:
        return Path(value)
    if given is list:
        return _as_items(kind, inner, value, where)
    if kind is dict and inner:
        return {k: as_type(inner[1], x, _inside(where, k)) for k, x in value.items()}
    return value


NAMES = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _inside(where: str, name: str) -> str:
    """`FILE: field`, and further in `FILE: field.name`."""
    return f"{where}.{name}" if ": " in where else f"{where}: {name}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _as_one_of(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    errors = []
    for hint in hints:
        try:
            return as_type(hint, value, where)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _as_items(kind: Any, inner: tuple[Any, ...], value: list[Any], where: str) -> Any:
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise ValueError(f"{where}={_short(value)} must have {len(inner)} entries.")
        hints = inner
    else:
        hints = (inner[0] if inner else Any,) * len(value)
    items = [
        as_type(hint, x, f"{where}[{i}]")
        for i, (hint, x) in enumerate(zip(hints, value, strict=True))
    ]
    return tuple(items) if kind is tuple else items


def _as_dataclass(cls: Any, value: Any, where: str) -> Any:
    if type(value) is not dict:
        raise ValueError(f"{where}={_short(value)} must be an object.")
    hints, fields = (
        typing.get_type_hints(cls),
        {f.name: f for f in dataclasses.fields(cls) if f.init},
    )
    unknown = sorted(value.keys() - fields.keys())
    if unknown:
        raise ValueError(f"{where} has the field {unknown[0]}, which this version does not know.")
    for name, field in fields.items():
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and name not in value:
            raise ValueError(f"{where} has no field {name}.")
    found = {name: as_type(hints[name], x, _inside(where, name)) for name, x in value.items()}
    try:
        return cls(**found)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None

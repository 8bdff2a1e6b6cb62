"""Files that a user, another program or a killed run left: read by one rule, written whole.

What is missing, cut short, not UTF-8, no JSON or of another type is a ValueError of one line that
names the file and, inside it, the field. A file of JSON is described by a dataclass.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import stat
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")


MOST_BYTES = 2**26  # of a file of JSON that is read as a whole
MOST_DEPTH = 100  # of lists and objects inside each other


class Foreign:
    """The base of what describes another program's file: fields that it does not name are fine."""


def reason_of(error: OSError) -> str:
    """What the system says, in lower case: `no space left on device`."""
    return (error.strerror or str(error)).lower()


@contextlib.contextmanager
def reading(path: Path, way_out: str = "") -> Iterator[None]:
    """What fails inside is said of this file, in one line that ends with a way out."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        named = text.startswith((str(path), f"{path.parent}/"))
        text = text if named else f"{path}: {text}"
        raise ValueError(f"{text.rstrip('.')}; {way_out}." if way_out else text) from None


def check_regular(path: Path) -> int:
    """The file's size in bytes; ValueError where it is none: a pipe or a device may never end."""
    try:
        found = path.stat()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason_of(error)}.") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise ValueError(f"{path} is {kind}, not a file.")
    return found.st_size


def read_text(path: Path, most: int | None = None) -> str:
    """The text of a UTF-8 file, whatever the locale, without a byte order mark.

    ValueError for one of more than `most` bytes.
    """
    size = check_regular(path)
    if most is not None and size > most:
        raise ValueError(f"{path} has {size} bytes; such a file has at most {most}.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}).") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason_of(error)}.") from None


def parse_json(text: str, where: str, infinite: bool = False) -> Any:
    """JSON as the standard has it, so without NaN; ValueError that begins with `where`.

    Nor with what two programs would read in two ways: a field that stands twice, a number beyond
    those of floats or of 4,300 digits, half of a surrogate pair. `infinite` allows for Infinity.
    """

    def refuse(constant: str) -> Any:
        if infinite and constant.endswith("Infinity"):
            return float(constant)
        raise _Unreadable(f"holds the number {_short(constant, 20)}, which no program can read")

    def number(digits: str) -> float:
        return value if math.isfinite(value := float(digits)) else refuse(digits)

    def integer(digits: str) -> int:
        return int(digits) if len(digits) <= 4300 else refuse(digits)

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise _Unreadable(f"has the field {_word(twice)} twice; leave one out")
        return found

    how: Any = {"parse_constant": refuse, "parse_float": number, "parse_int": integer}
    try:
        value = json.loads(text, object_pairs_hook=fields, **how)
        _check_depth(value)
        if re.search(r"\\u[dD][89abAB]", text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}.") from None
    except UnicodeEncodeError:
        raise ValueError(
            f"{where} holds half of a surrogate pair, which is no character."
        ) from None
    except _Unreadable as error:
        raise ValueError(f"{where} {error}.") from None
    except RecursionError:
        raise ValueError(f"{where} is nested deeper than {MOST_DEPTH} levels.") from None


class _Unreadable(Exception):
    """Why JSON is refused that Python would take."""


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        parts = (x.values() if type(x) is dict else x for x in level if type(x) in (dict, list))
        level = [x for part in parts for x in part if type(x) in (dict, list)]
        if not level:
            return
    raise RecursionError


def read_json(path: Path, hint: type[T] = dict, infinite: bool = False) -> T:
    """The JSON of a file as a value of this type, or as a dataclass of these fields."""
    value = parse_json(read_text(path, MOST_BYTES), str(path), infinite)
    return as_type(hint, value, str(path))


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    check_regular(path)
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_digests(description: Path, digests: dict[str, str]) -> None:
    """ValueError for a file beside a description that is missing, or not what its digest says."""
    for name, digest in digests.items():
        with reading(description):
            path = child(description.parent, name)
        if digest_of(path) != digest:
            raise ValueError(f"{path} is not what was written, of which {description.name} tells.")


def child(folder: Path, name: str) -> Path:
    """A file right inside a folder; ValueError for a name that leads anywhere else."""
    if name in ("", ".", "..") or not name.isprintable() or "/" in name or os.sep in name:
        raise ValueError(
            f"the file {_short(name)} must be a plain name, of one in the same folder."
        )
    return folder / name


def inside(folder: Path, name: str) -> Path:
    """A file that is really in the folder of a model, whoever made it.

    ValueError for a name or a link that leads out of it. The links of Hugging Face's cache may lead
    to its `blobs`, beside the folder of snapshots.
    """
    path, home = child(folder, name), Path(os.path.realpath(folder))
    target = Path(os.path.realpath(path))
    homes = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(target.is_relative_to(place) for place in homes):
        raise ValueError(f"{path} is a link to {target}, outside the folder; copy the file there.")
    return path


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the name and the place of `folder` at the end.

    Where that is not reached, `folder` stays as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, before = (folder.with_name(f".{folder.name}.{word}") for word in ("tmp", "old"))
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        partial.mkdir()
        yield partial
        if folder.exists():
            shutil.rmtree(before, ignore_errors=True)
            folder.rename(before)
        partial.rename(folder)
    finally:
        if before.exists() and not folder.exists():
            before.rename(folder)
        for left in (partial, before):
            shutil.rmtree(left, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all; OSError where it cannot be."""
    partial = path.with_name(f".{path.name}.tmp")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        os.replace(partial, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names none
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """The same with JSON that a person can read."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def without_nan(content: Any) -> Any:
    """The same with null, which JSON has, for numbers that are not finite, which it has not."""
    if isinstance(content, dict):
        return {name: without_nan(x) for name, x in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(x) for x in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


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
        if all(type(x) is inner[1] for x in value.values()) and inner[1] is not float:
            return value  # a vocabulary of 150,000 tokens
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
    return f"{where}.{_word(name)}" if ": " in where else f"{where}: {_word(name)}"


def _word(name: str) -> str:
    """A field's name as it is, unless it would break the line."""
    return name if name.isidentifier() and len(name) <= 60 else _short(name)


def _short(value: Any, most: int = 60) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= most else text[: most - 3] + "..."


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
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    unknown = sorted(value.keys() - fields.keys())
    if unknown and not issubclass(cls, Foreign):
        raise ValueError(
            f"{where} has the field {_word(unknown[0])}, which this version does not know."
        )
    value = {name: x for name, x in value.items() if name in fields}
    for name, field in fields.items():
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and name not in value:
            raise ValueError(f"{where} has no field {name}.")
    found = {name: as_type(hints[name], x, _inside(where, name)) for name, x in value.items()}
    try:
        return cls(**found)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None

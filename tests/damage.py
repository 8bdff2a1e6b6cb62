"""Ways in which a file may be broken, and what must be said of it."""

import json
import os
from pathlib import Path

import pytest


def put(**changes):
    """A change of a file's fields; `...` takes one out."""

    def damage(path: Path) -> None:
        kept = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in kept.items() if v is not ...}))

    return damage


def text(content: str | bytes):
    data = content.encode() if isinstance(content, str) else content
    return lambda path: path.write_bytes(data)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def gone(path: Path) -> None:
    path.unlink()


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(target: str):
    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return damage


def sparse(size: int):
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.truncate(size)

    return damage


# What any file of JSON may have become, and the words that it must be refused with.
ANY_JSON = [
    (gone, "no"),
    (text(""), "not JSON"),
    (half, "not JSON"),
    (text(b"\xff\xfe{}"), "not UTF-8 (byte 0)"),
    (text("[]"), "must be an object"),
    (text("null"), "must be an object"),
    (text('{"a": NaN}'), "NaN"),
    (text('{"a": 1e999}'), "1e999"),
    (text('{"a": ' + "9" * 5000 + "}"), "99999"),
    (text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"), "deeper"),
    (text('{"a": ' + "[" * 500 + "]" * 500 + "}"), "deeper"),
    (text('{"twice": 1, "twice": 2}'), "twice"),
    (text('{"a": "\\ud800"}'), "surrogate"),
    (folder_instead, "is a folder"),
    (pipe, "is a pipe"),
    (link("/dev/zero"), ""),
    (link("policy.json"), ""),
    (sparse(2**40), "bytes"),
]


def rows(file, damages):
    return [
        pytest.param(file, damage, words, id=f"{Path(file).name}-{i}")
        for i, (damage, words) in enumerate(damages)
    ]


def check(load, path: Path, damage, words: str) -> None:
    """After the damage `load` refuses in one line, with the file's name and `words`."""
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        load()
    said = str(refused.value)
    assert path.name in said and words in said, said
    assert "\n" not in said and "  " not in said and len(said) < 700, said

"""Bad command lines over every entry point: one line, exit code 1 or 2, and nothing written.

The options and their types are read from the dataclasses, so a new option is tried as it comes.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jaxrl.train import aot, command, evaluate, export, table, tokenizer, transcripts

LONG = "n" * 300
NUMBERS = ["nan", "inf", "-inf", "-1", "0", "x", "", "1e6", "1.5", str(2**31), str(2**63)]
NUMBERS += [str(10**30), "9" * 5000, "1e39", "1e999", "-0", "1e-60", "\u0663", "0x10", "1_0"]
TEXTS = ["", "x", LONG, "../x:Y", "a\0b", "\udcff", "a b", "-", "=", ":", "..", "/", "\u00e9" * 200]
PATHS = ["", LONG, "a\0b", "FILE", "FILE/under", "FOLDER", "missing/a/b", "/proc/x/y", "x/" * 3000]
HOPELESS = {"nan", "inf", "-inf", "x", "", str(2**63), str(10**30), "9" * 5000, "1e999"}


class Reached(Exception):
    """A program would have been made: the command line was taken for good."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A command, and what its options are."""

    name: str
    run: Callable[[list[str]], None]
    options: type[Any]
    given: tuple[str, ...] = ()  # what it always needs


def entries() -> dict[str, Entry]:
    found = {}
    for name in table.TRAINERS:
        trainer = table.trainer(name)
        found[name] = Entry(name, partial(command.run, trainer), trainer.options)
    for name, module in (("evaluate", evaluate), ("transcripts", transcripts), ("export", export)):
        given = ("--run", "FOLDER") + (("--out", "new") if name == "export" else ())
        found[name] = Entry(name, module.run, module.Args, given)
    found["tokenizer"] = Entry("tokenizer", tokenizer.run, tokenizer.Args, ("--out", "new"))
    found["aot"] = Entry("aot", aot.run, table.trainer("ppo").options)
    return found


def fields_of(options: type[Any], prefix: str = "--") -> Iterator[tuple[str, Any]]:
    """(flag, type) of every option, nested ones too."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        flag, hint = prefix + field.name.replace("_", "-"), hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from fields_of(hint, flag + ".")  # pyright: ignore
        else:
            yield flag, hint


def values_for(hint: Any) -> list[list[str]]:
    """The words that are tried behind a flag of this type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [v for kind in inner if kind is not type(None) for v in values_for(kind)]
    if origin is Literal:
        return [["x"], [""], ["3"], []]
    if hint is bool:
        return [["3"], ["maybe"]]
    if hint in (int, float):
        return [[], *([x] for x in NUMBERS)]
    if hint is Path:
        return [[], *([x] for x in PATHS)]
    if hint is str:
        return [[], *([x] for x in TEXTS)]
    if origin in (tuple, list):
        of_item = [v for v in values_for(inner[0]) if v]
        return [[], *of_item, [*of_item[0], *of_item[-1]]]
    raise AssertionError(f"no values are known for {hint}")

"""What kind of path an option takes, and a line where the path given is of another kind."""

import errno
import os
import stat
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from jaxrl import hub
from jaxrl.files import reason_of

EMPTY = "''"


class Kind(Enum):
    """Named as in an error: `data=x is a folder; give a file`."""

    FILE = "a file"
    FOLDER = "a folder"
    EITHER = "a file or folder"
    NEW = "a new folder"
    OUTPUT = "a file to write"
    MODEL = "a folder, or ORG/NAME of Hugging Face"
    TOKENIZER = "a file or folder, or ORG/NAME of Hugging Face"


File = Annotated[Path, Kind.FILE]
Folder = Annotated[Path, Kind.FOLDER]
FileOrFolder = Annotated[Path, Kind.EITHER]
NewFolder = Annotated[Path, Kind.NEW]
NewFile = Annotated[Path, Kind.OUTPUT]
Model = Annotated[Path, Kind.MODEL]
TokenizerOf = Annotated[Path, Kind.TOKENIZER]


def check(options: type[Any], given: Mapping[str, str | None]) -> None:
    """ValueError for a path of another kind than its option says; nothing is touched.

    `given` has the words of the command line by flag: what a run's config.json names is left to
    those who read it, for the run may have been moved to another machine.
    """
    for name, kind in _kinds(options):
        text = given.get("--" + name.replace("_", "-"))
        if text is not None:
            problem = _problem(text, kind)
            if problem:
                raise ValueError(f"{name}={text or EMPTY} {problem}.")


def _kinds(options: type[Any]) -> Iterator[tuple[str, Kind]]:
    """(field, kind) of the paths among the options."""
    for name, hint in typing.get_type_hints(options, include_extras=True).items():
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        for part in typing.get_args(hint) if union else (hint,):
            for note in getattr(part, "__metadata__", ()):
                if isinstance(note, Kind):
                    yield name, note


def _problem(text: str, kind: Kind) -> str:
    """What is wrong with a path, in words; empty where nothing is known to be."""
    if not text.strip():
        return f"is no path; give {kind.value}"
    if "\0" in text:
        return f"holds the character NUL; give {kind.value}"
    path = Path(text)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if kind is Kind.NEW:
            return _unmakable(path)
        if kind is Kind.OUTPUT:
            return "" if path.parent.is_dir() else "lies in no folder; make that first"
        if kind in (Kind.MODEL, Kind.TOKENIZER) and hub.is_id(text):
            return ""
        missing = error.errno == errno.ENOENT
        return f"is {'not there' if missing else 'below a file'}; give {kind.value}"
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        return f"cannot be used: {reason}; give {kind.value}"
    return _of_another_kind(path, mode, kind)


def _of_another_kind(path: Path, mode: int, kind: Kind) -> str:
    is_folder = stat.S_ISDIR(mode)
    if is_folder and kind in (Kind.FILE, Kind.OUTPUT):
        return f"is a folder; give {kind.value}"
    if not is_folder and kind in (Kind.FOLDER, Kind.NEW, Kind.MODEL):
        return f"is {'a file' if stat.S_ISREG(mode) else 'no folder'}; give {kind.value}"
    if not is_folder and not stat.S_ISREG(mode):
        return f"is no ordinary file; give {kind.value}"
    wanted = (
        os.R_OK
        | (os.X_OK if is_folder else 0)
        | (os.W_OK if kind in (Kind.NEW, Kind.OUTPUT) else 0)
    )
    if not os.access(path, wanted):
        return f"cannot be used: permission denied; give {kind.value}"
    return ""


def _unmakable(path: Path) -> str:
    """Why a folder cannot be made there, in words."""
    above = path.absolute()
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        return "cannot be made: not a directory; try another"
    if not os.access(above, os.W_OK | os.X_OK):
        return "cannot be made: permission denied; try another"
    return ""

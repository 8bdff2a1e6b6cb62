"""A path on the command line is of the kind that its option says, or named with what it is."""

import dataclasses
import os
import typing
from pathlib import Path

import pytest

from jaxrl.train import chat, evaluate, export, flags, paths, table, tokenizer, transcripts
from jaxrl.train.paths import File, FileOrFolder, Folder, NewFolder


@dataclasses.dataclass(frozen=True)
class Options:
    file: File | None = None
    folder: Folder | None = None
    either: FileOrFolder | None = None
    new: NewFolder | None = None
    other: str = ""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FILE").write_text("x")
    os.mkfifo(tmp_path / "PIPE")
    return tmp_path


EVERY = ("file", "folder", "either", "new")


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        (("file",), "FOLDER", "is a folder; give a file."),
        (("folder", "new"), "FILE", "is a file; give a "),
        (("file", "either"), "PIPE", "is no ordinary file; give a "),
        (("folder", "new"), "PIPE", "is no folder; give a "),
        (("file", "folder", "either"), "missing", "is not there; give a "),
        (("file", "folder", "either"), "FILE/x", "is below a file; give a "),
        (("new",), "FILE/x", "cannot be made: not a directory; try another."),
        (EVERY, "", "is no path; give a "),
        (EVERY, " ", "is no path; give a "),
        (EVERY, "a\0b", "holds the character NUL; give a "),
        (EVERY, "n" * 300, "cannot be used: file name too long; give a "),
        (EVERY, "x/" * 3000, "cannot be used: file name too long; give a "),
    ],
)
def test_a_path_of_another_kind_is_refused_by_its_option(here, options, path, words):
    for name in options:
        with pytest.raises(ValueError) as error:
            flags.cli(Options, "", [f"--{name}", path])
        assert str(error.value).startswith(f"{name}=") and words in str(error.value)
    assert sorted(os.listdir(here)) == ["FILE", "FOLDER", "PIPE"]


@pytest.mark.parametrize("value", ["FILE", "FOLDER", "missing/a", "PIPE"])
def test_a_path_of_its_kind_passes_and_so_does_what_was_not_typed(value):
    good = {"FILE": ("file", "either"), "FOLDER": ("folder", "either", "new"), "PIPE": ()}
    for name in good.get(value, ("new",)):
        assert getattr(flags.cli(Options, "", [f"--{name}", value]), name) == Path(value)
    assert flags.cli(Options, "", ["--other", value], default=Options(file=Path("gone"))).file


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_may_not_be_read_or_written_is_refused(here):
    (here / "FILE").chmod(0)
    (here / "FOLDER").chmod(0o500)
    for name, path in (("file", "FILE"), ("new", "FOLDER"), ("new", "FOLDER/x")):
        with pytest.raises(ValueError, match="permission denied"):
            paths.check(Options, {f"--{name}": path})


def test_every_path_among_the_options_of_every_command_has_a_kind():
    every = [table.trainer(name).options for name in table.TRAINERS]
    for options in (
        *every,
        chat.Args,
        evaluate.Args,
        transcripts.Args,
        export.Args,
        tokenizer.Args,
    ):
        named = {name for name, _ in paths._kinds(options)}
        assert named == {f.name for f in dataclasses.fields(options) if "Path" in _text(options, f)}


def _text(options: type, field: dataclasses.Field) -> str:
    return str(typing.get_type_hints(options)[field.name])

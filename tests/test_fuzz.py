"""Bad command lines over every entry point: one line, exit code 1 or 2, and nothing written.

Options and their types are read from the dataclasses, so a new option is tried as it comes.
"""

import dataclasses
import inspect
import os
import random
import re
import shutil
import time
import types
import typing
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import jax
import pytest

from jaxrl import Box, Discrete, check_env, envs
from jaxrl.lm.learn import lengths
from jaxrl.networks import NetworkSpec
from jaxrl.train import __main__ as console
from jaxrl.train import (
    aot,
    chat,
    command,
    evaluate,
    export,
    loop,
    table,
    tokenizer,
    transcripts,
    watch,
)

PATIENCE = 10  # s that a refusal may take
LONG = "n" * 300
NUMBERS = ["nan", "inf", "-inf", "-1", "0", "x", "", "1e6", "1.5", str(2**31), str(2**63)]
NUMBERS += [str(10**30), "9" * 5000, "1e39", "1e999", "-0", "1e-60", "0x10"]
TEXTS = ["", "x", LONG, "../x:Y", "a\0b", "\udcff", "a  b", "-", "=", ":", "..", "\u00e9" * 200]
PATHS = ["", LONG, "a\0b", "FILE", "FILE/under", "FOLDER", "missing/a/b", "/proc/x/y", "x/" * 3000]
PAIRS = ["id=5", "=5", "a", "gravity=nan", "gravity=inf", "gravity=1e39", "a=1 a=2", "max_steps=0"]
NEVER = {"nan", "inf", "-inf", "x", "", "1e999", "9" * 5000, "a\0b"}  # a number or a path
NEVER_AN_INTEGER = {"1.5", "1e6", "1e39", "0x10", str(2**63), str(10**30)}


class Taken(BaseException):
    """A program would have been made: the command line was found good."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A command, and what its options are."""

    run: Callable[[list[str]], None]
    options: type[Any]
    given: tuple[str, ...] = ()  # what it always needs


@dataclasses.dataclass(frozen=True)
class Case:
    entry: str
    argv: tuple[str, ...]
    flag: str = ""  # the one that is tried
    value: str | None = None
    hopeless: bool = False  # it must be refused


def entries() -> dict[str, Entry]:
    """Every command that has options."""
    found = {}
    for name in table.TRAINERS:
        if name == "token_ppo":  # asks for a reward model's run before all else; see test_rlhf
            continue
        trainer = table.trainer(name)
        found[name] = Entry(partial(command.run, trainer), trainer.options)
    tools = {"evaluate": evaluate, "transcripts": transcripts, "export": export, "watch": watch}
    for name, module in tools.items():
        given = ("--run", "FOLDER", "--out", "new") if name == "export" else ("--run", "FOLDER")
        found[name] = Entry(module.run, module.Args, given)
    found["chat"] = Entry(chat.run, chat.Args, ("--model", "FOLDER"))
    found["tokenizer"] = Entry(tokenizer.run, tokenizer.Args, ("--out", "new"))
    found["aot"] = Entry(aot.run, table.trainer("ppo").options)
    return found


ENTRIES = entries()


def fields_of(options: type[Any], prefix: str = "--") -> Iterator[tuple[str, Any]]:
    """(flag, type) of every option, nested ones too."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        flag, hint = prefix + field.name.replace("_", "-"), hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from fields_of(hint, flag + ".")  # pyright: ignore
        else:
            yield flag, hint


def values_of(flag: str, hint: Any) -> list[tuple[tuple[str, ...], bool]]:
    """(words behind the flag, whether they must be refused) to try for a type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if flag == "--env-args":
        return [(tuple(words.split(" ")), True) for words in PAIRS]
    if origin in (typing.Union, types.UnionType):
        return [v for kind in inner if kind is not type(None) for v in values_of(flag, kind)]
    if origin is Literal:
        return [((word,), word not in inner) for word in ("x", "", "3")] + [((), True)]
    if hint is bool:
        return [(("3",), True), (("maybe",), True)]
    if hint is int:
        return [((), True), *(((x,), x in NEVER | NEVER_AN_INTEGER) for x in NUMBERS)]
    if hint is float:
        return [((), True), *(((x,), x in NEVER | {"1e39", "1e-60"}) for x in NUMBERS)]
    if hint is Path:
        return [((), True), *(((x,), x in NEVER or x.startswith((LONG, "x/"))) for x in PATHS)]
    if hint is str:
        return [((), True), *(((x,), "\0" in x) for x in TEXTS)]
    if origin in (tuple, list):
        return [v for v in values_of(flag, inner[0]) if v[0]]
    raise AssertionError(f"no values are known for {hint}")


def every_case() -> list[Case]:
    """Each option of each entry with each of its values; unknown ones beside them."""
    found = []
    for name, entry in ENTRIES.items():
        for flag, hint in fields_of(entry.options):
            given = list(entry.given)
            if flag in given:
                del given[given.index(flag) : given.index(flag) + 2]
            for words, hopeless in values_of(flag, hint):
                value = words[0] if len(words) == 1 else None
                argv = (*given, flag, *words)
                found.append(Case(name, argv, flag, value, hopeless))
            if flag == "--env-args":
                found.append(Case(name, (*given, flag, "a=1", flag, "b=2"), flag, None, True))
        for words in (("extra", "words"), ("--nonsense", "1"), ("-x",), ("--",), ("--=",)):
            found.append(Case(name, (*entry.given, *words), "", None, words != ("--",)))
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder, in which nothing is compiled, played or joined."""

    def taken(*args, **kwargs):
        raise Taken

    def nobody(*args, **kwargs):
        raise RuntimeError("no host answers")

    found = lengths.Lengths(32, 10, 11)
    monkeypatch.setattr(loop, "make_program", taken)
    monkeypatch.setattr(aot, "compile_for", taken)
    monkeypatch.setattr(tokenizer, "texts", taken)
    monkeypatch.setattr(lengths, "longest", lambda *args, **kwargs: found)
    monkeypatch.setattr(jax.distributed, "initialize", nobody)
    monkeypatch.setattr(inspect, "getsource", cache(inspect.getsource))  # tyro's way to the help
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("FOLDER").mkdir()
    for file in ("FILE", "FOLDER/x"):
        Path(file).write_text("x")
    return tmp_path


def outcome(entry: Entry, argv: list[str], capfd) -> tuple[object, str]:
    """(exit code, or "taken", what it said); only a refusal has an exit code above 0."""
    code: object = 0
    try:
        entry.run(argv)
    except SystemExit as stop:
        code = stop.code
    except Taken:
        code = "taken"
    return code, capfd.readouterr().err


def contents(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def check(case: Case, folder: Path, capfd, tried: set[tuple[str, str]]) -> bool:
    """Whether it was refused, which must be in one line that helps; `tried` are proposals."""
    before, start = contents(folder), time.monotonic()
    code, said = outcome(ENTRIES[case.entry], list(case.argv), capfd)
    took, shown = time.monotonic() - start, f"{case.entry} {case.argv}: {code} {said!r}"
    if code in (0, "taken"):
        assert not case.hopeless, shown
        shutil.rmtree(folder / "here/runs", ignore_errors=True)
        for path in set(contents(folder)) - set(before):
            shutil.rmtree(path, ignore_errors=True)
        return False
    assert code in (1, 2) and took < PATIENCE, shown
    said = re.sub(r"^\S+ is an? .*environment.*: train\.\w+ takes over\n", "", said)
    assert said.startswith("error: ") and said.endswith("\n") and said.count("\n") == 1, shown
    assert "  " not in said and "Traceback" not in said and len(said) < 2000, shown
    assert any(name in said for name in names_of(case)), shown
    assert contents(folder) == before, shown
    advice = re.match(r"error: ([\w.]+)=.*; try ([\w.+-]+)[.,]?\n", said)
    field = case.flag.rpartition(".")[2].lstrip("-").replace("-", "_")
    if advice and advice[1] == field and case.value is not None and advice[2] != "another":
        proposal = field, advice[2].rstrip(".")  # of an option that trainers share: once
        if proposal not in tried:
            check_advice(case, *proposal, folder, capfd)
        tried.add(proposal)
    return True


def names_of(case: Case) -> list[str]:
    """The option in both spellings, and the words that were given."""
    name = case.flag.rpartition(".")[2].lstrip("-")
    words = [word[:60] for word in case.argv if len(word) > 1 and word.isprintable()]
    words += [word.partition("=")[0] for word in words if "=" in word]
    words += [os.path.dirname(word) for word in words if word.startswith("/")]  # made on the way
    unknown = ["options: 3", "options: maybe"]  # behind a flag that takes no value
    words += [name, name.replace("-", "_"), repr(case.value), *unknown, "topology"]
    return [word for word in words if word]


def check_advice(case: Case, field: str, value: str, folder: Path, capfd) -> None:
    """A value that an error proposes is not refused itself."""
    argv = [value if word == case.value else word for word in case.argv]
    _, said = outcome(ENTRIES[case.entry], argv, capfd)
    shutil.rmtree(folder / "here/runs", ignore_errors=True)
    assert not said.startswith(f"error: {field}="), f"{case.argv}: try {value}, but {said}"


def try_all(cases: list[Case], folder: Path, capfd) -> int:
    tried: set[tuple[str, str]] = set()
    return sum(check(case, folder, capfd, tried) for case in cases)


def test_300_bad_command_lines_are_refused_in_a_line_each_and_write_nothing(folder, capfd):
    some, every = random.Random(0), every_case()
    cases = [
        case
        for name in ENTRIES
        for case in some.sample([case for case in every if case.entry == name], 32)
    ]
    assert try_all(cases, folder, capfd) > 300


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_option_with_every_value(folder, capfd, entry):
    cases = [case for case in every_case() if case.entry == entry]
    assert try_all(cases, folder, capfd) > len(cases) / 2


PLAIN = [["pp"], ["pqn "], ["trian"], ["-v"], ["--version"], ["", ""], ["envs", "--json"], [LONG]]


@pytest.mark.parametrize("words", PLAIN, ids=lambda words: " ".join(words)[:9])
def test_a_command_that_there_is_not_is_refused_in_a_line(monkeypatch, folder, capfd, words):
    monkeypatch.setattr("sys.argv", ["jaxrl", *words])
    monkeypatch.setattr("sys.path", [*os.sys.path])  # pyright: ignore
    code, said = outcome(Entry(lambda _: console.main(), object), [], capfd)
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1, said


BOXES = {"observation_space": Box(-1.0, 1.0, (3,)), "action_space": Discrete(2)}
SIZES = (0, -1, 2**31, 10**30, 1.5, float("nan"), True, "8", None)
IN_PYTHON = [
    *(("id", partial(envs.make, id)) for id in ("", "x", "a\0b", LONG, "..", ":", "a:", "\udcff")),
    *(("num_envs", partial(envs.make_vec, "CartPole-v1", x)) for x in SIZES),
    *(("num_steps", partial(check_env, None, num_steps=x)) for x in SIZES),  # pyright: ignore
    *(("seed", partial(check_env, None, seed=x)) for x in (-1, 2**31)),  # pyright: ignore
    *(("hidden", partial(NetworkSpec, **BOXES, hidden=(x,))) for x in SIZES),
    ("hidden", partial(NetworkSpec, **BOXES, hidden=[64])),
    ("activation", partial(NetworkSpec, **BOXES, activation="x")),
    *(("network", partial(NetworkSpec, **BOXES, network=x)) for x in ("", ".x:Y", "x:", "a..b:C")),
    ("squash", partial(NetworkSpec, **BOXES, squash=1)),
]
CONFIGS = {
    f"{name}-{f.name}": (algorithm, f.name)
    for name, algorithm in ((name, table.trainer(name).algorithm) for name in table.TRAINERS)
    for f in dataclasses.fields(algorithm.Config)
}


@pytest.mark.parametrize(("name", "call"), IN_PYTHON)
def test_what_is_called_in_python_with_bad_values_says_so_in_one_line(name, call):
    with pytest.raises(ValueError) as error:
        call()
    said = str(error.value)
    assert "\n" not in said and (name in said or name == "id"), said


@pytest.mark.parametrize(("algorithm", "name"), CONFIGS.values(), ids=CONFIGS)
def test_no_field_of_an_algorithm_takes_what_is_no_value_of_its_type(algorithm, name):
    for value in (float("nan"), float("inf"), 10**400, "x", [64], object(), -(2**31), 1e39, b"1"):
        if (
            isinstance(getattr(algorithm.Config(), name), str)
            and value == "x"
            and name == "network"
        ):
            continue  # a name that is looked up with the environment
        with pytest.raises(ValueError) as error:
            algorithm.Config(**{name: value})
        assert "\n" not in str(error.value) and name in str(error.value), error.value

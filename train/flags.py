"""Command lines: options from flags, or from the run that is resumed."""

import contextlib
import dataclasses
import inspect
import io
import os
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from jaxrl import envs, files
from jaxrl.envs.fields import fields_of
from jaxrl.train import edge, paths
from jaxrl.train.devices import check_platforms
from jaxrl.train.run_folder import read_config, run_options
from jaxrl.train.trainer import Trainer

A = TypeVar("A")


def parse_fields(pairs: Sequence[str]) -> dict[str, Any]:
    """{"length": 20} from ["length=20"]; numbers, true, false, none and text."""
    fields = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name.isidentifier():
            raise ValueError(f"env_args={pair} must be NAME=VALUE; try length=20.")
        if name in fields:
            raise ValueError(f"env_args={' '.join(pairs)} has {name} twice; give it once.")
        fields[name] = _value(text)
    return fields


def reads_data(env_id: str) -> bool:
    """Whether `--data` names the environment's own rows, not conversations to imitate."""
    return "data" in fields_of(envs.spec(env_id).constructor)


def env_fields(args: Any) -> dict[str, Any]:
    """The fields that a trainer's options give the environment: `--env-args`, and its `--data`."""
    fields = parse_fields(args.env_args)
    if not hasattr(args, "data") or not reads_data(args.env):
        return fields
    field = fields_of(envs.spec(args.env).constructor)["data"]
    if args.data is None and field.default is not inspect.Parameter.empty and "data" not in fields:
        return fields
    if args.data is None or "data" in fields:
        raise ValueError(
            f"env={args.env} needs a file of rows; try --data FILE.jsonl, and no data= in env_args."
        )
    return fields | {"data": str(args.data)}


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


SHORT = {
    "--policy": "--algo.network",
    "--total-steps": "--algo.total-steps",
    "--num-envs": "--algo.num-envs",
    "--algo.answer-tokens": "--algo.feedback-tokens",
}


def parse(trainer: Trainer, argv: Sequence[str]) -> Any:
    """A trainer's options from flags on top of a preset's, or of those of the run to resume.

    Raises ValueError, in one line, for bad values.
    """
    paths.check(trainer.options, words_by_flag(argv))
    default = start(trainer, argv)
    known = _flags_of(trainer.options)
    notes = [f"{short} is short for {full}" for short, full in SHORT.items() if full in known]
    words = f"{trainer.description}\n{'; '.join(notes)}"
    program = f"python -m train.{trainer.name}"
    return cli(trainer.options, words, argv, default=default, prog=program)


def start(trainer: Trainer, argv: Sequence[str]) -> Any:
    """What the flags change: the options of the run to resume, of a file, or of a preset."""
    resumed, preset = flag_value(argv, "--resume"), flag_value(argv, "--preset")
    if resumed is not None:
        for flag in ("--run-dir", "--config"):
            if flag_value(argv, flag) is not None:
                raise ValueError(f"resume={resumed} has its folder and options; leave {flag} out.")
        return saved_options(trainer, Path(resumed))
    if (config := flag_value(argv, "--config")) is not None:
        return config_options(trainer, Path(config), preset)
    return preset_options(trainer, preset)


def preset_options(trainer: Trainer, preset: str | None) -> Any:
    """A trainer's options by default, with those of a preset."""
    default = trainer.options()
    if preset is None or not hasattr(default, "preset"):
        return default
    if preset not in trainer.presets:
        known = ", ".join(sorted(trainer.presets))
        raise ValueError(f"preset={preset} is none of train.{trainer.name}; try {known}.")
    return dataclasses.replace(default, preset=preset, algo=trainer.presets[preset])


OF_RUN = ("run_dir", "resume", "config", "devices", "hosts")  # not of what it computes


def read_options(file: Path) -> tuple[str | None, dict[str, Any]]:
    """(trainer, options) of a file for `--config`: a run's config.json, best.json, or one's own.

    One's own has the options alone, as {"env": "Pendulum-v1", "algo": {"gamma": 0.95}}.
    """
    with files.reading(file):
        content = files.read_json(file)
        if not isinstance(content.get("options"), dict):
            return None, content
        made_by = files.as_type(str | None, content.get("trainer"), f"{file}: trainer")
        return made_by, {k: x for k, x in content["options"].items() if k not in OF_RUN}


def config_options(trainer: Trainer, file: Path, preset: str | None = None) -> Any:
    """The options that a file has, on top of those of the preset; ValueError for unknown ones."""
    made_by, options = read_options(file)
    if made_by not in (None, trainer.name):
        raise ValueError(f"config={file} was made by train.{made_by}, not by {trainer.name}.")
    for name in OF_RUN[:3]:
        if name in options:
            flag = name.replace("_", "-")
            raise ValueError(f"config={file} has the field {name}; give --{flag} itself instead.")
    with files.reading(file):
        preset = preset or files.as_type(str | None, options.get("preset"), f"{file}: preset")
        default = run_options(preset_options(trainer, preset))
        for name, value in options.items():
            inner = default.get(name)
            if isinstance(inner, dict) and isinstance(value, dict):
                value = inner | value
            default[name] = value
        return files.as_type(trainer.options, default, str(file))


def _flags_of(options: type[Any]) -> set[str]:
    """Its flags below `--algo`."""
    algo = typing.get_type_hints(options)["algo"]
    return {f"--algo.{f.name.replace('_', '-')}" for f in dataclasses.fields(algo)}


def saved_options(trainer: Trainer, folder: Path) -> Any:
    """The options that a run folder was started with, without those of its machines."""
    options = read_config(folder)["options"]
    options.pop("hosts", None)
    options.pop("devices", None)  # a run that goes on keeps its layout, whatever was asked for
    file = folder / "config.json"
    with files.reading(file, "start a new run with --run-dir"):
        return files.as_type(trainer.options, options, f"{file}: options")


def run(
    args_type: type[A], description: str, argv: Sequence[str], main: Callable[[A], Any]
) -> None:
    """main(options), with one line and exit code 2 for bad input."""

    def work() -> None:
        args = cli(args_type, description, argv)
        check_platforms()
        main(args)

    edge.command(work)


def _program(args_type: type[Any]) -> str | None:
    """`python -m train.NAME` for a tool's options, from whichever folder; None for others."""
    spec = getattr(sys.modules.get(args_type.__module__), "__spec__", None)
    package, _, name = (spec.name if spec else args_type.__module__).rpartition(".")
    return f"python -m train.{name}" if package in ("train", "jaxrl.train") else None


def cli(args_type: type[A], description: str, argv: Sequence[str], **how: Any) -> A:
    """`tyro.cli`, but a ValueError in one line for what it refuses."""
    output = io.StringIO()
    if argv and argv[0].startswith("--tyro-"):  # a script for all words of `python -m ...`
        raise ValueError(f"{argv[0]} is an option of the command jaxrl: jaxrl {' '.join(argv)}.")
    paths.check(args_type, words_by_flag(argv))
    check_lists(args_type, argv)
    how.setdefault("prog", _program(args_type))
    try:
        with contextlib.redirect_stderr(output):
            return tyro.cli(args_type, description=description, args=list(argv), **how)
    except BrokenPipeError:
        os._exit(0)
    except SystemExit as stopped:
        if not stopped.code:
            raise
        raise ValueError(_check_that_failed(stopped) or _one_line(output.getvalue())) from None


def _check_that_failed(stopped: BaseException) -> str | None:
    """The message of the option's own check that made tyro stop, None if it was tyro's own."""
    error = stopped.__context__
    while error is not None:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        module = trace.tb_frame.f_globals["__name__"] if trace else ""
        if isinstance(error, ValueError) and module.split(".")[0] != "tyro":
            return str(error)
        error = error.__context__
    return None


def _one_line(box: str) -> str:
    """What tyro says in a box of several lines, without its title and footer.

    Where the output is not UTF-8 the box has no frame: its title is then a part like the others.
    """
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    text = " ".join(line if line.strip("─-") else "\n" for line in lines)
    parts = [part.strip() for part in text.split("\n") if part.strip()]
    output = parts if "╭" in box else parts[1:]
    return "; ".join(part for part in output if "full helptext" not in part)


def words_by_flag(argv: Sequence[str]) -> dict[str, str | None]:
    """{"--env": "Pendulum-v1"}: each flag with what follows it; the last one of several counts."""
    found: dict[str, str | None] = {}
    for i, word in enumerate(argv):
        if not word.startswith("--"):
            continue
        name, separator, value = word.partition("=")
        follows = [x for x in argv[i + 1 : i + 2] if not x.startswith("--")]
        found[name] = value if separator else next(iter(follows), None)
    return found


def check_lists(options: type[Any], argv: Sequence[str]) -> None:
    """ValueError for a list of texts given in two parts, of which the first would be lost."""
    for name, hint in typing.get_type_hints(options).items():
        flag = "--" + name.replace("_", "-")
        if typing.get_origin(hint) in (tuple, list) and argv.count(flag) > 1:
            raise ValueError(f"{name} is given twice; give all of them behind one {flag}.")


def full_names(argv: Sequence[str]) -> list[str]:
    """The command line with every flag's name in full, and all that is to be swept in one list."""
    words, found, swept = [_full_name(word) for word in argv], [], []
    taking = False
    for word in words:
        flag, separator, value = word.partition("=")
        if flag == "--sweep":
            taking = not separator
            swept += ["--sweep"] if not swept else []
            swept += [value] if separator else []
            continue
        taking = taking and not word.startswith("--")
        (swept if taking else found).append(word)
    return found + swept


def _full_name(word: str) -> str:
    """A flag's name with hyphens, in full where it has a short form; other words as they are."""
    if not word.startswith("--"):
        return word
    name, separator, value = word.partition("=")
    name = name.replace("_", "-")
    return SHORT.get(name, name) + separator + value


def flag_value(argv: Sequence[str], flag: str) -> str | None:
    """The value of the last `--flag VALUE` or `--flag=VALUE`, None without."""
    return words_by_flag(argv).get(flag)


def without(argv: Sequence[str], *flags: str) -> list[str]:
    """The command line without these flags and their values."""
    left, skip = [], False
    for word in argv:
        if not skip and word.split("=", 1)[0] not in flags:
            left.append(word)
        skip = not skip and word in flags
    return left

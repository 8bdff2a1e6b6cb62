"""Command lines: options from flags, or from the run that is resumed."""

import dataclasses
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from train.run_folder import read_config

A = TypeVar("A")


def parse_fields(pairs: Sequence[str]) -> dict[str, Any]:
    """{"length": 20} from ["length=20"]; numbers, true, false, none and text."""
    fields = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise ValueError(f"env_args={pair} must be NAME=VALUE; try length=20.")
        fields[name] = _value(text)
    return fields


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


def parse(args_type: type[A], description: str, presets: dict[str, Any], argv: Sequence[str]) -> A:
    """Options from flags on top of a preset's, or on top of those of the run to resume.

    Exits with code 2 and one line for bad values.
    """
    try:
        default = args_type()
        resumed, preset = flag_value(argv, "--resume"), flag_value(argv, "--preset")
        if resumed is not None:
            default = from_options(args_type, read_config(Path(resumed))["options"])
        elif preset is not None:
            if preset not in presets:
                raise ValueError(f"preset={preset} is none; try {', '.join(sorted(presets))}.")
            default = dataclasses.replace(default, algo=presets[preset])  # pyright: ignore
        args = tyro.cli(args_type, description=description, default=default, args=list(argv))
        return settle(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def settle(args: A) -> A:
    """--total-steps and --num-envs moved into the algorithm's options, where they belong."""
    common = {
        name: getattr(args, name)
        for name in ("total_steps", "num_envs")
        if getattr(args, name) is not None
    }
    algo = dataclasses.replace(args.algo, **common)  # pyright: ignore
    return dataclasses.replace(args, algo=algo, total_steps=None, num_envs=None)  # pyright: ignore


def flag_value(argv: Sequence[str], flag: str) -> str | None:
    """The value of `--flag VALUE` or `--flag=VALUE`, None without."""
    for i, word in enumerate(argv):
        if word == flag and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(flag + "="):
            return word.split("=", 1)[1]
    return None


def from_options(args_type: type[A], options: dict[str, Any]) -> A:
    """A dataclass of options from config.json; ValueError for a field it does not have."""
    hints = typing.get_type_hints(args_type)
    known = {f.name for f in dataclasses.fields(args_type)}  # pyright: ignore
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ValueError(f"config.json has the option {unknown[0]}, which this version does not.")
    return args_type(**{name: _from_json(hints[name], value) for name, value in options.items()})


def _from_json(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_options(hint, value)  # pyright: ignore
    if isinstance(value, list):
        return tuple(value)
    if Path in (hint, *typing.get_args(hint)) and value is not None:
        return Path(value)
    return value

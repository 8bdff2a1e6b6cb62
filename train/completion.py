"""Shell completion: `jaxrl --tyro-print-completion bash` prints a script, zsh and tcsh too.

It is tyro's and holds every option of every command, so that a TAB imports nothing of ours.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro

from jaxrl.train import table

FLAGS = ("--tyro-print-completion", "--tyro-write-completion")


@dataclasses.dataclass(frozen=True)
class Plain:
    """Of a tool whose options are not a dataclass."""


def options_of(name: str) -> type[Any]:
    """The dataclass of a command's options."""
    if name in table.TRAINERS:
        return table.trainer(name).options
    if name == "envs":
        return Plain
    return vars(importlib.import_module(f"jaxrl.train.{name}")).get("Args", Plain)


def write(argv: Sequence[str]) -> None:
    """Print or write the script, as tyro's flags in `argv` say; ends the process."""
    rows = table.TRAINERS | table.TOOLS
    commands = tuple(
        Annotated[options_of(name), tyro.conf.subcommand(name, description=line)]
        for name, line in rows.items()
    )
    every: Any = Union[commands]  # noqa: UP007 -- of as many as there are
    tyro.cli(every, prog="jaxrl", args=list(argv))

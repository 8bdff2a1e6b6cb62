"""Shell completion: `jaxrl --tyro-write-completion bash FILE` writes a script, zsh's too.

It is tyro's and holds every option of every command, so that a TAB imports nothing of ours.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro

from jaxrl.train import table

SHELLS = ("bash", "zsh", "tcsh", "fish")


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
    flag, shell, *file = (*argv, "", "")[: max(len(argv), 2)]
    if shell not in SHELLS or len(file) != ("write" in flag):
        raise ValueError(
            f"{' '.join(argv)} must be --tyro-print-completion SHELL or --tyro-write-completion "
            f"SHELL FILE, with one of {', '.join(SHELLS)}; try --tyro-print-completion bash."
        )
    rows = table.TRAINERS | table.TOOLS
    commands = tuple(
        Annotated[options_of(name), tyro.conf.subcommand(name, description=line)]
        for name, line in rows.items()
    )
    every: Any = Union[commands]  # noqa: UP007 -- of as many as there are
    tyro.cli(every, prog="jaxrl", args=list(argv))

"""Read a language agent's episodes in the terminal: `python -m train.transcripts --run DIR`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxrl.config import check_fields
from jaxrl.files import as_type, parse_json, read_text
from jaxrl.printable import printable
from jaxrl.train import flags
from jaxrl.train.paths import Folder


@dataclass(frozen=True)
class Args:
    run: Folder  # the run's folder
    last: int = 4  # how many episodes, the newest ones
    iteration: int | None = None  # of this iteration only
    failed: bool = False  # only episodes without success

    def __post_init__(self):
        check_fields(self)
        if self.last < 1:
            raise ValueError(f"last={self.last} must be at least 1; try 4.")


EPISODE: dict[str, Any] = {
    "iteration": int, "seed": int, "prompt": int, "sample": int, "return": float | None,
    "ended": str, "metrics": dict[str, float | None], "turns": list[dict],
}  # fmt: skip
TURN: dict[str, Any] = {
    "observation": str, "response": str, "reward": float | None, "cut": bool
}  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    """The episodes of a run, oldest first; ValueError names the first line that is broken.

    What stands after the last newline is left out: a run may be writing it.
    """
    episodes = []
    for number, line in enumerate(read_text(path).split("\n")[:-1], 1):
        where = f"{path}, line {number}"
        episode = _typed(EPISODE, parse_json(line, where), where)
        episode["turns"] = [
            _typed(TURN, turn, f"{where}: turns[{i}]") for i, turn in enumerate(episode["turns"])
        ]
        episodes.append(episode)
    return episodes


def _typed(hints: dict[str, Any], value: Any, where: str) -> dict[str, Any]:
    """An object's fields of these names and types."""
    found = as_type(dict, value, where)
    missing = sorted(hints.keys() - found.keys())
    if missing:
        raise ValueError(f"{where} has no field {missing[0]}.")
    between = "." if ": " in where else ": "
    return {
        name: as_type(hint, found[name], where + between + name) for name, hint in hints.items()
    }


def show(episode: dict[str, Any]) -> str:
    """One episode for a person: who said what, and what each turn paid."""
    lines = [
        f"-- iteration {episode['iteration']}, seed {episode['seed']}, prompt {episode['prompt']}, "
        f"sample {episode['sample']}: return {_number(episode['return'])}, "
        + _safe(episode["ended"])
        + "".join(f", {_safe(name)} {_number(x)}" for name, x in episode["metrics"].items())
    ]
    for number, turn in enumerate(episode["turns"], 1):
        lines.append(f"   env  | {_safe(turn['observation'])}")
        cut = "  (cut by the length limit)" if turn["cut"] else ""
        lines.append(f"{number:2} agent | {_safe(turn['response'])}{cut}")
        lines.append(f"         reward {_number(turn['reward'])}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"


def _safe(text: str) -> str:
    """As a part of the page, with nothing in it that a terminal would obey."""
    return printable(text).replace("\n", "\n        | ")


def chosen(args: Args) -> list[dict[str, Any]]:
    """The episodes that the options ask for; ValueError where there are none."""
    path = args.run / "transcripts.jsonl"
    if not path.is_file():
        raise ValueError(f"run={args.run} has no transcripts.jsonl; give a language agent's run.")
    episodes = read(path)
    if not episodes:
        raise ValueError(f"{path} holds no episodes; the run may have only begun.")
    if args.iteration is not None:
        kept = sorted({episode["iteration"] for episode in episodes})
        episodes = [e for e in episodes if e["iteration"] == args.iteration]
        if not episodes:
            raise ValueError(
                f"iteration={args.iteration} left no transcripts; there are some from {kept[0]} to "
                f"{kept[-1]}."
            )
    if args.failed:
        if any("success" not in episode["metrics"] for episode in episodes):
            raise ValueError("failed=True needs a metric `success`, which this environment lacks.")
        episodes = [episode for episode in episodes if not episode["metrics"]["success"]]
    return episodes[-args.last :]


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    flags.run(Args, __doc__ or "", argv, lambda args: print("\n\n".join(map(show, chosen(args)))))


if __name__ == "__main__":
    run(sys.argv[1:])

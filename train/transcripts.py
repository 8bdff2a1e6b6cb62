"""Read a language agent's episodes in the terminal: `python -m train.transcripts --run DIR`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxrl.config import check_fields
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


def show(episode: dict[str, Any]) -> str:
    """One episode for a person: who said what, and what each turn paid."""
    lines = [
        f"-- iteration {episode['iteration']}, seed {episode['seed']}, prompt {episode['prompt']}, "
        f"sample {episode['sample']}: return {episode['return']:g}, {episode['ended']}"
        + "".join(f", {name} {value:g}" for name, value in episode["metrics"].items())
    ]
    for number, turn in enumerate(episode["turns"], 1):
        lines.append(f"   env  | {_indented(turn['observation'])}")
        cut = "  (cut by the length limit)" if turn["cut"] else ""
        lines.append(f"{number:2} agent | {_indented(turn['response'])}{cut}")
        lines.append(f"         reward {turn['reward']:g}")
    return "\n".join(lines)


def _indented(text: str) -> str:
    return text.replace("\n", "\n        | ")


def chosen(args: Args) -> list[dict[str, Any]]:
    """The episodes that the options ask for; ValueError where there are none."""
    path = args.run / "transcripts.jsonl"
    if not path.is_file():
        raise ValueError(f"run={args.run} has no transcripts.jsonl; give a language agent's run.")
    episodes = [json.loads(line) for line in path.read_text().splitlines()]
    if args.iteration is not None:
        kept = sorted({episode["iteration"] for episode in episodes})
        episodes = [e for e in episodes if e["iteration"] == args.iteration]
        if not episodes:
            raise ValueError(
                f"iteration={args.iteration} left no transcripts; there are some from {kept[0]} to "
                f"{kept[-1]}."
            )
    if args.failed:
        if not any("success" in episode["metrics"] for episode in episodes):
            raise ValueError("failed=True needs a metric `success`, which this environment lacks.")
        episodes = [episode for episode in episodes if not episode["metrics"]["success"]]
    return episodes[-args.last :]


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    flags.run(Args, __doc__ or "", argv, lambda args: print("\n\n".join(map(show, chosen(args)))))


if __name__ == "__main__":
    run(sys.argv[1:])

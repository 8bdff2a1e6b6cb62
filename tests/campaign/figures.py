"""What a part of the campaign has counted, and the record of it in benchmarks/results/."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from campaign.processes import ROOT

T = TypeVar("T")

FILE = "JAXRL_CAMPAIGN"  # names the file that the figures are appended to, one JSON line a part
KINDS = ("hang", "traceback", "silent", "words", "differs")  # always told, even where there is none


@dataclass
class Figures:
    """Counts of one part, and its faults as a person wants to read them."""

    part: str
    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, str]] = field(default_factory=list)  # (kind, what happened)

    def case(self, kinds: Iterable[str], story: str, *counts: str) -> None:
        """One case: the kinds of its faults, how it can be told, and what else it counts as."""
        self.cases += 1
        self.counts.update(counts)
        self.faults += [(kind, story) for kind in kinds]

    def check(self) -> None:
        """AssertionError that tells every fault."""
        stories = "\n".join(f"{kind}: {story}" for kind, story in self.faults)
        assert not self.faults, f"{len(self.faults)} faults in {self.cases} cases\n{stories}"

    def record(self, seconds: float) -> dict[str, Any]:
        """As a line of the results."""
        if str(ROOT) not in sys.path:
            sys.path.append(str(ROOT))
        from benchmarks.record import machine, versions

        kinds = Counter(kind for kind, _ in self.faults)
        return {
            "part": self.part,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "cases": self.cases,
            "faults": {kind: 0 for kind in KINDS} | dict(kinds),
            "counts": dict(sorted(self.counts.items())),
            "seconds": round(seconds, 1),
            "versions": versions("jaxrl", "jax", "jaxlib", "orbax-checkpoint", "tensorboardX"),
            "machine": machine("cpu"),
        }


def measured(part: Callable[..., Figures], *args: Any, **options: Any) -> Figures:
    """A part's figures; written down where the environment names a file for them."""
    began = time.monotonic()
    figures = part(*args, **options)
    if FILE in os.environ:
        with Path(os.environ[FILE]).open("a") as file:
            file.write(json.dumps(figures.record(time.monotonic() - began)) + "\n")
    return figures


def side_by_side(work: Callable[[T], None], cases: Sequence[T], width: int = 2) -> None:
    """work(case) for each case, several at a time; each starts processes of its own."""
    with ThreadPoolExecutor(width) as pool:
        for _ in pool.map(work, cases):
            pass

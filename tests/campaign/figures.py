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
    """Counts of one part, and its faults."""

    part: str
    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)  # of faults; a case may have several
    faults: list[str] = field(default_factory=list)  # as a person wants to read them

    def case(self, kinds: Iterable[str], story: str, *counts: str) -> None:
        """One case: the kinds of its faults, how it can be told, and what else it counts as."""
        self.cases += 1
        self.counts.update(counts)
        found = list(dict.fromkeys(kinds))
        self.kinds.update(found)
        self.faults += [f"{', '.join(found)}: {story}"] if found else []

    def add(self, other: "Figures") -> None:
        """Those of a part of this part."""
        self.cases += other.cases
        self.counts.update(other.counts)
        self.kinds.update(other.kinds)
        self.faults += other.faults

    def check(self) -> None:
        """AssertionError that tells every fault."""
        stories = "\n".join(self.faults)
        assert not self.faults, f"{len(self.faults)} faults in {self.cases} cases\n{stories}"

    def record(self, seconds: float) -> dict[str, Any]:
        """As a line of the results."""
        if str(ROOT) not in sys.path:
            sys.path.append(str(ROOT))
        from benchmarks.record import machine, versions

        return {
            "part": self.part,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "cases": self.cases,
            "faults": {kind: 0 for kind in KINDS} | dict(self.kinds),
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
    """work(case) for each case, several at a time; one at a time in this thread."""
    if width == 1:
        for case in cases:
            work(case)
        return
    with ThreadPoolExecutor(width) as pool:
        for _ in pool.map(work, cases):
            pass

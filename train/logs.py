"""Lines of metrics, gathered over the chunks of a run, and the files of lines that it goes on with.

A chunk is as long as the machine likes, a line as long as the user: neither shows in the other.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.files import parse_json, write_text
from jaxrl.metrics import Metrics, Sums, hidden
from jaxrl.train.saving import LineFile

Spans = list[list[int]]  # [start, every, count]: lines at start + every, ..., start + every * count


class Lines:
    """The sums of the iterations since the last line, and which lines there have been.

    Added up one iteration after the other in float64, so that a line does not depend on how the
    run was cut into chunks, or where it was broken off.
    """

    def __init__(self, every: int, iteration: int = 0):
        self.every = every  # iterations of a line
        self.start = iteration  # of the line that is being gathered
        self.sums: dict[str, Sums] = {}  # float64 [K], of the iterations start+1 ..
        self.spans: Spans = []

    def add(self, host: Metrics, last: int, count: int, end: int) -> Iterator[tuple[int, dict]]:
        """(iteration, means [K]) of each line that the iterations last-count+1 .. last complete.

        `host` has leaves [count or more, K]; `end` is the run's last iteration, where a line ends
        too.
        """
        done = last - count
        while done < last:
            stop = min(max(self.start + self.every, done + 1), end)
            until = min(stop, last)
            self._gather(host, done - last + count, until - last + count)
            done = until
            if done == stop:
                means = divided(self.sums)
                extend(self.spans, self.start, done)
                self.sums, self.start = {}, done
                yield done, means

    def _gather(self, host: Metrics, start: int, end: int) -> None:
        for name, new in host.items():
            if not hidden(name):
                known = self.sums.get(name, (np.zeros(new.numerator.shape[1:]),) * 2)
                parts = zip(known, new, strict=True)
                self.sums[name] = Sums(*(_one_by_one(x, y[start:end]) for x, y in parts))

    def as_json(self) -> dict[str, Any]:
        """For a checkpoint's record: Python writes and reads a float64 in JSON exactly."""
        sums = {name: [np.asarray(x).tolist() for x in part] for name, part in self.sums.items()}
        return {"start": self.start, "sums": sums, "spans": self.spans}

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from what a checkpoint keeps; the lines that it knows are looked for elsewhere."""
        self.start = saved["start"]
        self.sums = {n: Sums(*(np.float64(x) for x in part)) for n, part in saved["sums"].items()}


def _one_by_one(before: Any, x: Any) -> Any:
    """before [K] + x[0] + x[1] + ..., in this order: np.sum adds pairs, wherever they begin."""
    return np.cumsum(np.concatenate([before[None], np.asarray(x, np.float64)]), 0)[-1]


def known_means(host: Metrics, start: int = 0, end: int | None = None) -> dict[str, np.ndarray]:
    """Means [K] over the iterations start .. end-1, NaN where a member's is unknown.

    Without those that are unknown of every member, and those that are not for showing.
    """
    shown = {name: sums for name, sums in host.items() if not hidden(name)}

    def total(x: Any) -> np.ndarray:
        return np.sum(np.asarray(x[start:end], np.float64), 0)

    return divided({name: Sums(*map(total, sums)) for name, sums in shown.items()})


def divided(sums: dict[str, Sums]) -> dict[str, np.ndarray]:
    """Means [K], NaN where a member's is unknown, without those that are unknown of every one."""
    means = {}
    for name, (over, under) in sums.items():
        if np.any(under > 0):
            means[name] = np.where(under > 0, over / np.where(under > 0, under, 1.0), np.nan)
    return means


def extend(spans: Spans, start: int, done: int) -> None:
    """Add the line of the iterations start+1 .. done."""
    if spans:
        first, every, count = spans[-1]
        if first + every * count == start and every == done - start:
            spans[-1][2] += 1
            return
    spans.append([start, done - start, 1])


def found(spans: Spans, kept: Sequence[int]) -> tuple[Spans, list[list[int]]]:
    """(the lines of `spans` whose iterations are `kept`, [first, last] iterations of the others)"""
    there, still, lost = set(kept), [], []
    for first, every, count in spans:
        for start in range(first, first + every * count, every):
            if start + every in there:
                extend(still, start, start + every)
            elif lost and lost[-1][1] == start:
                lost[-1][1] = start + every
            else:
                lost.append([start + 1, start + every])
    return still, lost


def whole_lines(path: Path) -> list[tuple[int, str]]:
    """(iteration, line) of each line up to the last newline: a killed run may leave half a line.

    What is no JSON object with an iteration is left out: somebody else wrote it, or a damaged disk.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [x for x in map(_iteration_of, lines) if x is not None]


def _iteration_of(line: bytes) -> tuple[int, str] | None:
    try:
        text = line.decode()
        iteration = parse_json(text, "")["iteration"]
    except (ValueError, TypeError, KeyError):
        return None
    return (iteration, text) if type(iteration) is int else None


def open_lines(path: Path, iteration: int) -> tuple[LineFile, list[int]]:
    """(a file of JSON lines open for appending, without those after `iteration`; theirs)"""
    kept = [x for x in whole_lines(path) if x[0] <= iteration]
    if path.exists():
        write_text(path, "".join(line + "\n" for _, line in kept))
    return LineFile(path), [i for i, _ in kept]

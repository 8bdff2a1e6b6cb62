"""Where a chunk's time goes: a trace that Perfetto opens, and a table of it."""

import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

# The `jax.named_scope`s of an iteration, by what the table calls them.
PARTS = ("prompt", "decode", "environment", "encode", "answer", "rollout", "learner", "optimiser")
FOLDER, TRACE, TABLE = "profile", "trace.json.gz", "table.txt"


class Profiler:
    """Traces the second call, when everything is warm, and leaves the others alone."""

    def __init__(self, folder: Path | None):
        self.folder = folder  # of the run; None where nothing is to be traced
        self.calls = 0

    @property
    def is_next(self) -> bool:
        """Whether the next call is the one that is traced."""
        return self.folder is not None and self.calls == 1

    def __call__(self, run: Callable, *args: Any) -> Any:
        """What `run(*args)` returns; the table is printed, both are kept in `profile/`."""
        traced, self.calls = self.is_next, self.calls + 1
        if not traced or self.folder is None:
            return run(*args)
        folder, self.folder = self.folder / FOLDER, None
        shutil.rmtree(folder, ignore_errors=True)
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            out = jax.block_until_ready(run(*args))
        (found,) = folder.rglob("*.xplane.pb")
        text: str = run.as_text()  # pyright: ignore
        lines = table(self_times(found), parts_of_ops(text))
        (folder / TABLE).write_text(lines + "\n")
        for trace in folder.rglob("perfetto_trace.json.gz"):
            shutil.move(trace, folder / TRACE)
        print(f"\n{lines}\ntrace for https://ui.perfetto.dev: {folder / TRACE}", flush=True)
        return out


def part_of(scopes: str) -> str:
    """The part of an iteration that an operation with this path of scopes belongs to."""
    names = re.split(r"[/()]+", scopes)
    part = next((name for name in reversed(names) if name in PARTS), "other")
    if part == "learner":
        return "learner backward" if "transpose" in names else "learner forward"
    return part


def parts_of_ops(hlo: str) -> dict[str, str]:
    """The part of every operation of a compiled program, by its name."""
    found = re.finditer(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name=\"([^\"]*)\"", hlo, re.MULTILINE)
    return {match[1]: part_of(match[2]) for match in found}


def self_times(path: Path) -> dict[str, float]:
    """Seconds of each operation in a trace, what ran inside of it left out."""
    total: dict[str, float] = defaultdict(float)
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for name, nanoseconds in _own(_operations(line)):
                total[name] += nanoseconds / 1e9
    return total


def _operations(line: Any) -> list[tuple[float, float, str]]:
    """(start, end, name) of the operations of one thread or stream."""
    found = []
    for event in line.events:
        name = next((str(value) for key, value in event.stats if key == "hlo_op"), None)
        if name is not None and event.duration_ns > 0:
            found.append((event.start_ns, event.start_ns + event.duration_ns, name))
    return sorted(found, key=lambda x: (x[0], -x[1]))


def _own(operations: list[tuple[float, float, str]]) -> Iterator[tuple[str, float]]:
    """(name, ns that none of the operations inside of it took)."""
    around: list[list[Any]] = []  # those that are open: [end, name, own]
    for start, end, name in operations:
        while around and around[-1][0] <= start:
            yield tuple(around.pop()[1:])
        if around:
            around[-1][2] -= min(end, around[-1][0]) - start
        around.append([end, name, end - start])
    for _, name, own in around:
        yield name, own


def table(seconds: dict[str, float], parts: dict[str, str]) -> str:
    """Parts with their time and share, the largest first, and the operations that took most."""
    of_part: dict[str, float] = defaultdict(float)
    for name, spent in seconds.items():
        of_part[parts.get(name, "other")] += spent
    whole = sum(of_part.values()) or 1.0
    rows = sorted(of_part.items(), key=lambda x: -x[1])
    lines = [f"{'part':<18}{'s':>10}{'share':>8}"]  # of every thread, added up
    lines += [f"{part:<18}{spent:>10.3f}{spent / whole:>8.1%}" for part, spent in rows]
    return "\n".join(lines)

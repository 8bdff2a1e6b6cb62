"""What the terminal shows while a run compiles and trains, and at its end."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxrl.train import stop
from jaxrl.train.swept import table
from jaxrl.train.trainer import Task

LOG_SECONDS = 30.0  # between two lines of a log


class Progress:
    """A bar of environment steps or episodes; silent on every process but the first.

    A log has no line that is rewritten: without a terminal it is a hundred lines at most.
    """

    def __init__(self, total: int, unit: str = "step", *, shows: bool):
        self.shows = shows
        self._bar: tqdm | None = None
        self._total, self._unit, self._start = total, unit, 0
        self._began = self._said_at = time.monotonic()
        self._percent = -1  # that was said last

    def resumed(self, done: int) -> None:
        """The run goes on from here; to be said before the first `update`."""
        self._start, self._began = done, time.monotonic()

    def phase(self, text: str) -> "Phase":
        """A context that says what is going on and, at its end, how long it took."""
        return Phase(text, self.shows)

    def update(self, env_steps: int, episode_return: float | None, note: str = "") -> None:
        """Move the bar to `env_steps` of each seed; a note stands where there is no return."""
        if not self.shows:
            return
        if episode_return is not None:
            note = f"return {told(episode_return)}"
        if not sys.stderr.isatty():
            return self._log(env_steps, note)
        if self._bar is None:
            stop.open_line = True
            self._bar = tqdm(
                total=self._total,
                initial=self._start,
                unit=f" {self._unit}",
                unit_scale=True,
                dynamic_ncols=True,
                desc="train",
                mininterval=0.2,
                bar_format=bar_format(width()),
            )
        self._bar.bar_format = bar_format(width())
        if note != self._bar.postfix:
            self._bar.set_postfix_str(note, refresh=env_steps == self._bar.n)
        self._bar.update(env_steps - self._bar.n)

    def _log(self, env_steps: int, note: str) -> None:
        now, percent = time.monotonic(), 100 * env_steps // self._total
        first_or_last = self._percent < 0 or percent == 100
        if percent > self._percent and (first_or_last or now - self._said_at >= LOG_SECONDS):
            self._percent, self._said_at = percent, now
            pace = (env_steps - self._start) / max(now - self._began, 1e-3)
            words = f"train {percent:3}%: {env_steps:,} of {self._total:,} {self._unit}s, "
            words += f"{pace:,.0f} a second" + (f", {note}" if note else "")
            print(words, file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self.shows:
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            stop.open_line = False


def width() -> int:
    """Columns of the terminal that is written to."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):  # it is none, or no file at all
        return 80


def bar_format(columns: int) -> str:
    """What there is room for: a line that is cut loses its end, where the return stands."""
    if columns < 60:
        return "train {percentage:.0f}% [{remaining}]{postfix}"
    done = "train {percentage:3.0f}%|{bar:BAR}| {n_fmt}/{total_fmt}"
    if columns < 80:
        return done.replace("BAR", "8") + " [{remaining}]{postfix}"
    bar = str(min(columns - 77, 40))
    return done.replace("BAR", bar) + "{unit}s [{elapsed}<{remaining}, {rate_fmt}]{postfix}"


class Phase:
    """`compile ... 5.1 s` on one line, which a terminal need not break."""

    def __init__(self, text: str, shows: bool):
        room = width() - len(" ... 1234.5 s ")
        whole = len(text) <= room or not sys.stderr.isatty()
        self.text = text if whole else f"{text[: room - 2]}.."
        self.shows = shows
        self.seconds = 0.0

    def __enter__(self) -> "Phase":
        if self.shows:
            print(f"{self.text} ...", end="", file=sys.stderr, flush=True)
            stop.open_line = True
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._start
        if self.shows:
            stop.open_line = False
            print(f" {self.seconds:.1f} s", file=sys.stderr, flush=True)


def told(value: float) -> str:
    """A return: rewards of 0 and 1 have small ones, which one digit would hide."""
    return f"{value:.{1 if abs(value) >= 10 else 3}f}"


def report(summary: dict[str, Any], path: Path, task: Task) -> None:
    """The end of a run, for a person."""
    if "sweep" in summary:
        return report_sweep(summary, path, task)
    final, unit = summary["final_return"], task.unit
    low, high = final["ci95"]
    print(trained(summary, unit, f"{summary['num_seeds']} seed(s)"))
    print(
        f"final return: mean {told(final['mean'])}, IQM {told(final['iqm'])} "
        f"(95 % interval {told(low)} to {told(high)} over {final['ci95_over']})"
    )
    start = summary.get("before")
    for name, found in final["metrics"].items():
        if name == "success" and start is not None:
            print(f"success {start['success']:.3f} -> {found['mean']:.3f}")
        else:
            print(f"final {name}: {found['mean']:.3f}")
    print(f"curve: {path / 'curve.png'}\n{task.outcome.how_to_play.format(path)}")


def trained(summary: dict[str, Any], unit: str, members: str) -> str:
    """What was trained, and what it took: two lines, which fit 80 columns."""
    return (
        f"{summary['algo']} on {summary['env']}: {summary[f'env_{unit}']:,} {unit} x {members}\n"
        f"trained in {summary['run_s']:.1f} s ({summary[f'{unit}_per_s'] or 0:,} {unit}/s) after "
        f"{summary['compile_s']:.1f} s of compiling"
    )


def report_sweep(summary: dict[str, Any], path: Path, task: Task) -> None:
    """The end of a sweep: its configurations, best first."""
    print(trained(summary, task.unit, f"{summary['members']} members"))
    print(table(summary["sweep"]))
    print(f"compared: {path / 'sweep.png'}; all of it: {path / 'sweep.json'}")
    print(f"the best one: python -m train.{task.name} --config {path / 'best.json'}")

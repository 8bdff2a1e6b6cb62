"""What the terminal shows while a run compiles and trains, and at its end."""

import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxrl.train import stop
from jaxrl.train.swept import table
from jaxrl.train.trainer import Task


class Progress:
    """A bar of environment steps or episodes; silent on every process but the first."""

    def __init__(self, total: int, unit: str = "step", *, shows: bool):
        self.shows = shows
        self._bar: tqdm | None = None
        self._total, self._unit, self._start = total, unit, 0

    def resumed(self, done: int) -> None:
        """The run goes on from here; to be said before the first `update`."""
        self._start = done

    def phase(self, text: str) -> "Phase":
        """A context that says what is going on and, at its end, how long it took."""
        return Phase(text, self.shows)

    def update(self, env_steps: int, episode_return: float | None, note: str = "") -> None:
        """Move the bar to `env_steps` of each seed; a note stands where there is no return."""
        if not self.shows:
            return
        if self._bar is None:
            stop.open_line = True
            self._bar = tqdm(
                total=self._total,
                initial=self._start,
                unit=self._unit,
                unit_scale=True,
                dynamic_ncols=True,
                desc="train",
                mininterval=0.2 if sys.stderr.isatty() else 10.0,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}s "
                "[{elapsed}<{remaining}, {rate_fmt}]{postfix}",
            )
        if episode_return is not None:
            note = f"return {episode_return:.1f}"
        if note != self._bar.postfix:
            self._bar.set_postfix_str(note, refresh=env_steps == self._bar.n)
        self._bar.update(env_steps - self._bar.n)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self.shows:
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            stop.open_line = False


class Phase:
    """`compile ... 5.1 s` on one line."""

    def __init__(self, text: str, shows: bool):
        self.text, self.shows = text, shows
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


def report(summary: dict[str, Any], path: Path, task: Task) -> None:
    """The end of a run, for a person."""
    if "sweep" in summary:
        return report_sweep(summary, path, task)
    final, unit = summary["final_return"], task.unit
    low, high = final["ci95"]
    print(
        f"{summary['algo']} on {summary['env']}: {summary[f'env_{unit}']:,} {unit} x "
        f"{summary['num_seeds']} seed(s) in {summary['run_s']:.1f} s "
        f"({summary[f'{unit}_per_s'] or 0:,} {unit}/s) after "
        f"{summary['compile_s']:.1f} s of compiling"
    )
    print(
        f"final return: mean {final['mean']:.1f}, IQM {final['iqm']:.1f} "
        f"(95 % interval {low:.1f} to {high:.1f} over {final['ci95_over']})"
    )
    start = summary.get("before")
    for name, found in final["metrics"].items():
        if name == "success" and start is not None:
            print(f"success {start['success']:.3f} -> {found['mean']:.3f}")
        else:
            print(f"final {name}: {found['mean']:.3f}")
    print(f"curve: {path / 'curve.png'}\n{task.outcome.how_to_play.format(path)}")


def report_sweep(summary: dict[str, Any], path: Path, task: Task) -> None:
    """The end of a sweep: its configurations, best first."""
    print(
        f"{summary['algo']} on {summary['env']}: {summary[f'env_{task.unit}']:,} {task.unit} x "
        f"{summary['members']} members in {summary['run_s']:.1f} s "
        f"({summary[f'{task.unit}_per_s'] or 0:,} {task.unit}/s) after "
        f"{summary['compile_s']:.1f} s of compiling"
    )
    print(table(summary["sweep"]))
    print(f"compared: {path / 'sweep.png'}; all of it: {path / 'sweep.json'}")
    print(f"the best one: python -m train.{task.name} --config {path / 'best.json'}")

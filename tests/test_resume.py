"""Runs that are killed, resumed or repeated: bit for bit the run never interrupted."""

import json
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from runs import checkpoints, finish, logged, start, wait_until

# Two seeds, each on two devices, so that both the split and the all-reduce are on the way.
FLAGS = (
    *("--env", "CartPole-v1", "--num-seeds", 2, "--devices", 4, "--eval-episodes", 2),
    *("--total-steps", 100_000, "--num-envs", 8, "--algo.num-steps", 16, "--algo.hidden", 8),
    *("--algo.normalize-obs", "--algo.normalize-reward"),
)
OFTEN = ("--checkpoint-every", 0.3)


@dataclass
class Stop:
    """How one of the processes of a run ended."""

    exit_code: int
    left: list[int]  # checkpoints when it had stopped


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """A folder for runs, and for the programs that they compile."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def fresh(shelf) -> list[Path]:
    """Two runs of one command, side by side; each compiles its program itself."""
    folders = [shelf / "first", shelf / "second"]
    processes = [
        start(shelf / f"cache-{f.name}", *FLAGS, "--run-dir", f, log=shelf / f"{f.name}.log")
        for f in folders
    ]
    codes = [finish(process) for process in processes]
    assert codes == [0, 0], (shelf / "first.log").read_text()
    return folders


def killed(folder: Path, shelf: Path, *how: object, after: int, delay=0.0) -> Stop:
    """Start or resume the run; killed once it has a checkpoint later than iteration `after`.

    With `after` < 0 it needs no checkpoint, only the first sign that the training has begun.
    """
    log = shelf / "killed.log"
    process = start(shelf / "cache-first", *how, log=log)
    if after < 0:
        wait_until(process, (folder / "metrics.jsonl").exists, log)
    else:
        wait_until(process, lambda: max(checkpoints(folder), default=0) > after, log)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    return Stop(finish(process), checkpoints(folder))


@pytest.fixture(scope="module")
def interrupted(fresh, shelf) -> tuple[Path, dict[str, Stop]]:
    """One run that was killed twice and went on."""
    folder, stops = shelf / "interrupted", {}
    start_it, resume = (*FLAGS, "--run-dir", folder), ("--resume", folder, *OFTEN)
    stops["early"] = killed(folder, shelf, *start_it, after=-1)
    moment = random.uniform(0.0, 0.3)
    print(f"killed {moment} s after a checkpoint")
    stops["late"] = killed(folder, shelf, *resume, after=0, delay=moment)
    leave_what_a_kill_may_leave(folder)
    process = start(shelf / "cache-first", *resume, log=shelf / "resumed.log")
    assert finish(process) == 0, (shelf / "resumed.log").read_text()
    return folder, stops


def leave_what_a_kill_may_leave(folder: Path) -> None:
    """Half a line of metrics and an unfinished checkpoint, newer than all others."""
    with (folder / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"iteration": 9')
    newest = folder / "checkpoints" / str(checkpoints(folder)[-1])
    shutil.copytree(newest, newest.with_name("9999.orbax-checkpoint-tmp"))


def same_result(a: Path, b: Path) -> None:
    """Every line of metrics, every weight and the evaluation, to the last bit."""
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    with np.load(a / "policy/weights.npz") as x, np.load(b / "policy/weights.npz") as y:
        assert x.keys() == y.keys() and len(x) > 8
        for name in x:
            assert x[name].dtype == y[name].dtype and x[name].tobytes() == y[name].tobytes(), name
    final = [json.loads((f / "summary.json").read_text())["final_return"] for f in (a, b)]
    assert final[0] == final[1]


def test_the_reference_run_learned(fresh):
    """Or equality would say little."""
    assert logged(fresh[0])[-1]["env_steps"] >= 100_000
    summary = json.loads((fresh[0] / "summary.json").read_text())
    assert summary["final_return"]["mean"] > 100


def test_two_fresh_processes_give_the_same_bytes(fresh):
    same_result(*fresh)


def test_a_run_killed_before_its_first_checkpoint_has_none_and_starts_over(interrupted):
    stop = interrupted[1]["early"]
    assert (stop.exit_code, stop.left) == (-signal.SIGKILL, [])


def test_a_killed_run_was_killed_before_its_end(interrupted, fresh):
    stop, end = interrupted[1]["late"], logged(fresh[0])[-1]["iteration"]
    assert stop.exit_code == -signal.SIGKILL and 0 < stop.left[-1] < end


def test_a_run_killed_twice_ends_as_if_it_had_never_been(interrupted, fresh):
    same_result(interrupted[0], fresh[0])


def test_a_run_that_was_resumed_compiled_nothing_again(interrupted, shelf):
    """Programs are kept by what they are: members' numbers and what was left to do are no part."""
    kept = list((shelf / "cache-first").glob("jit_run-*-cache"))
    assert len(kept) == 1

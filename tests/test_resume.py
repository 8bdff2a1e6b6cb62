"""Runs that are stopped, killed, resumed or repeated: bit for bit the run never interrupted."""

import json
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
from runs import checkpoints, finish, logged, start, wait_until

import envs
from jaxrl.env import Environment, timestep
from jaxrl.spaces import Box, Discrete
from train import flags, loop, ppo

# Two seeds, each on two devices, so that both the split and the all-reduce are on the way.
FLAGS = (
    *("--env", "CartPole-v1", "--num-seeds", 2, "--devices", 4, "--eval-episodes", 2),
    *("--total-steps", 200_000, "--num-envs", 8, "--algo.num-steps", 16, "--algo.hidden", 8),
    *("--algo.normalize-obs", "--algo.normalize-reward"),
)
OFTEN = ("--checkpoint-every", 0.3)


@dataclass
class Stop:
    """How one of the processes of a run ended."""

    exit_code: int
    saved: list[int]  # checkpoints when it was told to stop
    left: list[int]  # checkpoints when it had stopped
    words: str


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


def stopped(folder: Path, shelf: Path, signum: int, *how: object, after: int, delay=0.0) -> Stop:
    """Start or resume the run; `signum` once it has a checkpoint later than iteration `after`.

    With `after` < 0 it needs no checkpoint, only the first sign that the training has begun.
    """
    log = shelf / "stopped.log"
    process = start(shelf / "cache-first", *how, log=log)
    if after < 0:
        wait_until(process, (folder / "metrics.jsonl").exists, log)
    else:
        wait_until(process, lambda: max(checkpoints(folder), default=0) > after, log)
    time.sleep(delay)
    saved = checkpoints(folder)
    process.send_signal(signum)
    return Stop(finish(process), saved, checkpoints(folder), log.read_text())


@pytest.fixture(scope="module")
def interrupted(fresh, shelf) -> tuple[Path, dict[str, Stop]]:
    """One run that was killed, stopped by Ctrl-C, by SIGTERM, killed again, and went on."""
    folder, stops = shelf / "interrupted", {}
    start_it, resume = (*FLAGS, "--run-dir", folder), ("--resume", folder, *OFTEN)
    stops["early"] = stopped(folder, shelf, signal.SIGKILL, *start_it, after=-1)
    stops["ctrl-c"] = stopped(folder, shelf, signal.SIGINT, *resume, after=0)
    last = stops["ctrl-c"].left[-1]
    stops["sigterm"] = stopped(folder, shelf, signal.SIGTERM, *resume, after=last)
    last, moment = stops["sigterm"].left[-1], random.uniform(0.0, 0.5)
    print(f"killed {moment} s after a checkpoint")
    stops["killed"] = stopped(folder, shelf, signal.SIGKILL, *resume, after=last, delay=moment)
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
    assert logged(fresh[0])[-1]["env_steps"] >= 200_000
    summary = json.loads((fresh[0] / "summary.json").read_text())
    assert summary["final_return"]["mean"] > 100


def test_two_fresh_processes_give_the_same_bytes(fresh):
    same_result(*fresh)


def test_a_run_killed_before_its_first_checkpoint_has_none_and_starts_over(interrupted):
    stop = interrupted[1]["early"]
    assert (stop.exit_code, stop.left) == (-signal.SIGKILL, [])


@pytest.mark.parametrize(("how", "code"), [("ctrl-c", 130), ("sigterm", 143)])
def test_a_signal_saves_where_the_run_is_and_says_how_to_go_on(interrupted, how, code):
    folder, stops = interrupted
    assert stops[how].exit_code == code
    assert stops[how].left[-1] > stops[how].saved[-1]
    assert stops[how].words.rstrip().endswith(f"go on with --resume {folder}")


def test_a_killed_run_was_killed_before_its_end(interrupted, fresh):
    stop, end = interrupted[1]["killed"], logged(fresh[0])[-1]["iteration"]
    assert stop.exit_code == -signal.SIGKILL and stop.left[-1] < end


def test_a_run_stopped_and_killed_four_times_ends_as_if_it_had_never_been(interrupted, fresh):
    same_result(interrupted[0], fresh[0])


class Poisoned(Environment):
    """Nothing happens, but from step `poison` of an episode that never ends rewards are NaN."""

    poison: int = 100

    @property
    def observation_space(self):
        return Box(-1.0, 1.0, (1,))

    @property
    def action_space(self):
        return Discrete(2)

    def reset(self, key):
        x = jax.random.uniform(key, (1,))
        return (x, jax.numpy.zeros((), jax.numpy.int32)), timestep(x)

    def step(self, state, action, key):
        x, t = state
        reward = jax.numpy.where(t + 1 >= self.poison, jax.numpy.nan, 1.0)
        return (x, t + 1), timestep(x, reward)


def test_a_nan_stops_the_run_keeps_its_metrics_and_names_the_last_good_checkpoint(tmp_path, capfd):
    envs.register("test/Poisoned-v0", Poisoned)
    folder = tmp_path / "run"
    argv = ["--env", "test/Poisoned-v0", "--run-dir", str(folder), "--devices", "1"]
    argv += ["--total-steps", "4000", "--num-envs", "4", "--algo.num-steps", "8"]
    argv += ["--algo.num-epochs", "1", "--algo.num-minibatches", "1", "--algo.hidden", "8"]
    args = flags.parse(ppo.Args, "", ppo.PRESETS, [*argv, "--checkpoint-every", "1e-9"])
    with pytest.raises(SystemExit) as stop:
        loop.main(args, ppo.make_task)
    said = capfd.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1
    good = checkpoints(folder)[-1]
    assert 1 <= good <= 12 and f"last good checkpoint: {folder}/checkpoints/{good}." in said
    assert said.startswith("diverged: ") and "at iteration 13;" in said  # step 100 of 8 a time
    assert [line["iteration"] for line in logged(folder)] == list(range(1, 13))

"""A language agent's run that is killed and goes on: bit for bit the run never interrupted."""

import signal
from pathlib import Path

import numpy as np
import pytest
from runs import checkpoints, finish, logged, start, wait_until

# A critic, a warm start, a fading rehearsal and adapters, on two devices.
FLAGS = (
    *("--env", "language/GuessTheNumber-easy", "--env-args", "turns=2"),
    *("--model", "nano", "--devices", 2, "--algo.response-tokens", 4),
    *("--algo.num-prompts", 16, "--algo.num-lanes", 16, "--algo.micro-batch", 4),
    *("--algo.num-minibatches", 2, "--algo.sft-steps", 3, "--algo.sft-episodes", 16),
    *("--algo.sft-coef", 0.1, "--algo.total-episodes", 480, "--lora-rank", 2),
    *("--eval-episodes", 8, "--checkpoint-every", 0.3),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """(one that ran through, one that was killed after a checkpoint and resumed)"""
    shelf = tmp_path_factory.mktemp("runs")
    whole, killed = shelf / "whole", shelf / "killed"
    process = start(shelf / "cache", *FLAGS, "--run-dir", whole, log=shelf / "whole.log")
    assert finish(process) == 0, (shelf / "whole.log").read_text()
    log = shelf / "killed.log"
    process = start(shelf / "cache", *FLAGS, "--run-dir", killed, log=log)
    wait_until(process, lambda: max(checkpoints(killed), default=0) > 3, log)
    process.send_signal(signal.SIGKILL)
    assert finish(process) == -signal.SIGKILL
    assert 3 < checkpoints(killed)[-1] < logged(whole)[-1]["iteration"]
    process = start(shelf / "cache", "--resume", killed, log=log)
    assert finish(process) == 0, log.read_text()
    return whole, killed


@pytest.mark.parametrize("name", ["metrics.jsonl", "transcripts.jsonl"])
def test_what_was_logged_is_the_same(runs, name):
    whole, killed = runs
    assert (whole / name).stat().st_size > 1000
    assert (whole / name).read_bytes() == (killed / name).read_bytes()


def test_every_weight_is_the_same(runs):
    whole, killed = runs
    with np.load(whole / "policy/weights.npz") as x, np.load(killed / "policy/weights.npz") as y:
        assert x.keys() == y.keys() and any("adapter" in name for name in x)
        assert all(x[name].tobytes() == y[name].tobytes() for name in x)

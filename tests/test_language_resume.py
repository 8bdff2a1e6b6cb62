"""A language agent's run that is killed and goes on: bit for bit the run never interrupted."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from runs import checkpoints, finish, logged, start, wait_until

pytestmark = pytest.mark.slow  # three runs of a large program; .ci/run has it

# A critic, a warm start, a fading rehearsal and adapters, on two devices.
FLAGS = (
    *("--env", "language/GuessTheNumber-easy", "--env-args", "turns=2"),
    *("--model", "nano", "--devices", 2),
    *("--algo.num-prompts", 16, "--algo.num-lanes", 16, "--algo.micro-batch", 4),
    *("--algo.num-minibatches", 2, "--algo.sft-steps", 3, "--algo.sft-episodes", 16),
    *("--algo.sft-coef", 0.1, "--algo.total-episodes", 640, "--lora-rank", 2),
    *("--eval-episodes", 8, "--checkpoint-every", 0.2),
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


def test_every_metric_is_the_same(runs):
    whole, killed = runs
    assert len(logged(whole)) == 43
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()


def test_what_was_scored_before_training_is_the_same_and_of_the_first_iteration_that_learned(runs):
    first = logged(runs[0])[3]
    for run in runs:
        told = json.loads((run / "summary.json").read_text())["before"]
        assert told["success"] == first["success"] and told["episodes"] == 16
        assert told["failed"].get("wrong", 0.0) == first.get("failed_wrong", 0.0)


def test_transcripts_of_the_same_iteration_are_the_same(runs):
    """Which iterations have some depends on how long they took: the last of every chunk does."""
    lines = [(run / "transcripts.jsonl").read_text().splitlines() for run in runs]
    by_iteration = [{(x["iteration"], x["prompt"]): x for x in map(json.loads, y)} for y in lines]
    assert (43, 0) in by_iteration[0]
    common = by_iteration[0].keys() & by_iteration[1].keys()
    assert len(common) >= 4
    assert all(by_iteration[0][key] == by_iteration[1][key] for key in common)


def test_episodes_are_counted_from_the_end_of_the_warm_start(runs):
    lines = logged(runs[0])
    counted = [line["env_episodes"] for line in lines]
    assert counted[:4] == [0, 0, 0, 16] and counted[-1] == 640


def test_every_weight_is_the_same(runs):
    whole, killed = runs
    with np.load(whole / "policy/weights.npz") as x, np.load(killed / "policy/weights.npz") as y:
        assert x.keys() == y.keys() and any("adapter" in name for name in x)
        assert all(x[name].tobytes() == y[name].tobytes() for name in x)

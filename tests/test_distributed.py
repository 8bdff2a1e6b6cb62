"""Two processes joined by jax.distributed: one run, as in one process with as many devices."""

import json
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from runs import checkpoints, finish, logged, start, wait_until

pytestmark = pytest.mark.slow

# One seed over all eight devices: its gradients cross from process to process.
FLAGS = (
    *("--env", "CartPole-v1", "--eval-episodes", 2, "--total-steps", 6_144),
    *("--num-envs", 16, "--algo.num-steps", 16, "--algo.hidden", 8, "--algo.normalize-obs"),
    *("--checkpoint-every", 0.5),
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("distributed")


def pair(shelf: Path, name: str, *flags: object) -> list:
    """The same command in two processes with four devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = ("--hosts.coordinator", address, "--hosts.num-processes", 2, "--hosts.process-id")
    return [
        start(shelf / "cache", *flags, *hosts, i, devices=4, log=shelf / f"{name}-{i}.log")
        for i in range(2)
    ]


def words(shelf: Path, name: str) -> str:
    return "\n".join((shelf / f"{name}-{i}.log").read_text() for i in range(2))


@pytest.fixture(scope="module")
def alone(shelf) -> Path:
    """One process with eight devices."""
    folder = shelf / "alone"
    log = shelf / "alone.log"
    flags = (*FLAGS, "--devices", 8, "--run-dir", folder)
    assert finish(start(shelf / "cache", *flags, devices=8, log=log)) == 0, log.read_text()
    return folder


@pytest.fixture(scope="module")
def together(shelf) -> Path:
    """Two processes with four devices each."""
    folder = shelf / "together"
    processes = pair(shelf, "together", *FLAGS, "--run-dir", folder)
    assert [finish(p) for p in processes] == [0, 0], words(shelf, "together")
    return folder


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "policy/weights.npz") as file:
        return dict(file)


def test_two_processes_write_one_run_like_one_process_with_all_devices(alone, together):
    """Rollouts are the same; gradients are summed in another order (measured: 3e-7 at the end)."""
    files = [{p.name for p in f.iterdir() if "tfevents" not in p.name} for f in (alone, together)]
    assert files[0] == files[1] and len(list(together.glob("*tfevents*"))) == 1
    config = json.loads((together / "config.json").read_text())
    assert config["processes"] == 2 and len(config["devices"]) == 8
    a, b = logged(alone), logged(together)
    assert len(a) == 24
    for name in ("iteration", "episodes", "episode_length", "truncated_share"):
        assert [line[name] for line in a] == [line[name] for line in b]
    for name, value in weights(alone).items():
        np.testing.assert_allclose(weights(together)[name], value, rtol=0, atol=1e-5)


def test_a_run_that_lost_a_process_stops_and_resumes_to_the_same_bytes(together, shelf):
    """The survivor does not hang for ever: jax.distributed ends it (measured: after 75 s)."""
    folder = shelf / "lost"
    first, second = pair(shelf, "lost", *FLAGS, "--run-dir", folder)
    wait_until(first, lambda: max(checkpoints(folder), default=0) > 0, shelf / "lost-0.log")
    second.kill()
    assert finish(second) == -signal.SIGKILL
    assert finish(first) != 0
    assert checkpoints(folder)[-1] < 24
    processes = pair(shelf, "resumed", "--resume", folder)
    assert [finish(p) for p in processes] == [0, 0], words(shelf, "resumed")
    assert (folder / "metrics.jsonl").read_bytes() == (together / "metrics.jsonl").read_bytes()
    for name, value in weights(together).items():
        assert weights(folder)[name].tobytes() == value.tobytes(), name


def test_a_folder_that_exists_is_refused_by_both_processes(together, shelf):
    processes = pair(shelf, "refused", *FLAGS, "--run-dir", together)
    assert [finish(p) for p in processes] == [2, 2], words(shelf, "refused")
    assert f"run_dir={together} exists" in words(shelf, "refused")

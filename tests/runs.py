"""Training runs in processes of their own, for tests that stop, kill, resume and compare them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENCE = 300  # s that a process may take


def start(cache: Path, *flags: object, devices: int = 4, log: Path) -> subprocess.Popen:
    """`python -m train.ppo` with these flags; compiled programs go to `cache`, words to `log`."""
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, "-m", "train.ppo", *map(str, flags)]
    with log.open("w") as words:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | settings, stdout=words, stderr=words
        )


def finish(process: subprocess.Popen) -> int:
    """Its exit code, in reasonable time."""
    try:
        return process.wait(PATIENCE)
    finally:
        process.kill()


def wait_until(process: subprocess.Popen, condition: Callable[[], bool], log: Path) -> None:
    """Returns when `condition` holds; AssertionError if the process ends before or takes long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended too early:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"nothing happened:\n{log.read_text()}"
        time.sleep(0.01)


def checkpoints(folder: Path) -> list[int]:
    """Iterations that have a checkpoint."""
    names = [p.name for p in (folder / "checkpoints").glob("*")]
    return sorted(int(name) for name in names if name.isdigit())


def logged(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

"""Processes in which a user's Python answers: spawned, without jax, ended where they hang."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, NamedTuple

WORKER = str(Path(__file__).with_name("worker.py"))
START_SECONDS = 120.0  # that importing the user's modules may take


class Reply(NamedTuple):
    """What came of a call: "ok" with its value; "error", "late", "died" and others with words."""

    kind: str
    value: Any


class Worker:
    """One process, asked by one thread: a call that takes too long costs it its life."""

    def __init__(self, deadline: float, requests: Sequence[tuple]):
        self.deadline = deadline
        self.first = requests  # asked of every process when it starts, without the deadline
        self.process: subprocess.Popen | None = None
        self.pipe: Any = None
        self.closed = False  # no process is started any more
        self.lock = threading.Lock()

    def start(self) -> None:
        ours, theirs = Pipe()
        # On a system with an accelerator that belongs to the trainer.
        settings = os.environ | {"JAX_PLATFORMS": "cpu"}
        with self.lock:
            if self.closed:
                raise EOFError
            self.pipe = ours
            self.process = subprocess.Popen(
                [sys.executable, "-P", WORKER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=settings,
                start_new_session=True,  # a Ctrl-C is the trainer's to hear, its children end too
            )
        theirs.close()
        ours.send(sys.path)
        for request in self.first:
            self.exchange(request, START_SECONDS)

    def call(self, request: tuple) -> Reply:
        """The answer; a process that is gone, or was ended, is replaced at the next call."""
        try:
            if self.process is None:
                self.start()
            return self.exchange(request, self.deadline)
        except (EOFError, OSError):
            return Reply("died", f"its process ended ({self.end(patience=1.0)})")

    def exchange(self, request: tuple, seconds: float) -> Reply:
        self.pipe.send((seconds, request))
        if not self.pipe.poll(seconds):
            self.end()
            return Reply("late", f"gave no answer within {seconds:g} s")
        return Reply(*self.pipe.recv())

    def end(self, patience: float = 0.0) -> str:
        """End the process and what it has started; how it ended, in words."""
        process, self.process = self.process, None
        if process is None:
            return "it was not running"
        self.pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        code = process.poll()
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (OSError, AttributeError):
            process.kill()
        process.wait()
        return f"exit code {code}" if code is not None else "killed"

    def close(self) -> None:
        """End the process for good; another thread may be about to start one."""
        with self.lock:
            self.closed = True
        self.end()


class Pool:
    """Workers, each with a thread that waits for it."""

    def __init__(self, count: int, deadline: float, first: Sequence[tuple] = ()):
        self.workers = [Worker(deadline, first) for _ in range(count)]
        self.threads = [ThreadPoolExecutor(1, "host") for _ in self.workers]

    def ask(self, index: int, *request: Any) -> Future[Reply]:
        """The answer to be, of the worker that this index always leads to."""
        place = index % len(self.workers)
        return self.threads[place].submit(self.workers[place].call, request)

    def close(self) -> None:
        """End all of them, at once."""
        for thread in self.threads:
            thread.shutdown(wait=False, cancel_futures=True)
        for worker in self.workers:
            worker.close()

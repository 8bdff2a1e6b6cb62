"""Commands in processes of their own: started, watched, signalled, and judged by what they say."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPENINGS = ("error: ", "stopped", "diverged: ")  # of the line that says why a command ended
TRACES = ("Traceback", "Fatal Python error", "Exception in thread", "Exception ignored")
TRACES += ("KeyboardInterrupt", "terminate called", "Segmentation fault")
HANGS = 10.0  # s of computing that a command which is refused may take at most
SAFE = 10**9  # s of computing that a command which trains may take


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    argv: tuple[str, ...]
    code: int  # exit code, or minus the signal that killed it
    out: str
    err: str
    seconds: float  # on the clock
    cpu: float  # s of computing, its children's too
    hung: bool = False  # it had to be killed

    @property
    def command(self) -> str:
        """For a shell."""
        return shlex.join(self.argv)

    @property
    def lines(self) -> list[str]:
        """Standard error line by line; a progress bar's states are lines too."""
        text = self.err.replace("\r", "\n")
        return [line.strip() for line in text.split("\n") if line.strip()]

    @property
    def reasons(self) -> list[str]:
        """The lines that say why it ended."""
        return [line for line in self.lines if line.startswith(OPENINGS)]


class Job:
    """A command that runs; its words go to files `words`.out and `words`.err."""

    def __init__(self, argv: Sequence[object], words: Path, cache: Path, cwd: Path = ROOT):
        self.argv = tuple(map(str, argv))
        self._out, self._err = words.with_suffix(".out"), words.with_suffix(".err")
        settings = {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        }
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                self.argv,
                cwd=cwd,
                env=os.environ | settings,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.started = time.monotonic()
        self.cpu = 0.0

    def over(self) -> bool:
        """It has ended, and its computing is known."""
        if self.process.returncode is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.cpu = usage.ru_utime + usage.ru_stime
        return self.process.returncode is not None

    def says(self, word: str) -> bool:
        """The word stands on its standard error."""
        return word in self._err.read_text(errors="replace")

    def wait_until(self, holds: Callable[[], bool], patience: float = 300.0) -> bool:
        """True once the condition holds; False where the command ended first, or took too long."""
        deadline = time.monotonic() + patience
        while not holds():
            if self.over() or time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def send(self, signum: int) -> bool:
        """False where it had ended already."""
        if self.over():
            return False
        self.process.send_signal(signum)
        return True

    def end(self, patience: float = 300.0) -> Ended:
        """Its end; it is killed, and has hung, where that takes longer than `patience` seconds."""
        deadline = time.monotonic() + patience
        while not self.over() and time.monotonic() < deadline:
            time.sleep(0.002)
        hung = not self.over()
        with contextlib.suppress(ProcessLookupError):  # what it started may still run
            os.killpg(self.process.pid, signal.SIGKILL)
        while not self.over():
            time.sleep(0.002)
        out, err = (file.read_text(errors="replace") for file in (self._out, self._err))
        seconds = time.monotonic() - self.started
        return Ended(self.argv, self.process.returncode, out, err, seconds, self.cpu, hung)


def module(name: str, *flags: object) -> list[object]:
    """The words of `python -m NAME ...`."""
    return [sys.executable, "-m", name, *flags]


def faults(ended: Ended, codes: Sequence[int], cpu: float = SAFE) -> list[str]:
    """What is wrong with an end that should have one of these exit codes; [] where nothing is.

    Whatever the code: no traceback, and it comes in time. With a code that is not 0 one line, the
    last one, says why, without a run of spaces.
    """
    found = []
    if ended.hung or ended.cpu > cpu:
        found.append("hang")
    if any(word in ended.err + ended.out for word in TRACES):
        found.append("traceback")
    if not ended.hung and ended.code not in codes:
        found.append("silent" if ended.code == 0 else f"exit code {ended.code}")
    elif ended.code > 0 and not found:
        if len(ended.reasons) != 1 or ended.lines[-1:] != ended.reasons:
            found.append("words")
        elif "  " in ended.reasons[0]:
            found.append("spaces")
    return found


def told(ended: Ended) -> str:
    """The command, its exit code and its last words, for a person who mends it."""
    last = (ended.lines or [ended.out.strip()])[-1]
    return f"{ended.command}\n    -> {ended.code} in {ended.seconds:.1f} s: {last[:300]}"

"""Why a run ends before its last iteration, and what a signal does at each moment of a process.

Python runs a signal's handler between two steps of its main thread: not while XLA compiles, and an
exception of one is lost inside a callback. So a command listens in a thread of its own, from before
jax is imported; this module needs nothing but Python.
"""

import atexit
import contextlib
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAVING = "saving after the current chunk, then stopping; once more to stop at once"
OURS = ("jaxrl", "envs", "train")


class Interrupted(Exception):
    """The run was asked to stop; its state is saved."""

    def __init__(self, signum: int, path: Path):
        super().__init__(f"stopped and saved; go on with --resume {path}")
        self.exit_code = 128 + signum


class Diverged(RuntimeError):
    """A loss or a parameter became NaN or infinite."""


class Stopped(RuntimeError):
    """What a run needs from its machine went away: a full disk, a file that is gone."""


class StopSignal:
    """Remembers a first signal in `signum` while a run trains; a second one acts at once.

    On a command line that is to leave with `words()`; in a process that only calls us, what its
    own handler does. In another thread than the main one such a process hears nothing.
    """

    def __init__(self, words: Callable[[], str], at_once: bool = False):
        self.words = words
        self.at_once = at_once  # there is nothing to save yet: the first one acts too
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if _command is not None:
            _command.training = self
        elif threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        if _command is not None:
            _command.training = None
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def remembers(self, signum: int) -> bool:
        """Whether this signal waits for the current chunk."""
        if self.at_once or self.signum:
            return False
        self.signum = signum
        write_line(SAVING)
        return True

    def _handle(self, signum: int, frame: object) -> None:
        del frame
        if not self.remembers(signum):
            signal.signal(signum, self._before[signum])
            signal.raise_signal(signum)


class _Command:
    """Listens to the signals of a process that is a command of ours, to its end."""

    def __init__(self):
        self.words: Callable[[], str] = lambda: "stopped; nothing was written"
        self.training: StopSignal | None = None
        self.partial: set[Path] = set()  # what is half written and goes away with the process
        self._leaving = False
        self._terminals = [fd for fd in (1, 2) if os.isatty(fd)]
        self._heard, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True, name="signals").start()
        self.take_signals()
        os.register_at_fork(after_in_child=_forget)
        atexit.register(_deaf)  # the first one to register is the last to be called

    def take_signals(self) -> None:
        for signum in SIGNALS:
            ignored = signal.getsignal(signum) is signal.SIG_IGN
            if not (ignored and signum == signal.SIGHUP):  # nohup
                signal.signal(signum, self._wait_for_the_end)

    def _wait_for_the_end(self, signum: int, frame: object) -> None:
        """The main thread writes nothing more once the other one is leaving."""
        del signum, frame
        while self._leaving:
            time.sleep(0.05)

    def _listen(self) -> None:
        while True:
            for signum in os.read(self._heard, 64):
                if signum in SIGNALS:
                    self._act(signum)

    def _act(self, signum: int) -> None:
        if signum == signal.SIGHUP:  # the terminal is gone: what is written to it fails
            for fd in self._terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        training = self.training
        if training is not None and training.remembers(signum):
            return
        self._leaving = True
        try:
            words = (training or self).words()
        except Exception as error:  # of a folder that cannot be listed any more
            words = f"stopped; what is saved cannot be seen ({error})"
        write_line(words)
        for path in list(self.partial):
            remove(path)
        os._exit(128 + signum)


_command: _Command | None = None


def listen() -> None:
    """From here to its end this process is a command: a signal ends it in one line.

    To be called again after what takes a signal for itself, as jax.distributed does.
    """
    global _command
    if _command is None:
        _command = _Command()
    else:
        _command.take_signals()


def is_command() -> bool:
    """Whether this process listens, and may be ended where it stands."""
    return _command is not None


def started_here() -> bool:
    """Whether Python was started for a command of ours: `python -m train.ppo`, or `jaxrl ppo`."""
    words = sys.orig_argv
    for i, word in enumerate(words[1:], 1):
        module = re.fullmatch(r"-[bBdEiIOPqsSuv]*m(.*)", word)
        if module:
            name = module[1] or "".join(words[i + 1 : i + 2])
            return name.split(".")[0] in OURS
        if not word.startswith("-") and words[i - 1] not in ("-W", "-X"):
            return Path(word).name == "jaxrl"
    return False


def leave_with(words: Callable[[], str]) -> None:
    """What a signal says from here on, where a command leaves at once."""
    if _command is not None:
        _command.words = words


@contextlib.contextmanager
def partial(path: Path) -> Iterator[None]:
    """`path` is half written in here: it goes away where a signal ends the process."""
    if _command is not None:
        _command.partial.add(path)
    try:
        yield
    finally:
        if _command is not None:
            _command.partial.discard(path)


def remove(path: Path) -> None:
    """A file or a folder, whatever is still being written into it."""
    for _ in range(3):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


open_line = False  # whether the terminal's line is unfinished, a bar or `compile ...`


def write_line(text: str) -> None:
    """A line on standard error, from any thread, and though nobody may read it any more."""
    start = "\n" if open_line else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{start}{text}\n".encode(errors="backslashreplace"))


def _deaf() -> None:
    """Python is being taken down, no thread listens any more and all is said."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _forget() -> None:
    """A forked child does not tell its parent of its own signals."""
    global _command
    _command = None
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for signum in SIGNALS[1:]:
            signal.signal(signum, signal.SIG_DFL)

"""What a run writes while it trains, and what is said where that fails: every error is an OSError.

Nothing here writes in a thread of its own, whose error would be nobody's.
"""

import contextlib
import errno
import importlib
import json
import logging
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from jaxrl.files import reason_of
from jaxrl.train.stop import Stopped

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of in here names a file, `path` where it has no name of its own."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class LineFile:
    """A file of JSON lines to append to: a line is there whole, or not at all."""

    def __init__(self, path: Path):
        self.path = path
        # Without O_NONBLOCK a pipe of that name would be waited for.
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
        self._file = os.open(path, how, 0o666)

    def write(self, entry: dict[str, Any]) -> None:
        line = (json.dumps(entry) + "\n").encode()
        before = os.fstat(self._file).st_size
        with naming(self.path):
            try:
                while line:
                    line = line[os.write(self._file, line) :]
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, before)
                raise

    def flush(self) -> None:
        """Onto the disk; a file system on the network says only here that it has no room."""
        with naming(self.path):
            os.fsync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            with naming(self.path):
                os.close(file)


GROUPS = {  # of TensorBoard's tags: the metrics that are in them
    "eval": "eval_.*",
    "rollout": "success.*|failed_.*|turns|truncated_.*|cut_.*|response_.*|sampled_.*|reward|action|"
    "branch_.*|uniform_.*|tied_.*|pool_.*|lane_.*|unread_.*|learned_share",
    "losses": "(.*_)?(loss|ratio_error|q_error|td_error)|(approx_)?kl|entropy|clip_fraction|"
    "explained_variance|improvement",
}


def tag(metric: str, of_episodes: Collection[str] = ()) -> str:
    """A metric's name in TensorBoard: rollout/, losses/, eval/, or learning/ for all the others."""
    if metric in of_episodes or "episode" in metric:
        return f"rollout/{metric}"
    group = next((g for g, names in GROUPS.items() if re.fullmatch(names, metric)), "learning")
    return f"{group}/{metric}"


class Events:
    """TensorBoard's file. `start` is the iteration and the step that the run goes on from."""

    def __init__(self, folder: Path, start: tuple[int, int]):
        self._make = importlib.import_module("tensorboardX.proto.event_pb2")
        self._scalar = importlib.import_module("tensorboardX.summary").scalar
        writer = importlib.import_module("tensorboardX.record_writer").RecordWriter
        iteration, step = start
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{iteration}"
        self.path = folder / name
        self._writer = writer(str(self.path))
        self._add(file_version="brain.Event:2")
        if iteration:  # hide what was shown of later steps before
            session = self._make.SessionLog(status=self._make.SessionLog.START)
            self._add(step=step + 1, session_log=session)

    def add(self, name: str, value: float, step: int) -> None:
        self._add(step=step, summary=self._scalar(name, value))

    def _add(self, **event: Any) -> None:
        with naming(self.path):
            made = self._make.Event(wall_time=time.time(), **event)
            self._writer.write(made.SerializeToString())

    def flush(self) -> None:
        with naming(self.path):
            self._writer.flush()

    def close(self) -> None:
        with naming(self.path):
            self._writer.close()


@contextlib.contextmanager
def one_error(checkpoints: Path, iteration: int) -> Iterator[None]:
    """What orbax raises in here, of many kinds, is one OSError, without what its threads log.

    What it had begun to write goes away.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    hook = sys.unraisablehook
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        sys.unraisablehook = _without_closed_loops(hook)
        yield
    except (OSError, ValueError, RuntimeError) as error:
        # silent from here on: its threads and what they leave behind may still have words
        hook, levels = sys.unraisablehook, [logger.level for logger in loggers]
        for unfinished in checkpoints.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)
        raise OSError(*_kind(error), str(checkpoints / str(iteration))) from error
    finally:
        sys.unraisablehook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _without_closed_loops(hook: Any) -> Any:
    def show(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    return show


def _kind(error: Exception) -> tuple[int, str]:
    """The system's number of what went wrong and its words; orbax hides it in a text."""
    if isinstance(error, OSError) and error.errno:
        return error.errno, reason_of(error)
    text = str(error)
    number = re.search(r"os_error_code='(\d+)'", text)
    if number:
        return int(number[1]), os.strerror(int(number[1])).lower()
    return errno.EIO, " ".join(text.split())[:200] or type(error).__name__


def kept(run: Path, saved: list[int]) -> str:
    """What of a run is saved, in words."""
    if not (run / "config.json").is_file():
        return f"nothing of the run is left in {run}"
    return f"iteration {saved[-1]} is saved" if saved else "no iteration is saved yet"


def stopped(error: OSError, run: Path, saved: list[int]) -> Stopped:
    """What failed and why, what of the run is saved, and how it goes on."""
    failed = f"{error.filename or run} cannot be written: {reason_of(error)}; {kept(run, saved)}"
    if not (run / "config.json").is_file():
        return Stopped(f"{failed}: start it again")
    mend = "make room" if error.errno in NO_ROOM else "mend that"
    return Stopped(f"{failed}: {mend} and go on with --resume {run}")

"""Where every command ends: one line and an exit code, whatever happened inside.

2 is bad input, 1 a run that could not go on, 128 + N a signal; 0 is an answer.
A signal that does not wait ends the process elsewhere, in `train/stop.py`.
"""

import contextlib
import errno
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrl.files import reason_of
from jaxrl.printable import encodable, printable
from jaxrl.train import stop
from jaxrl.train.stop import Diverged, Interrupted, Stopped


def command(work: Callable[[], Any]) -> None:
    """work(), a whole command; ends the process in one line where it fails as commands may."""
    try:
        work()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: whoever reads has seen enough
        os._exit(0)
    except Interrupted as stopped:
        leave(str(stopped), stopped.exit_code)
    except Diverged as error:
        leave(f"diverged: {error}", 1)
    except Stopped as error:
        if stop.is_command():  # no words from threads and buffers that still want to write
            leave_at_once(f"stopped: {error}", 1)
        leave(f"stopped: {error}", 1)
    except OSError as error:
        if error.filename is None and error.errno == errno.ENOSPC:  # what we open has a name
            leave(f"stopped: the output cannot be written: {reason_of(error)}", 1)
        file = error.filename and f"{error.filename} cannot be used: {reason_of(error)}"
        leave(f"error: {file or error}", 2)
    except (ValueError, ImportError) as error:
        leave(f"error: {error}{place(error)}", 2)


def leave(text: str, exit_code: int) -> None:
    """One line on standard error, in whatever letters it has, and the end."""
    say(printable(" ".join(text.split()), keep=""))
    try:
        sys.stdout.flush()
    except OSError:  # or Python tries again, and says so in lines of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(exit_code)


def leave_at_once(text: str, exit_code: int) -> None:
    """The same without Python's own way out."""
    try:
        leave(text, exit_code)
    finally:
        os._exit(exit_code)


def say(text: str) -> None:
    """A line on standard error; what its encoding lacks is escaped."""
    with contextlib.suppress(OSError):  # a log file on the same full disk
        print(encodable(text, sys.stderr.encoding), file=sys.stderr, flush=True)


def place(error: BaseException) -> str:
    """Where a user's own code raised an error, to be told behind it; "" where it is ours."""
    paths = sysconfig.get_paths()
    ours = (str(Path(__file__).resolve().parents[1]), paths["purelib"], paths["platlib"])
    ours += (os.path.dirname(os.__file__), "<")  # Python's own, and what has no file
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        file = os.path.realpath(frame.filename)
        if not file.startswith(ours) and not frame.filename.startswith("<"):
            where = f" ({frame.filename}, line {frame.lineno})"
    return where

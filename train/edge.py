"""Where every command ends: one line and an exit code, whatever happened inside.

2 is bad input, 1 a run that could not go on, 128 + N a signal; 0 is an answer.
A signal that does not wait ends the process elsewhere, in `train/stop.py`.
"""

import contextlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrl.files import reason_of
from jaxrl.printable import printable
from jaxrl.train import stop
from jaxrl.train.stop import Diverged, Interrupted, Stopped


def command(work: Callable[[], Any]) -> None:
    """work(), a whole command; ends the process in one line where it fails as commands may."""
    open_streams()
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
        if error.errno is None:  # words of our own
            leave(f"error: {error}", 2)
        file = error.filename or "standard output"
        leave(f"error: {file} cannot be used: {reason_of(error)}", 2)
    except SyntaxError as error:  # in a module of the user's
        leave(f"error: {error.filename}, line {error.lineno}: {error.msg}", 2)
    except (ValueError, ImportError) as error:
        leave(f"error: {error}{place(error)}", 2)
    except Exception as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        leave(f"error: out of memory ({str(error).partition(chr(10))[0]}); {LESS_MEMORY}", 1)


LESS_MEMORY = (
    "try a smaller --algo.num-envs, --num-seeds or --eval-episodes, or of a language agent "
    "--algo.micro-batch, --algo.num-lanes or --algo.context."
)


def leave(text: str, exit_code: int) -> None:
    """One line on standard error, of which a long one loses its middle, and the end."""
    line = " ".join(map(shown, text.split()))
    say(line if len(line) <= LONGEST_LINE else f"{line[:600]} ... {line[-300:]}")
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


def shown(word: str) -> str:
    """A word as a terminal can show it: short, and without control characters."""
    word = printable(word, keep="")
    return word if len(word) <= LONGEST_WORD else f"{word[:120]}...{word[-40:]}"


LONGEST_WORD, LONGEST_LINE = 240, 1000


def say(text: str) -> None:
    """A line on standard error."""
    with contextlib.suppress(OSError):  # nobody is there to read it, or a log file on a full disk
        print(text, file=sys.stderr, flush=True)


def open_streams() -> None:
    """Let standard output and error take every character: what their encoding lacks is escaped.

    One that is closed (`>&-`) leads nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


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

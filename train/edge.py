"""Where every command ends: one line and an exit code, whatever happened inside.

2 is bad input, 1 a run that could not go on, 128 + N a signal; 0 is an answer.
"""

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrl.files import reason_of
from jaxrl.printable import encodable, printable
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
        leave(f"stopped: {error}", 1)
    except OSError as error:
        file = error.filename and f"{error.filename} cannot be used: {reason_of(error)}"
        leave(f"error: {file or error}", 2)
    except (ValueError, ImportError) as error:
        leave(f"error: {error}{place(error)}", 2)


def leave(text: str, exit_code: int) -> None:
    """One line on standard error, in whatever letters it has, and the end."""
    say(printable(" ".join(text.split()), keep=""))
    sys.exit(exit_code)


def say(text: str) -> None:
    """A line on standard error; what its encoding lacks is escaped."""
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

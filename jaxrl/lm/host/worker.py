"""A program of its own in which a user's Python answers, one request after the other.

It imports what it is asked for and nothing of this project, and ends with the pipe to its parent.
"""

import asyncio
import contextlib
import importlib
import inspect
import os
import signal
import sys
import traceback
from functools import lru_cache
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

GRACE = 5.0  # s beyond the deadline after which it ends itself, should its parent be gone

Reply = tuple[str, Any]  # "ok" with the answer; "error", "import" or "value" with words


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    os.dup2(2, 1)  # what a user's code prints is no answer
    try:
        sys.path[:] = connection.recv()
        while True:
            deadline, request = connection.recv()
            limit(deadline + GRACE)
            reply = answer(*request)
            limit(0.0)
            connection.send(reply)
    except (EOFError, OSError, KeyboardInterrupt):
        return


def limit(seconds: float) -> None:
    """The process ends after so many seconds; 0: it does not."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds)


def answer(kind: str, *parts: Any) -> Reply:
    """The answer to a request, or what went wrong in words; nothing that is raised passes."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return "ok", KINDS[kind](*parts)
    except Refused as refused:
        return refused.args
    except (Exception, SystemExit) as error:
        return "error", words(error)


class Refused(Exception):
    """(kind, words) of what must not go on."""


def words(error: BaseException) -> str:
    """What was raised and where, in one line."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    else:
        frames = [f for f in frames if not f.filename.startswith("<")]
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:500]}{where}"


@lru_cache(maxsize=None)
def find(name: str) -> Any:
    """What `module:attribute` names; the working directory comes first while it is imported."""
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        told = f"module {module_name!r} cannot be imported: {words(error)}"
        raise Refused("import", told) from None
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(os.getcwd())
    if not hasattr(module, attribute):
        known = [n for n, x in vars(module).items() if callable(x) and not n.startswith("_")]
        there = f"it has {', '.join(known[:8])}" if known else "it defines no functions"
        raise Refused("import", f"module {module_name!r} has no {attribute!r}; {there}")
    return getattr(module, attribute)


def check_function(name: str) -> str:
    """The name of a function that can be called."""
    function = find(name)
    if not callable(function):
        raise Refused("import", f"{name} is a {type(function).__name__}, not a function")
    return getattr(function, "__name__", type(function).__name__)


def rewards(name: str, columns: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """What a reward function gives for these completions: a number, or None, for each."""
    told: dict[str, Any] = {"extra": {}, "metrics": {}}
    given = columns | {
        "trainer_state": SimpleNamespace(**state),
        "log_extra": lambda column, values: told["extra"].update({column: list(values)}),
        "log_metric": lambda metric, value: told["metrics"].update({metric: float(value)}),
    }
    function = find(name)
    parameters = inspect.signature(function).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        given = {p.name: given[p.name] for p in parameters if p.name in given}
    found = function(**given)
    if inspect.isawaitable(found):
        found = asyncio.run(_awaited(found))
    found, wanted = list(found), len(columns["completions"])
    if len(found) != wanted:
        raise Refused("value", f"returned {len(found)} rewards for {wanted} completions")
    return told | {"reward": [None if x is None else float(x) for x in found]}


async def _awaited(found: Any) -> Any:
    return await found


KINDS = {"function": check_function, "rewards": rewards}

if __name__ == "__main__":
    main()

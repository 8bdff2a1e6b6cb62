"""Monty (`pydantic-monty`): its own Python interpreter, without an outside, in worker processes.

It has no `yield`, no inheritance and few modules; its clock stands still and its chance is seeded.
"""

import inspect
import time
from datetime import datetime
from typing import Any

from jaxrl.sandbox.outcome import LONGEST_OUTPUT, Kind, Limits, Outcome, filled, one_line
from jaxrl.sandbox.spelling import spelled, value_of

# A program's last expression stays inside, whatever it is. The empty line ends one that a backslash
# would join to the None.
ENDING = "\n\nNone"
PRELUDE = f"""{inspect.getsource(spelled)}
def input(prompt=""):
    if not stdin:
        raise EOFError("there is no more input")
    return stdin.pop(0)
"""
KINDS: dict[str, Kind] = {
    "TimeoutError": "time",
    "MemoryError": "memory",
    "RecursionError": "recursion",
    "PermissionError": "refused",
    "ModuleNotFoundError": "refused",
    "NotImplementedError": "refused",
}
POLICY = {
    "datetime": datetime(2026, 1, 1),
    "sleep": "zero",
    "random_start": {"seed": 0},
}


def spelling_of(expression: str) -> str:
    """An expression whose value is a text, whatever the code has made of `spelled`."""
    return f"'%s' % (spelled({expression}),)"


class Monty:
    """A pool of workers; each program has an interpreter of its own."""

    def __init__(self, limits: Limits):
        try:
            import pydantic_monty
        except ImportError as error:
            text = f"backend=monty needs pydantic-monty: pip install 'jaxrl[sandbox]' ({error})."
            raise ImportError(text) from None
        self.monty: Any = pydantic_monty
        self.limits = limits
        self.pool = self.monty.Monty()
        self.pool.__enter__()

    def run(self, code: str, calls: list[str], stdin: str) -> list[Outcome]:
        """At once where nothing goes wrong, which asks the worker once; else part by part."""
        if calls:
            ask = spelling_of(f"[{', '.join(calls)}]")
            (all_,) = self._run([f"{PRELUDE}{code}\n\n{ask}"], stdin)
            if all_.ok and isinstance(all_.value, list) and len(all_.value) == len(calls):
                return [Outcome("ok"), *(Outcome("ok", value=value) for value in all_.value)]
        return self._run([PRELUDE + code + ENDING, *map(spelling_of, calls)], stdin)

    def _run(self, feeds: list[str], stdin: str) -> list[Outcome]:
        """Of one session's feeds."""
        outcomes: list[Outcome] = []
        try:
            with self._session() as session:
                end = time.monotonic() + self.limits.seconds
                for feed in feeds:
                    late = bool(outcomes) and time.monotonic() > end
                    lines = {} if outcomes else {"stdin": stdin.split("\n")}
                    outcomes.append(Outcome("time") if late else self._fed(session, feed, lines))
                    if self._is_over(outcomes):
                        break
        except Exception as error:  # whatever the pool could not do
            outcomes.append(Outcome("failure", message=one_line(f"{error!r}")))
        return filled(outcomes, len(feeds))

    def _session(self) -> Any:
        limits = {
            "max_feed_duration_secs": self.limits.seconds,
            "max_memory": self.limits.megabytes * 2**20,
        }
        return self.pool.checkout(limits=limits, os_policy=POLICY)

    def _is_over(self, outcomes: list[Outcome]) -> bool:
        """Nothing more can be asked: the program itself did not end well, or it spent a limit."""
        last = outcomes[-1].kind
        return last in ("time", "memory", "failure") or (len(outcomes) == 1 and last != "ok")

    def _fed(self, session: Any, feed: str, inputs: dict[str, Any]) -> Outcome:
        printed = self.monty.CollectString(max_bytes=LONGEST_OUTPUT)
        kind: Kind = "ok"
        message, value = "", None
        try:
            value = session.feed_run(feed, inputs=inputs, print_callback=printed)
        except self.monty.MontyCrashedError as error:
            # One that ran on past its limit was ended by the pool: that is the code's doing.
            kind, message = ("time" if error.timed_out else "failure"), str(error)
        except (self.monty.MontyRuntimeError, self.monty.MontySyntaxError) as error:
            kind = KINDS.get(type(error.exception()).__name__, "raised")
            message = error.display("type-msg")
        value = value_of(value) if isinstance(value, str) else None
        return Outcome(kind, printed.output, one_line(message), value)

    def close(self) -> None:
        self.pool.__exit__(None, None, None)

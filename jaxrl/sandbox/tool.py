"""The sandbox as a user has it: code in, what became of it out."""

from functools import cache
from typing import Literal

from jaxrl.sandbox.bwrap import Bwrap
from jaxrl.sandbox.monty import Monty
from jaxrl.sandbox.outcome import Backend, Limits, Outcome

BACKENDS = {"monty": Monty, "bwrap": Bwrap}


class CodeTool:
    """Runs Python in a sandbox, every program in a fresh one; starts it at once or raises.

    The limits are those of a program with all that is asked of it.
    """

    def __init__(
        self,
        backend: Literal["monty", "bwrap"] = "monty",
        seconds: float = Limits.seconds,
        megabytes: int = Limits.megabytes,
    ):
        if backend not in BACKENDS:
            raise ValueError(f"backend={backend} must be monty or bwrap; try monty.")
        self.backend: Backend = BACKENDS[backend](Limits(seconds, megabytes))

    def run(self, code: str, stdin: str = "") -> Outcome:
        """How the program ended and what it printed."""
        return self.backend.run(code, [], stdin)[0]

    def ask(self, code: str, calls: list[str], stdin: str = "") -> list[Outcome]:
        """The values of expressions, each after the other, behind a program; nobody hears it.

        Those of a program that did not end well end as it did.
        """
        return self.backend.run(code, calls, stdin)[1:]

    def close(self) -> None:
        """End its processes; they end with this one otherwise."""
        self.backend.close()


@cache
def default() -> CodeTool:
    """The one that this process shares."""
    return CodeTool()

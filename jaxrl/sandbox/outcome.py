"""What became of code in a sandbox, and the limits it ran under."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Kind = Literal["ok", "raised", "time", "memory", "recursion", "refused", "failure"]
LONGEST_OUTPUT = 10_000  # bytes that a program may print
LONGEST_MESSAGE = 300  # characters


@dataclass(frozen=True)
class Outcome:
    """How a program ended, or an expression behind it.

    "raised" is an exception of its own, "refused" what the sandbox does not give. A "failure" is
    the sandbox's: it says nothing of the code.
    """

    kind: Kind
    output: str = ""  # what it printed, cut
    message: str = ""  # of what ended it, in one line
    value: Any = None  # of an expression: plain data, `Opaque` for everything else

    @property
    def ok(self) -> bool:
        return self.kind == "ok"


class Opaque:
    """A value that is no plain data; it equals itself alone, whatever it says of itself."""


@dataclass(frozen=True)
class Limits:
    """Of a program together with the expressions behind it."""

    seconds: float = 1.0
    megabytes: int = 64

    def __post_init__(self):
        if not 0.01 <= self.seconds <= 600:
            raise ValueError(f"seconds={self.seconds} must be 0.01 to 600; try 1.")
        if not 8 <= self.megabytes <= 2**16:
            raise ValueError(f"megabytes={self.megabytes} must be 8 to {2**16}; try 64.")


class Backend(Protocol):
    """A place where code runs."""

    def run(self, code: str, calls: list[str], stdin: str) -> list[Outcome]:
        """Of the program, then of each expression, which sees what the program defined.

        What an expression prints need not be told.
        """
        ...

    def close(self) -> None: ...


def one_line(text: str) -> str:
    """A message as it can be shown."""
    return " ".join(text[: 2 * LONGEST_MESSAGE].split())[:LONGEST_MESSAGE]


def filled(outcomes: list[Outcome], count: int) -> list[Outcome]:
    """What has not run ends as the last that did."""
    last = outcomes[-1]
    rest = Outcome(last.kind, message=last.message)
    return outcomes + [rest] * (count - len(outcomes))

"""What became of an iteration's calls to a user's Python: sums for the log, and what failed."""

from collections.abc import Callable
from dataclasses import dataclass, field

from jaxrl.lm.host.pool import Reply

MOST_SAID = 20  # different messages


@dataclass
class Ledger:
    """Failures are said once each; who has never worked by an iteration's end stops the run."""

    say: Callable[[str], None]
    worked: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)  # in this iteration: who, why
    said: set[str] = field(default_factory=set)
    sums: dict[str, list[float]] = field(default_factory=dict)  # metric -> [sum, count]

    def fail(self, who: str, reply: Reply) -> None:
        """Count a call that gave nothing; ValueError where none would."""
        if reply.kind in ("value", "import"):
            raise ValueError(f"{who} {reply.value}.")
        self.failed[who] = reply.value
        self.note(f"{who} failed, its episodes are masked: {reply.value}")

    def note(self, words: str) -> None:
        """Say it, once."""
        if words not in self.said and len(self.said) < MOST_SAID:
            self.said.add(words)
            self.say(words)

    def add(self, metric: str, total: float, count: int = 1) -> None:
        kept = self.sums.setdefault(metric, [0.0, 0.0])
        kept[0] += total
        kept[1] += count

    def take(self) -> dict[str, tuple[float, float]]:
        """The sums of an iteration, which is over; ValueError if somebody has never worked."""
        for who, why in self.failed.items():
            if who not in self.worked:
                raise ValueError(f"{who} failed on every call: {why}.")
        sums = {name: (total, count) for name, (total, count) in self.sums.items()}
        self.sums, self.failed = {}, {}
        return sums

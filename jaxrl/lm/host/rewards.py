"""Rewards by a user's Python functions, for a group of samples at a time, in TRL's form.

f(prompts, completions, completion_ids, **columns) gives a number for each completion, or None
where it does not apply. Columns are the fields of the data set's row, each as often as there are
completions. `trainer_state`, `log_metric` and `log_extra` are there for who asks for them.
"""

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jaxrl.lm.host.answers import Answers, Where
from jaxrl.lm.host.ledger import Ledger
from jaxrl.lm.host.pool import Pool, Reply

AT_END = -1  # the turn of a call about whole episodes


class Asked(NamedTuple):
    """One function's call for one group."""

    where: Where
    columns: dict[str, Any]
    reply: Reply | Future[Reply]  # known from before, or to be


class Judged(NamedTuple):
    """Of the episodes of a group."""

    reward: np.ndarray  # float32 [G]: 0 where masked
    masked: np.ndarray  # bool [G]: nothing is known of it


@dataclass
class Rewards:
    """Functions with their weights, and what became of their calls."""

    functions: Sequence[str]  # module:function
    weights: Sequence[float]
    pool: Pool
    answers: Answers
    ledger: Ledger
    names: list[str] = field(default_factory=list)  # in metrics

    def __post_init__(self):
        short = [name.partition(":")[2] for name in self.functions]
        self.names = [
            s if short.count(s) == 1 else n for s, n in zip(short, self.functions, strict=True)
        ]

    def ask(
        self, seed: int, iteration: int, episode: int, columns: dict[str, Any], state: dict
    ) -> list[Asked]:
        """Have a group's completions judged by every function; does not wait."""
        calls = []
        for name in self.functions:
            where = Where(seed, iteration, episode, AT_END, name)
            known = self.answers.get(where, columns)
            group = episode // max(len(columns["completions"]), 1)
            reply = known or self.pool.ask(group, "rewards", name, columns, state)
            calls.append(Asked(where, columns, reply))
        return calls

    def judge(self, calls: Sequence[Asked]) -> Judged:
        """What came of a group's calls; waits for them.

        A call that failed or was late masks the group, None from all functions an episode.
        ValueError for what no later call would mend.
        """
        count = len(calls[0].columns["completions"])
        total, known = np.zeros(count), np.zeros(count, bool)
        masked = np.zeros(count, bool)
        new = []
        for call, name, weight in zip(calls, self.names, self.weights, strict=True):
            reply = call.reply
            if isinstance(reply, Future):
                reply = reply.result()
                new.append((call.where, call.columns, reply))
            if reply.kind != "ok":
                self.ledger.fail(f"reward={call.where.of}", reply)
                masked[:] = True
                continue
            self.ledger.worked.add(f"reward={call.where.of}")
            given = [x for x in reply.value["reward"] if x is not None and math.isfinite(x)]
            self.ledger.add(f"reward/{name}", sum(given), len(given))
            for metric, value in reply.value["metrics"].items():
                self.ledger.add(metric, value)
            for place, value in enumerate(reply.value["reward"]):
                if value is not None and not math.isfinite(value):
                    told = f"reward={call.where.of} gave {value}; such episodes are masked"
                    self.ledger.note(told)
                    masked[place] = True
                elif value is not None:
                    total[place] += weight * value
                    known[place] = True
        self.answers.keep(new)
        masked |= ~known
        return Judged(np.where(masked, 0.0, total).astype(np.float32), masked)

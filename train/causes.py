"""What was not finite first when a run diverges, and what to do about it."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from jaxrl.metrics import HIDDEN, Metrics, hidden

# In the order of cause. Within an iteration, values are predicted before anything is learned.
PLAYED = ("observation", "reward", "action")
PREDICTED = ("value", "explained_variance", "q")


class Broken(NamedTuple):
    """The first number of a chunk that is not finite."""

    before: int  # iterations of the chunk that come before it
    member: int
    what: str  # in words
    of_env: bool  # given by the environment


def first_broken(host: Metrics, count: int, of_env: Collection[str] = ()) -> Broken | None:
    """Of leaves [count or more, K]; None where all are finite. `of_env`: its own metrics."""
    bad = {
        name: ~np.isfinite(sums.numerator[:count]) | ~np.isfinite(sums.denominator[:count])
        for name, sums in host.items()
        if not hidden(name)
    }
    where = np.argwhere(np.any(list(bad.values()), 0))
    if not len(where):
        return None
    before, member = (int(x) for x in where[0])
    for part in PLAYED:
        counted = host.get(HIDDEN + part)
        if counted is not None and counted.numerator[before, member] > 0:
            return Broken(before, member, part, part != "action")
    names = [name for name in host if name in bad and bad[name][before, member]]
    name = min(names, key=lambda name: _rank(name, of_env))
    kind = ("", "value", "loss", "gradient", "parameters")[_rank(name, of_env)]
    what = f"{kind} ({name})" if kind and kind != name else name
    return Broken(before, member, what, name in of_env)


def _rank(name: str, of_env: Collection[str]) -> int:
    if name in of_env or "episode" in name:
        return 0
    if name in PREDICTED:
        return 1
    return 3 if "grad_norm" in name else 4 if name == "param_norm" else 2


def advice(broken: Broken, env_id: str) -> str:
    """What to do, in a sentence."""
    if broken.of_env:
        return f"The environment {env_id} gave it; jaxrl.check_env(env) tells where."
    return "Try a new run with a lower --algo.learning-rate."

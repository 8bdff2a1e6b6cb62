"""What a report draws: curves with bands over seeds, profiles and probabilities of improvement."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl.statistics import (
    bootstrap_ci,
    interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    resampled_iqm,
)
from jaxrl.train.report_runs import Group, Member, Section

LEAST_POINTS, MOST_POINTS = 24, 120  # of a curve
MOST_NUMBERS = 200_000  # in the curves of a page: about 1.5 MB
MOST_PAIRS = 8  # groups that are compared with each other, the best ones
FIRST = ("episode_return", "eval_return", "success", "episode_length", "response_tokens")


def drawn(section: Section, sections: int = 1) -> dict[str, Any]:
    """A section, one of so many, for the page's script: a list entry for each group."""
    return {
        "unit": section.unit,
        "groups": [_final(group) for group in section.groups],
        "curves": curves(section, MOST_NUMBERS // sections),
        "profile": profile(section.groups),
    }


def _final(group: Group) -> dict[str, Any]:
    return {
        "label": group.label,
        "seeds": [member.seed for member in group.members],
        **final(group),
        "scores": [short(member.score) for member in group.members],
    }


def final(group: Group) -> dict[str, Any]:
    """IQM and 95 % interval of the final returns, over seeds or, of a single one, over episodes."""
    scores = group.scores
    if not len(scores):
        return {"iqm": None, "mean": None, "low": None, "high": None, "over": None}
    low, high = bootstrap_ci(scores)
    over = "seeds"
    if len(scores) == 1:
        low, high = math.nan, math.nan  # of one of many in its program nothing else is known
        over = None
        summary = next(m for m in group.members if math.isfinite(m.score)).run.summary
        if summary is not None and len(summary.final_return.per_seed) == 1:
            ci95, over = summary.final_return.ci95, summary.final_return.ci95_over
            low, high = (math.nan if x is None else x for x in ci95)
    return {
        "iqm": short(float(iqm(scores))),
        "mean": short(float(scores.mean())),
        "low": short(low),
        "high": short(high),
        "over": over,
    }


def metric_names(section: Section) -> list[str]:
    """Every metric that a run of the section has logged, those most looked at first."""
    names = {name for run in section.runs for line in run.lines for name in line}
    names -= {"iteration", "env_steps", "env_episodes"}
    return sorted(names, key=lambda n: (FIRST.index(n) if n in FIRST else len(FIRST), n))


def curves(section: Section, most_numbers: int) -> dict[str, list[dict[str, Any] | None]]:
    """metric -> a curve of each group, None where a group does not have it."""
    found = {}
    for name in metric_names(section):
        points = min(MOST_POINTS, most_numbers // (5 * len(section.groups)))
        if points < LEAST_POINTS:
            break
        one = [curve(group.members, name, points) for group in section.groups]
        if any(one):
            found[name] = one
            most_numbers -= sum(5 * len(c["x"]) for c in one if c)
    return found


def curve(members: Sequence[Member], name: str, points: int = MOST_POINTS) -> dict | None:
    """IQM and interval over seeds of a metric at each of at most so many points.

    A point is the mean over the lines since the one before; where there is none, or none that is
    known, the last known one of that seed. A seed that ended early is no more of those that follow.
    """
    steps = [np.array([line[f"env_{m.run.unit}"] for line in m.run.lines]) for m in members]
    points = min(points, max(map(len, steps)))
    x = np.linspace(0, max(s[-1] for s in steps), points + 1)[1:]
    values = np.stack(
        [_binned(s, m.run.metric(name, m.index), x) for s, m in zip(steps, members, strict=True)]
    )
    known = np.isfinite(values)
    if not known.any():
        return None
    count = known.sum(0)
    middle = np.full(points, np.nan)
    low, high = middle.copy(), middle.copy()
    # the points at which the same seeds are known at once
    _, which = np.unique(known, axis=1, return_inverse=True)
    for kind in range(which.max() + 1):
        at = which.ravel() == kind
        there = values[known[:, at][:, 0]][:, at]
        if len(there):
            middle[at] = iqm(there, axis=0)
        if len(there) > 1:
            low[at], high[at] = interval(resampled_iqm(there))
    several = bool((count > 1).any())
    return {
        "x": [round(float(s)) for s in x],
        "y": [short(v) for v in middle],
        "low": [short(v) for v in low] if several else None,
        "high": [short(v) for v in high] if several else None,
        "n": [int(c) for c in count] if count.min() < len(members) else len(members),
    }


def _binned(steps: np.ndarray, values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Means [points] of the values up to each end, carried forward to the seed's last line."""
    finite = np.isfinite(values)
    where = np.searchsorted(ends, steps[finite] - 0.5)  # an end belongs to its own point
    where = np.minimum(where, len(ends) - 1)
    total = np.bincount(where, values[finite], len(ends))
    count = np.bincount(where, minlength=len(ends))
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    last = min(int(np.searchsorted(ends, steps[-1] - 0.5)), len(ends) - 1)
    known = np.flatnonzero(count)
    if len(known):
        before = np.searchsorted(known, np.arange(last + 1), "right") - 1
        means[: last + 1] = np.where(before >= 0, means[known[np.maximum(before, 0)]], np.nan)
    return means


def profile(groups: Sequence[Group], points: int = 101) -> dict[str, Any] | None:
    """Performance profiles: the share of runs whose final return is above each tau."""
    known = [group.scores for group in groups]
    every = np.concatenate(known)
    if not len(every) or np.ptp(every) == 0:
        return None
    margin = 0.02 * np.ptp(every)
    tau = np.linspace(every.min() - margin, every.max() + margin, points)
    lines: list[dict[str, Any] | None] = []
    for scores in known:
        if not len(scores):
            lines.append(None)
            continue
        share, (low, high) = performance_profile([scores], tau)
        band = {"low": low, "high": high} if len(scores) > 1 else {}
        parts = {name: [short(v) for v in x] for name, x in ({"y": share} | band).items()}
        lines.append({"low": None, "high": None} | parts | {"n": len(scores)})
    return {"x": [short(t) for t in tau], "lines": lines}


Pairs = dict[tuple[int, int], tuple[float, list[float]]]


def pairs(groups: Sequence[Group]) -> Pairs:
    """(i, j) -> how likely a run of group i is better than one of group j, and the interval.

    Of the best groups that have final returns.
    """
    best = [i for i, group in enumerate(groups) if len(group.scores)][:MOST_PAIRS]
    return {
        (i, j): probability_of_improvement([groups[i].scores], [groups[j].scores])
        for i in best
        for j in best
        if i != j
    }


def short(value: float) -> float | None:
    """Four digits, None for what is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None

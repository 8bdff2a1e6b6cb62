"""Statistics of final returns: mean, interquartile mean and bootstrap confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl.metrics import hidden


def iqm(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: of the middle half (Agarwal et al. 2021)."""
    from scipy import stats  # half a second to import

    return stats.trim_mean(scores, 0.25, axis=axis)


def bootstrap_ci(scores: np.ndarray, seed: int = 0) -> list[float]:
    """95 % percentile bootstrap interval [low, high] of the IQM of independent scores [N]."""
    from scipy import stats

    if scores.size < 2 or np.ptp(scores) == 0:
        return [float(scores.min()), float(scores.max())]
    result = stats.bootstrap(
        (scores,), iqm, method="percentile", n_resamples=2000, rng=np.random.default_rng(seed)
    )
    return [float(bound) for bound in result.confidence_interval]


def resampled_iqm(scores: np.ndarray, times: int = 1000, seed: int = 0) -> np.ndarray:
    """IQMs [times, ...] of scores [N, ...] whose N runs are drawn again and again."""
    chosen = np.random.default_rng(seed).integers(len(scores), size=(times, len(scores)))
    # `iqm` of fewer numbers at a time: a sweep's thousand seeds would fill the memory
    step = max(2**22 // scores.size, 1)
    parts = [iqm(scores[chosen[i : i + step]], axis=1) for i in range(0, times, step)]
    return np.concatenate(parts)


def interval(resampled: np.ndarray) -> np.ndarray:
    """95 % percentile interval [2, ...] of what came of resampled runs [times, ...]."""
    return np.percentile(resampled, (2.5, 97.5), axis=0)


def probability_of_improvement(
    better: Sequence[np.ndarray], worse: Sequence[np.ndarray], times: int = 2000, seed: int = 0
) -> tuple[float, list[float]]:
    """(how likely a run of the one scores above a run of the other, its 95 % interval).

    Of each task the runs' final scores [N] and [M]; equal ones count a half, tasks alike (section
    4.3 of arXiv:2108.13264). The bootstrap is stratified: of every task its own runs are drawn.
    """
    rng = np.random.default_rng(seed)
    point, drawn = 0.0, np.zeros(times)
    for one, other in zip(better, worse, strict=True):
        wins = (one[:, None] > other) + 0.5 * (one[:, None] == other)
        share = [
            rng.multinomial(len(x), np.full(len(x), 1 / len(x)), times) / len(x)
            for x in (one, other)
        ]
        point += float(wins.mean()) / len(better)
        drawn += ((share[0] @ wins) * share[1]).sum(1) / len(better)
    return point, [float(x) for x in interval(drawn)]


def performance_profile(
    scores: Sequence[np.ndarray], tau: np.ndarray, times: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(share of runs that score above each of tau [P], its 95 % interval [2, P]).

    Of each task the runs' final scores [N]; tasks count alike (the score distributions of section
    4.2 of arXiv:2108.13264, eq. 1). The bootstrap is stratified.
    """
    rng = np.random.default_rng(seed)
    point, drawn = np.zeros(len(tau)), np.zeros((times, len(tau)))
    for one in scores:
        above = one[:, None] > tau
        share = rng.multinomial(len(one), np.full(len(one), 1 / len(one)), times) / len(one)
        point += above.mean(0) / len(scores)
        drawn += share @ above / len(scores)
    return point, interval(drawn)


def summarize_returns(
    episode_return: np.ndarray, metrics: Mapping[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """Of returns [K members, N episodes]: per-member means, their mean, IQM and its 95 % interval.

    Members are resampled, as runs are in rliable; with a single one its episodes are. `metrics`
    [K, N], what the environment says at the end of an episode, are summarised by their means.
    """
    per_seed = episode_return.mean(1)
    over_seeds = len(per_seed) > 1
    shown = [(name, x) for name, x in sorted((metrics or {}).items()) if not hidden(name)]
    means = {name: np.asarray(x, np.float64).mean(1) for name, x in shown}
    return {
        "per_seed": [float(x) for x in per_seed],
        "mean": float(per_seed.mean()),
        "iqm": float(iqm(per_seed if over_seeds else episode_return[0])),
        "ci95": bootstrap_ci(per_seed if over_seeds else episode_return[0]),
        "ci95_over": "seeds" if over_seeds else "episodes",
        "episodes_per_seed": int(episode_return.shape[1]),
        "metrics": {
            name: {"mean": float(x.mean()), "per_seed": x.tolist()} for name, x in means.items()
        },
    }


def wilson(mean: float, count: int) -> list[float]:
    """95 % interval [low, high] of a share seen in `count` independent trials (Wilson 1927).

    Unlike a bootstrap's it has a width where all trials came out the same.
    """
    z2 = 1.959964**2 / count
    middle = (mean + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * mean * (1 - mean) + z2 * z2 / 4) / (1 + z2)
    return [max(middle - half, 0.0), min(middle + half, 1.0)]


def pass_at(success: np.ndarray, k: int) -> float:
    """pass@k of samples [..., n], bool, of each prompt: eq. 1 of arXiv:2107.03374, unbiased.

    The mean over prompts of 1 - C(n - c, k) / C(n, k), where c of the n samples are right: as the
    product over i from n - c + 1 to n of 1 - k / i, which stays small.
    """
    n, right = success.shape[-1], success.sum(-1)
    table = [1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)) for c in range(n - k + 1)]
    table = np.asarray([*table, *[1.0] * k])  # fewer than k are wrong
    return float(table[right].mean())


def best_of(score: np.ndarray, worth: np.ndarray, k: int) -> float:
    """Mean worth of that of k samples which has the highest score, of samples [..., n] of each.

    Unbiased: the mean over all choices of k out of the n, as in arXiv:2112.09332.
    """
    n = score.shape[-1]
    ranked = np.take_along_axis(worth, np.argsort(score, -1, kind="stable"), -1)
    # C(i, k - 1) of the choices have the sample of rank i, counted from 0, on top.
    of_rank = [math.comb(i, k - 1) / math.comb(n, k) for i in range(n)]
    return float((ranked @ np.asarray(of_rank)).mean())


def majority(success: np.ndarray, answer: np.ndarray) -> float:
    """Share of prompts whose most frequent answer is right, of samples [..., n] of each.

    `answer` is equal where answers are, below 0 where there is none, which has no vote. Of answers
    that are equally frequent the one seen first counts; where there is none at all it is wrong.
    """
    n = success.shape[-1]
    rows = zip(success.reshape(-1, n), answer.reshape(-1, n), strict=True)
    right = []
    for one, said in rows:
        votes = np.where(said >= 0, (said[:, None] == said).sum(1), 0)
        first = int(votes.argmax())
        right.append(bool(votes[first] and one[first]))
    return float(np.mean(right))


def powers(k: int) -> list[int]:
    """1, 2, 4, ... and k."""
    return sorted({min(2**i, k) for i in range(k.bit_length() + 1)})

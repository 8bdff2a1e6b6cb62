"""Statistics of final returns: mean, interquartile mean and bootstrap confidence intervals."""

from collections.abc import Mapping
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

"""The learning curve as a picture."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.statistics import iqm


def plot_curve(metrics: list[dict[str, Any]], title: str, path: Path, unit: str = "steps") -> None:
    """Episode return against environment steps or episodes: every seed thin, their IQM bold.

    The band holds the middle half of the seeds.
    """
    # it has words to say of a cache that it cannot keep
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = [m for m in metrics if _known(m.get("episode_return"))]
    figure = Figure(figsize=(7, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if points:
        steps = np.array([m[f"env_{unit}"] for m in points])
        returns = np.array([np.atleast_1d(m["episode_return"]) for m in points], float)
        returns = _carry_forward(returns)
        many = returns.shape[1] > 1
        axes.plot(steps, returns, color="#4477aa", linewidth=0.8, alpha=0.35 if many else 1.0)
        if many:
            low, high = np.nanpercentile(returns, [25, 75], axis=1)
            axes.fill_between(steps, low, high, color="#aa3377", alpha=0.18, linewidth=0)
            axes.plot(steps, iqm(returns), color="#aa3377", linewidth=2.2, label="IQM of the seeds")
            axes.plot([], [], color="#4477aa", linewidth=0.8, label=f"{returns.shape[1]} seeds")
            axes.legend(frameon=False, loc="lower right")
    axes.set(
        xlabel="environment steps" if unit == "steps" else unit,
        ylabel="episode return (training)",
        title=title,
    )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g} M" if x >= 1e6 else f"{x / 1e3:g} k")
    partial = path.with_name(f".{path.name}.tmp")
    figure.savefig(partial, format="png")
    os.replace(partial, path)


def _known(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(v is not None for v in values)


def _carry_forward(returns: np.ndarray) -> np.ndarray:
    """Where no episode ended, the last known return of that seed (the first known one before)."""
    for column in returns.T:
        known = np.flatnonzero(~np.isnan(column))
        if len(known):
            column[:] = column[
                known[np.clip(np.searchsorted(known, np.arange(len(column)), "right") - 1, 0, None)]
            ]
    return returns

"""The learning curve, and what a sweep found, as pictures."""

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
    points = [m for m in metrics if _known(m.get("episode_return"))]
    figure = _figure(7, 4.2)
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
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g} M" if x >= 1e6 else f"{x / 1e3:g} k")
    _save(figure, path)


def plot_sweep(result: dict[str, Any], title: str, path: Path) -> None:
    """The IQM of each configuration against each swept number, with its interval; the best bold."""
    rows, best = result["configurations"], result["best"]
    names = list(rows[0]["values"])
    figure = _figure(1 + 3.6 * len(names), 3.8)
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    middle = np.array([np.nan if row["iqm"] is None else row["iqm"] for row in rows], float)
    interval = np.array([row["ci95"] or (m, m) for row, m in zip(rows, middle, strict=True)], float)
    reach = np.abs(interval.T - middle)
    for name, axes in zip(names, panels, strict=True):
        x = np.array([row["values"][name] for row in rows], float)
        axes.errorbar(x, middle, reach, fmt="o", color="#4477aa", alpha=0.6, markersize=4)
        one = slice(best, best + 1)
        axes.errorbar(x[one], middle[one], reach[:, one], fmt="o", color="#aa3377", linewidth=2.2)
        if x.min() > 0 and x.max() / x.min() >= 8:
            axes.set_xscale("log")
        axes.set_xlabel(name)
    panels[0].set_ylabel("final return: IQM, 95 % interval")
    figure.suptitle(title)
    _save(figure, path)


def plot_rlhf(result: dict[str, Any], path: Path) -> None:
    """A reward model's score and the true return against the square root of the KL.

    Of PPO, dots as it was logged and a line of moving means, and of the best of n samples.
    """
    curve, best, top = result["ppo"], result["best_of"], result["peak"]
    figure = _figure(7, 6)
    rows = figure.subplots(2, 1, sharex=True)
    parts = {"score": "reward model's score", "return": "true return"}
    for axes, (name, label), color in zip(rows, parts.items(), ("#4477aa", "#aa3377"), strict=True):
        root = np.sqrt(np.maximum(curve["kl"], 0.0))
        axes.plot(root, curve[name], ".", color=color, markersize=3, alpha=0.3)
        bold = (moving_mean(root), moving_mean(curve[name]))
        axes.plot(*bold, color=color, linewidth=2.2, label="PPO")
        sampled = [[row[x] for row in best.values()] for x in ("kl", name)]
        style: Any = {"marker": "o", "markersize": 4, "linestyle": "--", "color": "#888888"}
        axes.plot(np.sqrt(sampled[0]), sampled[1], label=f"best of 1 to {[*best][-1]}", **style)
        axes.axhline(result["start"][name], color="#444444", linewidth=0.8, linestyle=":")
        axes.axvline(np.sqrt(max(top["kl"], 0.0)), color="#444444", linewidth=0.8, linestyle=":")
        axes.set_ylabel(label)
    rows[0].legend(frameon=False, loc="lower right")
    rows[1].set_xlabel("square root of KL(policy || model at the start), nats an episode")
    rows[0].set_title(f"RLHF on {result['env']}; dotted: start, PPO's best")
    _save(figure, path)


def moving_mean(x: Any) -> np.ndarray:
    """Over a twentieth of a curve."""
    size = max(1, len(x) // 20)
    return np.convolve(np.asarray(x, float), np.full(size, 1 / size), "valid")


def _figure(width: float, height: float) -> Any:
    # it has words to say of a cache that it cannot keep
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
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

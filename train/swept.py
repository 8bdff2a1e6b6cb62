"""What a sweep tries: numbers of an algorithm and of its environment, as members of one program.

`algo.learning-rate=1e-4,1e-3` lists values, `env.gravity=lin:8:12` and `log:A:B` are ranges that
`samples` are drawn from. Every configuration is trained with every seed; what shapes the program
(a size, a choice) would be another program, and is refused.
"""

import dataclasses
import itertools
import math
import random
import typing
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxrl import envs
from jaxrl.envs.fields import fields_of, near
from jaxrl.metrics import Metrics, hidden
from jaxrl.program import Member, members, stack
from jaxrl.statistics import bootstrap_ci, iqm
from jaxrl.train import flags, physics
from jaxrl.train.plot import plot_sweep
from jaxrl.train.run_folder import RunFolder, run_options

Values = dict[str, Any]  # `algo.learning_rate` -> its value in one configuration
PARTS, SCALES = ("algo", "env"), ("lin", "log")


@dataclasses.dataclass(frozen=True)
class Axis:
    """One number that is swept, and the words for its values."""

    text: str  # as it was given
    part: str  # algo or env
    field: str
    scale: str  # lin or log: a range; "" where values are listed
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.part}.{self.field}"


def parse(texts: Sequence[str]) -> list[Axis]:
    """ValueError, in one line, for what names no field or has no values."""
    axes = [_axis(text) for text in texts]
    for axis, other in itertools.combinations(axes, 2):
        if axis.name == other.name:
            raise ValueError(f"sweep={other.text} has {axis.name} a second time; give it once.")
    return axes


def _axis(text: str) -> Axis:
    name, separator, rest = text.partition("=")
    part, _, field = name.replace("-", "_").partition(".")
    if not separator or part not in PARTS or not field.isidentifier():
        raise ValueError(
            f"sweep={text or repr('')} must be algo.NAME=VALUES or env.NAME=VALUES; try "
            "algo.learning-rate=1e-4,3e-4,1e-3."
        )
    scale, colon, bounds = rest.partition(":")
    ranged = bool(colon) and scale in SCALES
    words = tuple(bounds.split(":") if ranged else rest.split(","))
    if not ranged and len(set(words)) < len(words):
        raise ValueError(f"sweep={text} has a value twice; give it once.")
    axis = Axis(text, part, field, scale if ranged else "", words)
    if ranged:
        _check_range(axis)
    return axis


def _check_range(axis: Axis) -> None:
    ends = [x for word in axis.words if (x := _number(word)) is not None]
    low, high = ends if len(ends) == len(axis.words) == 2 else (0.0, 0.0)
    if not low < high or (axis.scale == "log" and low <= 0):
        above = " above 0" if axis.scale == "log" else ""
        raise ValueError(
            f"sweep={axis.text} must be {axis.scale}:LOW:HIGH with numbers{above}, the lower one "
            f"first; try {axis.scale}:1e-5:1e-2."
        )


def _number(word: str) -> float | None:
    """The number that a word is, an integer where it looks like one; None for no finite one."""
    for kind in (int, float):
        try:
            value = kind(word)
        except ValueError:
            continue
        return value if len(word) < 100 and math.isfinite(value) else None
    return None


def check(texts: Sequence[str], samples: int) -> None:
    """ValueError for a sweep that cannot be read, or is neither a grid nor drawn."""
    axes = parse(texts)
    ranged = [axis for axis in axes if axis.scale]
    if samples < 0 or (samples and not axes):
        raise ValueError(f"samples={samples} are drawn from a --sweep; try --samples 0.")
    if ranged and not samples:
        raise ValueError(f"sweep={ranged[0].text} is a range to draw from; try --samples 32.")


def count(texts: Sequence[str], samples: int) -> int:
    """How many configurations there are; 1 without a sweep."""
    return samples or math.prod(len(axis.words) for axis in parse(texts))


def configurations(args: Any) -> list[Values]:
    """Every configuration: the grid, its first axis slowest, or `samples` draws from `seed`.

    A draw depends on the seed, its number and the name alone, and has the four digits that are
    shown of it. Of listed values each is as likely.
    """
    axes = parse(args.sweep)
    if not args.samples:
        grid = itertools.product(*(map(_number, axis.words) for axis in axes))
        return [dict(zip((axis.name for axis in axes), row, strict=True)) for row in grid]
    return [{axis.name: _draw(axis, args.seed, i) for axis in axes} for i in range(args.samples)]


def _draw(axis: Axis, seed: int, index: int) -> float | None:
    # Python's promises the same numbers in every version
    uniform = random.Random(f"{seed}/{index}/{axis.name}").random()
    if not axis.scale:
        return _number(axis.words[int(uniform * len(axis.words))])
    low, high = map(float, axis.words)
    if axis.scale == "log":
        return float(f"{low * (high / low) ** uniform:.4g}")
    return float(f"{low + (high - low) * uniform:.4g}")


def members_of(args: Any, cfg: Any, env: Any, trainer: str) -> Member:
    """The members of a run, leaves [K]: every seed of the first configuration, of the second, ...

    ValueError where a swept field is none, or no number that one program could take many of.
    """
    seeds = range(args.seed, args.seed + args.num_seeds)
    if not args.sweep:
        return members(seeds, cfg, env)
    for axis in parse(args.sweep):
        _check_number(axis, args, cfg, trainer)
        for word in axis.words if axis.part == "env" else ():
            _, other = configured(args, {axis.name: _number(word)}, cfg, env)
            if _shapes(other) != _shapes(env):
                raise ValueError(_one_by_one(axis, args, trainer))
    found = []
    for values in configurations(args):
        one, where = configured(args, values, cfg, env)
        found += [Member(np.uint32(seed), one, where) for seed in seeds]
    return stack(found)


def configured(args: Any, values: Values, cfg: Any, env: Any) -> tuple[Any, Any]:
    """(cfg, env) of one configuration, checked as if they had been given by themselves."""
    algo, fields = (_of(part, values) for part in PARTS)
    cfg = dataclasses.replace(cfg, **{name: float(x) for name, x in algo.items()})
    return cfg, physics.make(args, flags.env_fields(args) | fields) if fields else env


def _of(part: str, values: Values) -> dict[str, Any]:
    """The values of one part by the names of its fields."""
    return {n.partition(".")[2]: x for n, x in values.items() if n.startswith(f"{part}.")}


def _check_number(axis: Axis, args: Any, cfg: Any, trainer: str) -> None:
    """ValueError unless the axis is of numbers that are leaves, and its values are such."""
    if axis.part == "algo":
        hints = typing.get_type_hints(type(cfg))
        if axis.field not in hints:
            raise ValueError(
                f"sweep={axis.text}: train.{trainer} has no option algo.{axis.field}; near: "
                f"{near(axis.field, hints)}."
            )
        is_leaf = float in (hints[axis.field], *typing.get_args(hints[axis.field]))
        if is_leaf and getattr(cfg, axis.field) is None:
            flag = axis.field.replace("_", "-")
            raise ValueError(
                f"sweep={axis.text}: {axis.field} is off; switch it on with --algo.{flag} too."
            )
    else:
        known = fields_of(envs.spec(args.env).constructor)
        field = known.get(axis.field)
        # what is not known here is told by `envs.make`, or known to a function of the user's
        is_leaf = field is None or (field.kind in (int, float) and not field.structural)
    if not is_leaf:
        raise ValueError(_one_by_one(axis, args, trainer))
    for word in axis.words:
        if _number(word) is None:
            raise ValueError(
                f"sweep={axis.text}: {word or repr('')} is no finite number; try "
                "algo.learning-rate=1e-4,3e-4,1e-3."
            )


def _one_by_one(axis: Axis, args: Any, trainer: str) -> str:
    """Why not, and how it can be run."""
    flag = "--env-args " + axis.field + "=$x"
    if axis.part == "algo":
        flag = f"--algo.{axis.field.replace('_', '-')} $x"
    times = args.samples if axis.scale else len(axis.words)
    return (
        f"sweep={axis.text}: {axis.field} shapes the program, which would be compiled {times} "
        f"times; run them one after the other: for x in {' '.join(axis.words)}; do python -m "
        f"train.{trainer} --env {args.env} {flag}; done"
    )


def _shapes(env: Any) -> Any:
    """What a program knows of an environment."""
    leaves, structure = jax.tree.flatten(env)
    return structure, [(np.shape(x), np.asarray(x).dtype.kind) for x in leaves]


def words(args: Any) -> str:
    """How many runs are in the program, for a person."""
    seeds = f"{args.num_seeds} seed(s)"
    if not args.sweep:
        return seeds
    return f"{count(args.sweep, args.samples)} configurations x {seeds}"


def member(args: Any, index: int) -> str:
    """Which run of the program this is, for a person."""
    configuration, seed = divmod(index, args.num_seeds)
    text = f"seed {args.seed + seed}"
    if not args.sweep:
        return text
    values = configurations(args)[configuration]
    return f"{text} with {' '.join(f'{name}={x:g}' for name, x in values.items())}"


def without_broken(host: Metrics) -> Metrics:
    """Metrics [count, K] in which a member is unknown where a number of its is not finite.

    A configuration that diverges is an answer, not the end of the others; if at last all have
    diverged, nothing is hidden.
    """
    shown = [sums for name, sums in host.items() if not hidden(name)]
    bad = np.any([~np.isfinite(x) for sums in shown for x in sums], 0)
    if not bad.any() or bad[-1].all():
        return host
    return jax.tree.map(lambda x: np.where(bad, 0, x), host)


def mended(trained: Any) -> tuple[Any, np.ndarray]:
    """(what was trained, with zeros where a member's is not finite; which members [K] those are).

    So that the others can be loaded.
    """
    leaves, structure = jax.tree.flatten(trained)
    finite = [np.isfinite(x).reshape(len(x), -1).all(1) for x in leaves]
    leaves = [
        np.where(good.reshape(-1, *[1] * (x.ndim - 1)), x, np.zeros_like(x))
        for x, good in zip(leaves, finite, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves), ~np.all(finite, 0)


def results(args: Any, per_member: Sequence[float]) -> dict[str, Any]:
    """What sweep.json holds: of each configuration its returns; `best` has the highest IQM.

    The interval is of the IQM over seeds, as in `statistics.summarize_returns`; none for one seed.
    """
    found = []
    for i, values in enumerate(configurations(args)):
        scores = np.asarray(per_member[i * args.num_seeds : (i + 1) * args.num_seeds], float)
        finite = bool(np.isfinite(scores).all())
        found.append(
            {
                "values": values,
                "mean": float(scores.mean()),
                "iqm": float(iqm(scores)),
                "ci95": bootstrap_ci(scores) if finite and len(scores) > 1 else None,
                "per_seed": scores.tolist(),
            }
        )
    score = [one["iqm"] if math.isfinite(one["iqm"]) else -math.inf for one in found]
    return {"seed": args.seed, "best": int(np.argmax(score)), "configurations": found}


def best_config(args: Any, trainer: str, result: dict[str, Any]) -> dict[str, Any]:
    """What best.json holds: the options of the best configuration, for `--config`."""
    values = result["configurations"][result["best"]]["values"]
    options = run_options(args)
    algo, fields = (_of(part, values) for part in PARTS)
    kept = [x for x in args.env_args if x.partition("=")[0] not in fields]
    options["env_args"] = [*kept, *(f"{name}={x!r}" for name, x in fields.items())]
    options["algo"] |= algo
    return {"trainer": trainer, "options": {k: x for k, x in options.items() if k not in OF_SWEEP}}


OF_SWEEP = (*flags.OF_RUN, "sweep", "samples", "profile", "wandb")


def write(
    folder: RunFolder, args: Any, trainer: str, per_member: Sequence[float], lost: Any
) -> dict[str, Any]:
    """Write what the sweep found into the run's folder, and return what sweep.json holds.

    Members [K] that are `lost` have no return.
    """
    result = results(args, np.where(lost, np.nan, per_member).tolist())
    folder.write_json("sweep.json", result)
    folder.write_json("best.json", best_config(args, trainer, result))
    title = f"{trainer.upper()} on {args.env}: {words(args)}"
    plot_sweep(result, title, folder.path / "sweep.png")
    return result


def table(result: dict[str, Any], most: int = 20) -> str:
    """The best configurations first, a line each."""
    rows = sorted(result["configurations"], key=_worse)
    names = list(rows[0]["values"])
    lines = [[*names, "mean", "IQM", "95 % interval"]]
    for row in rows[:most]:
        low, high = row["ci95"] or (math.nan, math.nan)
        interval = f"{low:.1f} to {high:.1f}" if row["ci95"] else ""
        interval = interval if math.isfinite(row["iqm"]) else "diverged"
        numbers = [f"{row['values'][name]:g}" for name in names]
        lines.append([*numbers, f"{row['mean']:.1f}", f"{row['iqm']:.1f}", interval])
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.rjust, line, width)) for line in lines]
    rest = len(rows) - most
    return "\n".join(text + ([f"and {rest} more in sweep.json"] if rest > 0 else []))


def _worse(row: dict[str, Any]) -> float:
    return -row["iqm"] if math.isfinite(row["iqm"]) else math.inf

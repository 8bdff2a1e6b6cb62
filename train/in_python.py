"""`jaxrl.train("ppo", env="CartPole-v1", num_seeds=4)`: a run from Python, for notebooks."""

import dataclasses
import tempfile
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl import envs
from jaxrl.env import Environment
from jaxrl.envs.fields import near
from jaxrl.train import flags, loop, paths, table
from jaxrl.train.compiled import keep_compiled_programs
from jaxrl.train.devices import check_platforms, join
from jaxrl.train.resume import refuse_changes
from jaxrl.train.run_folder import read_config, read_metrics
from jaxrl.train.stop import Interrupted
from jaxrl.train.trainer import Chunk, Trainer


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a run of K members: seeds, or every seed of each configuration of a sweep."""

    policies: Any  # leaves [K, ...]
    policy: Any  # of the first seed, in a sweep of the best configuration
    metrics: dict[str, np.ndarray]  # of each logged line [lines, K]; its place in the run [lines]
    summary: dict[str, Any]  # as in summary.json
    run_dir: Path | None  # None: nothing was kept

    @property
    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """(environment steps or episodes [lines], return in training [lines, K])."""
        place = next(x for name, x in self.metrics.items() if name.startswith("env_"))
        return place, self.metrics["episode_return"]

    def __repr__(self) -> str:
        final = self.summary["final_return"]
        low, high = final["ci95"]
        return (
            f"{self.summary['algo']} on {self.summary['env']}: final return {final['mean']:.1f}, "
            f"IQM {final['iqm']:.1f} ({low:.1f} to {high:.1f} over {final['ci95_over']})"
        )


def train(
    trainer: str | Trainer = "ppo",
    *,
    env: str | Environment | None = None,
    preset: str | None = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    callback: Callable[[Chunk], bool | None] | None = None,
    quiet: bool = False,
    **options: Any,
) -> Result:
    """Train as `python -m train.TRAINER` does, with the same options by their names.

    `env` is an id or an Environment, `options` are the trainer's and its algorithm's
    (`num_seeds=8, learning_rate=1e-3`); a network may be a class. Without `run_dir` nothing is kept
    but the result. `callback` hears of every chunk, about a second of work, and ends the run with
    True: it is saved, evaluated, and goes on with `resume`. Raises ValueError as commands do.
    """
    trainer = table.trainer(trainer) if isinstance(trainer, str) else trainer
    given = options | {"env": env, "run_dir": run_dir, "resume": resume}
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(env, Environment):
        given["env"] = envs.given(env)
    elif env is not None and not isinstance(env, str):
        raise ValueError(f"env={env!r} must be an id or an Environment; try env='CartPole-v1'.")
    if trainer.for_language and "env" in given and envs.spec(given["env"]).is_language:
        trainer = table.trainer(trainer.for_language)
    with tempfile.TemporaryDirectory(prefix="jaxrl-") as folder:
        kept = run_dir is not None or resume is not None
        if not kept:
            given["run_dir"] = Path(folder) / "run"
        args = _options(trainer, preset, given)
        join(args.hosts)
        check_platforms()
        keep_compiled_programs()
        try:
            summary, path = loop.run(args, trainer.setup(args), callback, shows=not quiet)
        except Interrupted:
            if kept:
                raise
            raise KeyboardInterrupt from None
        return _result(trainer, args, summary, path, kept)


def _options(trainer: Trainer, preset: str | None, given: dict[str, Any]) -> Any:
    """The trainer's options with what was given; ValueError for what there is not."""
    hints = typing.get_type_hints(trainer.options)
    known = {f.name for f in dataclasses.fields(trainer.options)} - {"algo", "preset", "config"}
    of_algo = {f.name for f in dataclasses.fields(hints["algo"])}
    for name in given:
        if name not in known | of_algo:
            raise ValueError(
                f"train.{trainer.name} has no option {name}; near: {near(name, known | of_algo)}."
            )
    values = {name: _plain(value) for name, value in given.items()}
    paths_given = {n: x for n, x in values.items() if Path in _inside(hints.get(n))}
    flag = {"--" + n.replace("_", "-"): str(x) for n, x in paths_given.items()}
    paths.check(trainer.options, flag)
    values |= {name: Path(x) for name, x in paths_given.items()}
    resume = values.get("resume")
    base = flags.preset_options(trainer, preset)
    if resume is not None:
        base = flags.saved_options(trainer, resume)
    algo = dataclasses.replace(base.algo, **{n: x for n, x in values.items() if n in of_algo})
    own = {n: x for n, x in values.items() if n in known}
    args = dataclasses.replace(base, **own, algo=algo)
    if resume is None:
        return trainer.complete(args)
    refuse_changes(read_config(resume), flags.saved_options(trainer, resume), args)
    return args


def _plain(value: Any) -> Any:
    """As config.json has it: a class by its module and name, a list as a tuple."""
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    return tuple(value) if isinstance(value, list) else value


def _inside(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one."""
    return typing.get_args(hint) or (hint,)


def _result(trainer: Trainer, args: Any, summary: dict[str, Any], path: Path, kept: bool) -> Result:
    lines = read_metrics(path)
    metrics: dict[str, np.ndarray] = {}
    for name in sorted({name for line in lines for name in line}):
        of_run = name == "iteration" or name.startswith("env_")
        shape = () if of_run else (args.num_members,)
        found = [np.array(line.get(name), float) for line in lines]  # None is NaN
        metrics[name] = np.array([np.broadcast_to(x, shape) for x in found])
    policies, _ = trainer.reload(path, args)
    index = summary["sweep"]["best"] * args.num_seeds if args.sweep else 0
    policy = jax.tree.map(lambda x: jax.numpy.asarray(x[index]), policies)
    return Result(policies, policy, metrics, summary, path if kept else None)

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
from jaxrl.envs.fields import near
from jaxrl.train import command, flags, loop
from jaxrl.train.compiled import keep_compiled_programs
from jaxrl.train.devices import check_platforms, join
from jaxrl.train.progress import told
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
            f"{self.summary['algo']} on {self.summary['env']}: final return {told(final['mean'])}, "
            f"IQM {told(final['iqm'])} ({told(low)} to {told(high)} over {final['ci95_over']})"
        )


def train(
    trainer: str | Trainer = "ppo",
    *,
    env: Any = None,
    preset: str | None = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    callback: Callable[[Chunk], bool | None] | None = None,
    quiet: bool = False,
    **options: Any,
) -> Result:
    """Train as `python -m train.TRAINER` does, with the same options by their names.

    `env` is an id, an Environment, or a class of Gymnasium's API (or a function that returns one),
    which is stepped by Python in processes of its own. `options` are the trainer's and its
    algorithm's (`num_seeds=8, learning_rate=1e-3`); a network may be a class. Without `run_dir`
    nothing is kept but the result. `callback` hears of every chunk, about a second of work, and
    ends the run with True: it is saved, evaluated, and goes on with `resume`. Raises ValueError as
    commands do.
    """
    if env is not None and not isinstance(env, str):
        env = envs.given(env)
    named = {"env": env, "preset": preset, "run_dir": run_dir, "resume": resume}
    given = {name: str(value) for name, value in named.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="jaxrl-") as folder:
        kept = run_dir is not None or resume is not None
        if not kept:
            given["run_dir"] = f"{folder}/run"
        trainer, args = _options(trainer, given | options)
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


def _options(trainer: str | Trainer, given: dict[str, Any]) -> tuple[Trainer, Any]:
    """The trainer and its options as a command line would have them; ValueError for unknown ones.

    What decides where they start, and every path, goes through the command line's own checks.
    """
    words = {n: str(x) for n, x in given.items() if isinstance(x, str | Path)}
    argv = [f"--{name.replace('_', '-')}={text}" for name, text in words.items()]
    trainer = command.choose(trainer, argv)
    hints = typing.get_type_hints(trainer.options)
    of_algo = {f.name for f in dataclasses.fields(hints["algo"])}
    known = hints.keys() | of_algo
    for name in given:
        if name not in known or name == "algo":
            raise ValueError(
                f"train.{trainer.name} has no option {name}; near: {near(name, known)}."
            )
    base, values = flags.start(trainer, argv), {n: _plain(x) for n, x in given.items()}
    for name in words.keys() & hints.keys():
        if Path in (typing.get_args(hints[name]) or (hints[name],)):
            values[name] = Path(words[name])
    values = {name: _part(name, hints.get(name), value) for name, value in values.items()}
    algo = {name: values.pop(name) for name in of_algo & values.keys()}
    args = dataclasses.replace(base, **values, algo=dataclasses.replace(base.algo, **algo))
    if args.resume is None:
        return trainer, trainer.complete(args)
    before = flags.saved_options(trainer, args.resume)
    refuse_changes(read_config(args.resume), before, args)
    return trainer, args


def _part(name: str, hint: Any, value: Any) -> Any:
    """Options that belong together may come as a dict: `actors={"processes": 4}`."""
    if not isinstance(value, dict) or not dataclasses.is_dataclass(hint):
        return value
    known = {f.name for f in dataclasses.fields(hint)}
    for field in value.keys() - known:
        raise ValueError(f"{name} has no option {field}; near: {near(field, known)}.")
    return typing.cast(Any, hint)(**value)


def _plain(value: Any) -> Any:
    """As config.json has it: a class by its module and name, a list as a tuple."""
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    return tuple(value) if isinstance(value, list) else value


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

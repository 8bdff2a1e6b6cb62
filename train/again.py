"""An iteration of a run once more: the program is brought to it as by a resume, and listened to.

Nothing of an episode is stored: states, resets, noise and keys are functions of the seed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from jaxrl.checkpoint import Checkpoints, abstract
from jaxrl.env import Wrapper, static
from jaxrl.mesh import DATA, SEED
from jaxrl.program import Member, Program
from jaxrl.train import edge, flags, swept, table
from jaxrl.train.devices import one_core_each
from jaxrl.train.loop import MAX_CHUNK, program_of
from jaxrl.train.resume import MAY_GROW, Past, refuse_changes
from jaxrl.train.run_folder import read_config, read_metrics
from jaxrl.train.trainer import Task, Trainer
from jaxrl.wrappers import EpisodeStatsState


@dataclass(frozen=True)
class Step:
    """A step of one environment, as training took it; arrays on the host."""

    state: Any  # before it
    action: Any
    after: Any  # where it led, before any reset
    reward: float
    terminated: bool
    truncated: bool


@dataclass(frozen=True)
class Iteration:
    """What is needed to play one iteration of a run."""

    task: Task
    program: Program
    members: Member  # placed, leaves [K]
    before: Any  # the state when it begins
    after: Any  # and when it ends
    metrics: Any  # of it
    start: int  # the checkpoint from which it was reached; 0: the run's begin
    one_core: bool


def trainer_of(folder: Path) -> Trainer:
    """The trainer that made a run; ValueError where it is none of the table."""
    made_by = read_config(folder).get("trainer") or ""
    if made_by not in table.TRAINERS:
        known = ", ".join(table.TRAINERS)
        raise ValueError(f"{folder / 'config.json'}: trainer={made_by} is none of {known}.")
    return table.trainer(made_by)


def reach(folder: Path, iteration: int, env_index: int = 0, devices: int = 0) -> Iteration:
    """Bring the run to this iteration and through it; ValueError for one that it did not have.

    It takes the devices that the run had, unless told. Of arrays `env_index` is checked before
    anything is compiled.
    """
    config = read_config(folder)
    checkpoints = Checkpoints(folder / "checkpoints")
    saved = checkpoints.iterations()
    last = max([*saved, *(line["iteration"] for line in _lines(folder))], default=0)
    if not 1 <= iteration <= last:
        raise ValueError(
            f"iteration={iteration} must lie in [1, {last}], which {folder} has had; try {last}."
            if last
            else f"iteration={iteration}: {folder} has had none yet; wait for its first line."
        )
    start = max((i for i in saved if i < iteration), default=0)
    trainer = trainer_of(folder)
    args = replace(flags.saved_options(trainer, folder), resume=folder, devices=devices)
    refuse_changes(config, flags.saved_options(trainer, folder), args)
    args = _as_then(config, args, start, iteration)
    task = trainer.setup(args if start else replace(args, resume=None))
    if task.host is not None:
        raise ValueError(
            f"iteration={iteration}: Python has a word in what {args.env} says, and that is not a "
            "function of the seed; leave --iteration out for fresh episodes."
        )
    count = getattr(task.cfg, "num_envs", env_index + 1)
    if env_index >= count:
        raise ValueError(f"env_index={env_index} must lie in [0, {count - 1}]; try 0.")
    try:
        return _played(task, args, config, checkpoints, start, iteration)
    finally:
        checkpoints.close()


def _lines(folder: Path) -> list[dict[str, Any]]:
    return read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []


def _as_then(config: dict, args: Any, start: int, iteration: int) -> Any:
    """The options as they were at this iteration: a run that was resumed may have grown since."""
    for entry in reversed(config.get("resumed", [])):
        grown = {k: x for k, x in entry.get("options", {}).items() if k in MAY_GROW}
        if not grown or entry["iteration"] <= start:
            continue
        if entry["iteration"] < iteration:
            raise ValueError(
                f"iteration={iteration}: the run grew at iteration {entry['iteration']}, and no "
                f"checkpoint from there to here is left; try {entry['iteration']} or less."
            )
        old = {name.removeprefix("algo."): before for name, (before, _) in grown.items()}
        args = replace(args, algo=replace(args.algo, **old))
    return args


def _played(
    task: Task, args: Any, config: dict, checkpoints: Checkpoints, start: int, iteration: int
) -> Iteration:
    record = checkpoints.record(start) if start else {}
    entries = [x for x in config.get("resumed", []) if x["iteration"] < iteration]
    then = config | {"resumed": entries}  # who came later may have had another layout
    past = Past(then, record, start, checkpoints.path(start), args)
    mesh = past.mesh(args, task.num_blocks, task.minibatch_rows, task.weights)
    past.tell(True)
    whence = f"the checkpoint of iteration {start}" if start else "the run's begin"
    edge.say(f"from {whence} to iteration {iteration}")
    program = program_of(task, mesh)
    members = swept.members_of(args, task.cfg, task.env, task.name)
    one_core = one_core_each(mesh, task.weights)
    init, run = program.compile(members, one_core)
    placed = program.place(members)
    state = init(placed)
    if start:
        state = checkpoints.restore(start, abstract(state))
    elif task.start is not None:
        state = task.start(state)
    now = start
    while now < iteration - 1:
        count = min(MAX_CHUNK, iteration - 1 - now)
        state, _ = run(state, placed, program.scalar(count))
        now += count
    before = jax.tree.map(jnp.copy, state)  # `run` takes its state's memory
    after, metrics = run(state, placed, program.scalar(1))
    return Iteration(task, program, placed, before, after, metrics, start, one_core)


class Told(Wrapper):
    """Tells of every step, and changes nothing in it."""

    tell: Callable[..., None] = static(None)

    def reset(self, key: jax.Array) -> tuple[Any, Any]:
        return self.env.reset(key)

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, Any]:
        after, ts = self.env.step(state, action, key)
        self.tell((state, action, after, ts.reward, ts.terminated, ts.truncated))
        return after, ts


def listen(it: Iteration, member: int, env_index: int) -> tuple[list[Step], float, int]:
    """The steps of one environment in the iteration, and its return and length before the first.

    The program is compiled anew with an ear in it; a line tells where it then computes other bits.
    """
    task, steps = it.task, list[Step]()

    def hear(here: np.ndarray, step: tuple) -> None:
        if here:
            state, action, after, *ends = jax.tree.map(np.array, step)
            reward, terminated, truncated = (x.item() for x in ends)
            steps.append(Step(state, action, after, reward, terminated, truncated))

    tell = _teller(hear, len(it.members.seed), member, env_index)

    def update(state, key, member, *, axis):
        told = member.replace(env=Told(member.env, tell))
        return task.update(state, key, told, axis=axis)

    program = program_of(replace(task, update=update), it.program.mesh)
    members = jax.device_get(it.members)
    _, run = program.compile(members, it.one_core)
    given = jax.tree.map(jnp.copy, it.before)
    after, metrics = run(given, it.members, program.scalar(1))
    jax.block_until_ready(after)
    jax.effects_barrier()
    if not same((after, metrics), (it.after, it.metrics)):
        edge.say(
            "note: with an ear in it the program computed other last bits than training did; these "
            "episodes are near to training's, not equal."
        )
    stats = _stats(it.before)
    paid, length = (np.asarray(x)[member] for x in (stats.episode_return, stats.episode_length))
    begin = env_index * len(paid) // task.cfg.num_envs  # several branches begin in one state
    return steps, float(paid[begin]), int(length[begin])


def same(a: Any, b: Any) -> bool:
    """Whether two trees hold the same bits."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def _teller(hear: Callable, num_members: int, member: int, env_index: int) -> Callable:
    """A function of a step, under `vmap` over environments and members, by which one is heard."""

    def here(size: int, index: int, axis: str) -> tuple[jax.Array, jax.Array]:
        """(place, whether it is one) of a global index among those of this device."""
        place = index - jax.lax.axis_index(axis) * size
        return jnp.clip(place, 0, size - 1), (place >= 0) & (place < size)

    def pick(place: jax.Array, batched: Any, tree: Any) -> Any:
        return jax.tree.map(lambda of_all, x: x[place] if of_all else x, batched, tree)

    def to_host(there: jax.Array, step: Any) -> tuple:
        jax.debug.callback(hear, there, step)
        return ()

    of_member = custom_vmap(to_host)

    @of_member.def_vmap
    def among_members(size: int, batched: list, there: jax.Array, step: Any) -> tuple[tuple, tuple]:
        place, is_here = here(size, member, SEED)
        there, step = (pick(place, b, x) for b, x in zip(batched, (there, step), strict=True))
        return to_host(there & is_here, step), ()

    of_env = custom_vmap(lambda step: ())

    @of_env.def_vmap
    def among_envs(size: int, batched: list, step: Any) -> tuple[tuple, tuple]:
        place, is_here = here(size, env_index, DATA)
        send = to_host if num_members == 1 else of_member
        return send(is_here, pick(place, batched[0], step)), ()

    return of_env


def _stats(state: Any) -> EpisodeStatsState:
    """The episode statistics [K, B] in the state of a learner that plays arrays."""

    def is_stats(x: Any) -> bool:
        return isinstance(x, EpisodeStatsState)

    found = [x for x in jax.tree.leaves(state, is_leaf=is_stats) if is_stats(x)]
    return found[0]

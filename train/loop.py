"""The host loop: compiles one program, calls it again and again, and keeps what it says.

Every trainer shares it. Nothing here is inside the program: flags, devices, files, signals.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrl import memory
from jaxrl.checkpoint import Checkpoints, abstract
from jaxrl.config import Count, check_fields, check_positive, check_range
from jaxrl.metrics import Metrics, Sums
from jaxrl.program import Member, Program, make_program, members
from jaxrl.train.devices import Distributed, choose
from jaxrl.train.paths import Folder, NewFolder
from jaxrl.train.plot import plot_curve
from jaxrl.train.progress import Progress
from jaxrl.train.run_folder import RunFolder, jsonable, read_metrics, run_options
from jaxrl.train.stop import Diverged, Interrupted, StopSignal
from jaxrl.train.trainer import Task

CHUNK_SECONDS = 1.0  # work between two looks at the metrics
MOST_SEEDS = 2**16
MAX_CHUNK = 1024  # iterations in a chunk at most
OF_CHECKPOINTS = ("env", "env_args", "seed", "num_seeds")  # options that a checkpoint belongs to


@dataclass(frozen=True)
class Options:
    """The flags that every trainer has."""

    env: str = "CartPole-v1"  # environment id, or my_module:Id; `python -m envs` lists them
    env_args: tuple[str, ...] = ()  # fields of the environment, as NAME=VALUE
    seed: Count = 0  # the root of every random number; seeds seed .. seed+num_seeds-1 are trained
    num_seeds: int = 1  # independent runs in the same program
    run_dir: NewFolder | None = None  # folder of this run; default runs/ENV-ALGO-DATE
    resume: Folder | None = None  # go on with this run's folder, with its own options
    init_from: Folder | None = None  # start with the weights of another run's first seed
    devices: int = 0  # how many to use; 0: as many as serve the run
    log_every: int = 0  # iterations averaged into one logged line; 0: at most 1,000 lines
    checkpoint_every: float = 60.0  # s between checkpoints
    eval_episodes: int = 128  # fresh episodes of each seed for the final return
    wandb: bool = False  # log to Weights & Biases too
    hosts: Distributed = field(default_factory=Distributed)

    def __post_init__(self):
        check_fields(self)
        check_range("num_seeds", self.num_seeds, 1, MOST_SEEDS, 1)
        for name, least in (("seed", 0), ("devices", 0), ("log_every", 0)):
            if getattr(self, name) < least:
                value = getattr(self, name)
                raise ValueError(f"{name}={value} must be at least {least}; try {least}.")
        if self.seed + self.num_seeds > 2**32:
            raise ValueError(f"seed={self.seed} plus num_seeds must be at most 2^32; try 0.")
        check_positive("checkpoint_every", self.checkpoint_every, 60)
        if self.eval_episodes < 1:
            raise ValueError(f"eval_episodes={self.eval_episodes} must be at least 1; try 128.")


class Run:
    """One run from its first chunk to its summary."""

    def __init__(self, args: Options, task: Task):
        self.args, self.task = args, task
        self.mesh = choose(args.devices, args.num_seeds, task.num_blocks, task.minibatch_rows)
        check_memory(args, task, list(self.mesh.devices.flat))
        self.members = members(range(args.seed, args.seed + args.num_seeds), task.cfg, task.env)
        self.folder = self._open_folder(writes=jax.process_index() == 0)
        of_run = {name: run_options(args)[name] for name in OF_CHECKPOINTS}
        self.checkpoints = Checkpoints(self.folder.checkpoints, {"trainer": task.name} | of_run)
        saved = self.checkpoints.iterations() if args.resume is not None else []
        (self.newest,) = agree(saved[-1] if saved else 0)
        if self.newest:
            self.checkpoints.check(self.newest)
        self.of_env = jax.eval_shape(task.env.reset, jax.random.key(0))[1].metrics.keys()
        self.log_every = args.log_every or -(-task.num_iterations // 1000)
        self.iteration = self.resumed_at = 0
        self.compile_s = self.run_s = 0.0
        self._pace = 0.0  # s per iteration

    def _open_folder(self, *, writes: bool) -> RunFolder:
        args, problem = self.args, None
        how = {"writes": writes, "wandb": args.wandb, "trainer": self.task.name}
        path = args.resume or args.run_dir
        if path is None:
            (stamp,) = agree(int(time.time()))
            date = time.strftime("%Y%m%d-%H%M%S", time.gmtime(stamp))
            name = args.env.replace("/", "-").replace(":", "-")
            path = Path("runs") / f"{name}-{self.task.name}-{date}"
        try:
            enter = RunFolder.create if args.resume is None else RunFolder.reopen
            folder = enter(path, args, **how)
        except ValueError as error:
            folder, problem = None, error
        (failed,) = agree(int(problem is not None))  # or the other hosts would wait for this one
        if folder is None or failed:
            raise problem or ValueError(f"run_dir={path} was refused on another host; see there.")
        return folder

    def compile(self, progress: Progress) -> tuple[Program, Any, Any]:
        """The program and its two executables, init and run."""
        program = program_of(self.task, self.mesh)
        cores = self.mesh.devices.size
        label = f"compile {self.args.num_seeds} seed(s) on {cores} {jax.devices()[0].platform}"
        with progress.phase(label) as phase:
            init, run = program.compile(self.members)
        self.compile_s = phase.seconds
        return program, init, run

    def start(self, init: Any, placed: Member) -> Any:
        """The first state: fresh, or that of the newest checkpoint."""
        state = init(placed)
        if self.newest:
            self.iteration = self.resumed_at = self.newest
            return self.checkpoints.restore(self.newest, abstract(state))
        return state if self.task.start is None else self.task.start(state)

    def advance(
        self, program: Program, run: Any, init: Any, progress: Progress, stop: StopSignal
    ) -> Any:
        """All chunks, with metrics read one chunk behind; returns the last state.

        Raises Interrupted after a signal and Diverged after a NaN.
        """
        placed = program.place(self.members)
        state = self.start(init, placed)
        self.folder.open_logs(self.iteration)
        progress.resumed(self.task.steps(self.iteration))
        pending = None
        self._recorded_at = saved_at = time.monotonic()
        while self.iteration < self.task.num_iterations:
            count = self.next_count()
            state, metrics = run(state, placed, program.scalar(count))
            self.iteration += count
            if pending is not None:
                self.record(*pending, progress)
            pending = (self.iteration, count, metrics)
            self.transcribe(state)  # before the next chunk takes its memory
            due = time.monotonic() - saved_at > self.args.checkpoint_every
            stopping, due = agree(stop.signum, int(due))
            if stopping or due or self.iteration >= self.task.num_iterations:
                self.record(*pending, progress)  # nothing is saved before it is known finite
                pending, saved_at = None, time.monotonic()
                self.folder.flush()
                self.checkpoints.save(self.iteration, state)
            if stopping:
                raise Interrupted(stopping, self.folder.path)
        return state

    def transcribe(self, state: Any) -> None:
        """Write down the episodes that the state shows, if its task keeps any."""
        task = self.task
        if task.shown is None or task.transcribe is None:
            return
        shown = jax.tree.map(to_host, task.shown(state))
        steps = task.steps(self.iteration)
        for line in task.transcribe(shown, self.iteration, steps, self.args.seed):
            self.folder.transcribe(line)

    def next_count(self) -> int:
        """Iterations in the next chunk: about CHUNK_SECONDS, in whole log lines."""
        seconds = min(CHUNK_SECONDS, self.args.checkpoint_every)
        wanted = seconds / self._pace if self._pace else 1.0
        lines = int(np.clip(wanted / self.log_every, 1, max(1, MAX_CHUNK // self.log_every)))
        (lines,) = agree(lines if jax.process_index() == 0 else 0)
        return min(lines * self.log_every, self.task.num_iterations - self.iteration)

    def record(self, last: int, count: int, metrics: Metrics, progress: Progress) -> None:
        """Log the chunk of `count` iterations that ended at iteration `last`."""
        task = self.task
        host: Metrics = jax.tree.map(lambda x: to_host(x)[:count], metrics)  # [count, K]
        now = time.monotonic()
        self._pace = (now - self._recorded_at) / count
        self.run_s += now - self._recorded_at
        self._recorded_at = now
        finite, problem = finite_until(host, count, self.args.seed)
        for start in range(0, count, self.log_every):
            end = min(start + self.log_every, count)
            if end > finite:
                break
            done = last - count + end
            means = known_means(host, start, end)
            line = {name: jsonable(x) for name, x in means.items()}
            steps = task.steps(done)
            pace = task.steps_per_iteration * self.args.num_seeds / self._pace
            where = {"iteration": done, f"env_{task.unit}": steps}
            self.folder.log(where, line, steps, {f"{task.unit}_per_s": pace}, self.of_env)
        if finite < count:
            self.folder.flush()
            raise Diverged(f"{problem} at iteration {last - count + finite + 1}; {self._advice()}")
        over_chunk = {name: float(np.nanmean(x)) for name, x in known_means(host).items()}
        reason = None if task.refuse is None else task.refuse(over_chunk)
        if reason is not None:
            self.folder.flush()
            raise ValueError(reason)
        note = f"warm start {last}/{task.warm_up}" if last < task.warm_up else ""
        progress.update(task.steps(last), over_chunk.get("episode_return"), note)

    def _advice(self) -> str:
        saved = self.checkpoints.iterations()
        good = f"{self.checkpoints.folder / str(saved[-1])}" if saved else "none yet"
        return f"last good checkpoint: {good}. Try a new run with a lower --algo.learning-rate."

    def finish(self, state: Any) -> dict[str, Any]:
        """Save what was trained, evaluate it, plot the curve; the summary."""
        args, task, outcome = self.args, self.task, self.task.outcome
        trained = jax.tree.map(to_host, outcome.trained(state))
        if not self.folder.writes:
            return {}
        outcome.save(self.folder.path, trained)
        final = outcome.evaluate(trained, self.members, args.eval_episodes)
        played = task.steps(task.num_iterations)
        new = (played - task.steps(self.resumed_at)) * args.num_seeds
        summary = {
            "env": args.env,
            "algo": task.name,
            f"env_{task.unit}": played,
            "num_seeds": args.num_seeds,
            "devices": self.mesh.devices.size,
            "compile_s": round(self.compile_s, 3),
            "run_s": round(self.run_s, 3),
            f"{task.unit}_per_s": round(new / self.run_s) if self.run_s else None,
            "final_return": final,
        }
        self.folder.write_json("summary.json", summary)
        title = f"{task.name.upper()} on {args.env}: final return {final['mean']:.4g}"
        path = self.folder.path
        plot_curve(read_metrics(path), title, path / "curve.png", task.unit)
        return summary


def check_memory(args: Options, task: Task, devices: list[Any]) -> None:
    """ValueError for a run, or its evaluation at the end, that the devices cannot hold."""
    memory.check(task.parts, args.num_seeds, devices)
    memory.check(task.outcome.parts(args.eval_episodes), args.num_seeds, devices[:1])


def train(args: Options, task: Task) -> dict[str, Any]:
    """Run `task` to its end in its run folder; returns the summary.

    Raises ValueError for what cannot work (before anything is compiled), Interrupted, Diverged.
    """
    run = Run(args, task)
    progress = Progress(
        task.steps(task.num_iterations),
        task.unit.removesuffix("s"),
        shows=jax.process_index() == 0,
    )
    try:
        with StopSignal() as stop:
            program, init, execute = run.compile(progress)
            state = run.advance(program, execute, init, progress, stop)
    finally:
        progress.close()
        run.folder.close()
        run.checkpoints.close()
    with progress.phase(f"evaluate {args.eval_episodes} episodes a seed"):
        summary = run.finish(state)
    if summary:
        report(summary, run.folder.path, task)
    return summary


def program_of(task: Task, mesh: Any) -> Program:
    """The program of a task on a mesh, not compiled."""
    return make_program(
        task.init, task.update, task.layout, mesh, MAX_CHUNK, one_by_one=task.one_by_one
    )


def report(summary: dict[str, Any], path: Path, task: Task) -> None:
    """The end of a run, for a person."""
    final, unit = summary["final_return"], task.unit
    low, high = final["ci95"]
    print(
        f"{summary['algo']} on {summary['env']}: {summary[f'env_{unit}']:,} {unit} x "
        f"{summary['num_seeds']} seed(s) in {summary['run_s']:.1f} s "
        f"({summary[f'{unit}_per_s'] or 0:,} {unit}/s) after "
        f"{summary['compile_s']:.1f} s of compiling"
    )
    print(
        f"final return: mean {final['mean']:.1f}, IQM {final['iqm']:.1f} "
        f"(95 % interval {low:.1f} to {high:.1f} over {final['ci95_over']})"
    )
    for name, found in final["metrics"].items():
        print(f"final {name}: {found['mean']:.3f}")
    print(f"curve: {path / 'curve.png'}\n{task.outcome.how_to_play.format(path)}")


def finite_until(host: Metrics, count: int, first_seed: int) -> tuple[int, str]:
    """How many iterations come before the first with a number that is not finite, and which."""
    finite, problem = count, ""
    for name, sums in host.items():
        bad = np.argwhere(~np.isfinite(sums.numerator) | ~np.isfinite(sums.denominator))
        if len(bad) and bad[0][0] < finite:
            finite, member = (int(x) for x in bad[0])
            problem = f"{name} of seed {first_seed + member} is not finite"
    return finite, problem


def known_means(host: Metrics, start: int = 0, end: int | None = None) -> dict[str, np.ndarray]:
    """Means [K] over the iterations start .. end-1, NaN where a member's is unknown.

    Without those that are unknown of every member.
    """
    means = {}
    for name, sums in host.items():
        over, under = (np.sum(np.asarray(x[start:end], np.float64), 0) for x in Sums(*sums))
        if np.any(under > 0):
            means[name] = np.where(under > 0, over / np.where(under > 0, under, 1.0), np.nan)
    return means


def to_host(x: jax.Array) -> np.ndarray:
    """The whole array on this host, wherever its pieces lie."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def agree(*numbers: int) -> tuple[int, ...]:
    """The largest of every host's numbers: the hosts must take the same turn."""
    if jax.process_count() == 1:
        return numbers
    everyone = multihost_utils.process_allgather(np.asarray(numbers, np.int64))
    return tuple(int(x) for x in everyone.max(0))

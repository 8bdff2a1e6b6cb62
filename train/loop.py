"""The host loop: compiles one program, calls it again and again, and keeps what it says.

Every trainer shares it. Nothing here is inside the program: flags, devices, files, signals.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrl.checkpoint import Checkpoints, abstract
from jaxrl.program import Program, make_program
from jaxrl.train.devices import Distributed, choose, join
from jaxrl.train.plot import plot_curve
from jaxrl.train.progress import Progress
from jaxrl.train.run_folder import RunFolder, jsonable, read_metrics, run_options
from jaxrl.train.stop import Diverged, Interrupted, StopSignal

CHUNK_SECONDS = 1.0  # work between two looks at the metrics
MAX_CHUNK = 1024  # iterations in a chunk at most
OF_CHECKPOINTS = ("env", "env_args", "seed", "num_seeds")  # options that a checkpoint belongs to


@dataclass(frozen=True)
class Options:
    """The flags that every trainer has."""

    env: str = "CartPole-v1"  # environment id; `python -m envs` lists them
    env_args: tuple[str, ...] = ()  # fields of the environment, as NAME=VALUE
    seed: int = 0  # the root of every random number; seeds seed .. seed+num_seeds-1 are trained
    num_seeds: int = 1  # independent runs in the same program
    run_dir: Path | None = None  # folder of this run; default runs/ENV-ALGO-DATE
    resume: Path | None = None  # go on with this run's folder, with its own options
    devices: int = 0  # how many to use; 0: as many as serve the run
    log_every: int = 0  # iterations averaged into one logged line; 0: at most 1,000 lines
    checkpoint_every: float = 60.0  # s between checkpoints
    eval_episodes: int = 128  # fresh episodes of each seed for the final return
    wandb: bool = False  # log to Weights & Biases too
    hosts: Distributed = field(default_factory=Distributed)

    def __post_init__(self):
        for name, least in (("num_seeds", 1), ("seed", 0), ("devices", 0), ("log_every", 0)):
            if getattr(self, name) < least:
                value = getattr(self, name)
                raise ValueError(f"{name}={value} must be at least {least}; try {least}.")
        if self.seed + self.num_seeds > 2**32:
            raise ValueError(f"seed={self.seed} plus num_seeds must be at most 2^32; try 0.")
        if not self.checkpoint_every > 0:
            raise ValueError(f"checkpoint_every={self.checkpoint_every} must be above 0; try 60.")
        if self.eval_episodes < 1:
            raise ValueError(f"eval_episodes={self.eval_episodes} must be at least 1; try 128.")


@dataclass(frozen=True)
class Task:
    """What one algorithm gives the loop."""

    name: str
    init: Callable
    update: Callable
    specs: Any
    num_iterations: int
    steps_per_iteration: int  # environment steps of one seed
    num_groups: int  # pieces that a seed's environments can be split into
    minibatch_rows: int
    episode_metrics: frozenset[str]  # those that are means over the episodes that ended
    policy: Callable[[Any], Any]  # what is trained, in a state: leaves [K, ...]
    save: Callable[[Path, Any], None]  # write that into the run folder
    evaluate: Callable[[Any, int, int], dict]  # (that, seed, episodes) -> the final return
    fill: Callable[[Any], Any] | None = None  # fresh state -> the same with given weights
    shown: Callable[[Any], Any] | None = None  # what a state keeps of its last episodes
    transcribe: Callable[..., list[dict]] | None = None  # (that, iteration, steps, seed) -> lines
    unit: str = "steps"  # what steps_per_iteration counts: environment steps, or episodes
    warm_up: int = 0  # iterations at the start that play nothing
    told: frozenset[str] = frozenset()  # what else of the final evaluation the terminal tells
    how_to_play: str = "play it: jaxrl.load_policy('{}')"
    one_by_one: bool = False  # several seeds of a device one after the other, not side by side

    def steps(self, iteration: int) -> int:
        """What a seed has played after this many iterations, in `unit`."""
        return max(iteration - self.warm_up, 0) * self.steps_per_iteration


class Run:
    """One run from its first chunk to its summary."""

    def __init__(self, args: Options, task: Task):
        self.args, self.task = args, task
        self.mesh = choose(args.devices, args.num_seeds, task.num_groups, task.minibatch_rows)
        self.folder = self._open_folder(writes=jax.process_index() == 0)
        of_run = {name: run_options(args)[name] for name in OF_CHECKPOINTS}
        self.checkpoints = Checkpoints(self.folder.checkpoints, {"trainer": task.name} | of_run)
        saved = self.checkpoints.iterations() if args.resume is not None else []
        (self.newest,) = agree(saved[-1] if saved else 0)
        if self.newest:
            self.checkpoints.check(self.newest)
        self.log_every = args.log_every or -(-task.num_iterations // 1000)
        self.iteration = self.resumed_at = 0
        self.compile_s = self.run_s = 0.0
        self._pace = 0.0  # s per iteration

    def _open_folder(self, *, writes: bool) -> RunFolder:
        args, problem = self.args, None
        how = {"writes": writes, "wandb": args.wandb}
        path = args.resume or args.run_dir
        if path is None:
            (stamp,) = agree(int(time.time()))
            date = time.strftime("%Y%m%d-%H%M%S", time.gmtime(stamp))
            path = Path("runs") / f"{args.env.replace('/', '-')}-{self.task.name}-{date}"
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
        task = self.task
        program = make_program(
            task.init, task.update, task.specs, self.mesh, MAX_CHUNK, one_by_one=task.one_by_one
        )
        cores = self.mesh.devices.size
        label = f"compile {self.args.num_seeds} seed(s) on {cores} {jax.devices()[0].platform}"
        with progress.phase(label) as phase:
            init, run = program.compile(self.args.num_seeds)
        self.compile_s = phase.seconds
        return program, init, run

    def start(self, init: Any, seeds: jax.Array) -> Any:
        """The first state: fresh, or that of the newest checkpoint."""
        state = init(seeds)
        if self.newest:
            self.iteration = self.resumed_at = self.newest
            return self.checkpoints.restore(self.newest, abstract(state))
        return state if self.task.fill is None else self.task.fill(state)

    def advance(
        self,
        program: Program,
        run: Any,
        state: Any,
        seeds: jax.Array,
        progress: Progress,
        stop: StopSignal,
    ) -> Any:
        """All chunks, with metrics read one chunk behind; returns the last state.

        Raises Interrupted after a signal and Diverged after a NaN.
        """
        pending = None
        self._recorded_at = saved_at = time.monotonic()
        while self.iteration < self.task.num_iterations:
            count = self.next_count()
            state, metrics = run(state, seeds, program.scalar(count))
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

    def record(self, last: int, count: int, metrics: Any, progress: Progress) -> None:
        """Log the chunk of `count` iterations that ended at iteration `last`."""
        host = {name: to_host(value)[:count] for name, value in metrics.items()}  # [count, K]
        now = time.monotonic()
        self._pace = (now - self._recorded_at) / count
        self.run_s += now - self._recorded_at
        self._recorded_at = now
        finite, problem = self._finite_until(host)
        for start in range(0, count, self.log_every):
            end = min(start + self.log_every, count)
            if end > finite:
                break
            window = {name: value[start:end] for name, value in host.items()}
            means = window_means(window, self.task.episode_metrics)
            done = last - count + end
            steps = self.task.steps(done)
            line = {name: jsonable(x) for name, x in means.items()}
            self.folder.log({"iteration": done, f"env_{self.task.unit}": steps, **line}, steps)
        if finite < count:
            self.folder.flush()
            raise Diverged(f"{problem} at iteration {last - count + finite + 1}; {self._advice()}")
        returns = host["episode_return"]
        known = returns[~np.isnan(returns)]
        warm = self.task.warm_up
        progress.update(
            self.task.steps(last),
            float(known.mean()) if known.size else None,
            f"warm start {last}/{warm}" if last < warm else "",
        )

    def _finite_until(self, host: dict[str, np.ndarray]) -> tuple[int, str]:
        """How many iterations come before the first that has a metric which is not finite."""
        finite, problem = len(host["episodes"]), ""
        for name, value in host.items():
            unknown = name in self.task.episode_metrics  # NaN where no episode ended
            bad = np.argwhere(~np.isfinite(value) & (not unknown))
            if len(bad) and bad[0][0] < finite:
                finite, seed = (int(x) for x in bad[0])
                problem = f"{name} of seed {self.args.seed + seed} is not finite"
        return finite, problem

    def _advice(self) -> str:
        saved = self.checkpoints.iterations()
        good = f"{self.checkpoints.folder / str(saved[-1])}" if saved else "none yet"
        return f"last good checkpoint: {good}. Try a new run with a lower --algo.learning-rate."

    def finish(self, state: Any) -> dict[str, Any]:
        """Save the policies, evaluate them, plot the curve; the summary."""
        policies = jax.tree.map(to_host, self.task.policy(state))
        args, task = self.args, self.task
        if not self.folder.writes:
            return {}
        task.save(self.folder.path, policies)
        final = task.evaluate(policies, args.seed, args.eval_episodes)
        played = task.steps(task.num_iterations)
        trained = (played - task.steps(self.resumed_at)) * args.num_seeds
        summary = {
            "env": args.env,
            "algo": task.name,
            f"env_{task.unit}": played,
            "num_seeds": args.num_seeds,
            "devices": self.mesh.devices.size,
            "compile_s": round(self.compile_s, 3),
            "run_s": round(self.run_s, 3),
            f"{task.unit}_per_s": round(trained / self.run_s) if self.run_s else None,
            "final_return": final,
        }
        self.folder.write_json("summary.json", summary)
        title = f"{task.name.upper()} on {args.env}: final return {final['mean']:.4g}"
        path = self.folder.path
        plot_curve(read_metrics(path), title, path / "curve.png", task.unit)
        return summary


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
            seeds = program.seeds(args.seed, args.num_seeds)
            state = run.start(init, seeds)
            run.folder.open_logs(run.iteration)
            progress.resumed(task.steps(run.iteration))
            state = run.advance(program, execute, state, seeds, progress, stop)
    finally:
        progress.close()
        run.folder.close()
        run.checkpoints.close()
    with progress.phase(f"evaluate {args.eval_episodes} episodes a seed"):
        summary = run.finish(state)
    if summary:
        report(summary, run.folder.path, task)
    return summary


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
    for name in sorted(task.told & final.keys()):
        print(f"final {name}: {final[name]:.3f}")
    print(f"curve: {path / 'curve.png'}\n{task.how_to_play.format(path)}")


def window_means(
    window: dict[str, np.ndarray], episode_metrics: Collection[str]
) -> dict[str, np.ndarray]:
    """Means [K] over a window [W, K]; those of episodes weigh every episode the same."""
    episodes = window["episodes"]
    means = {}
    for name, value in window.items():
        if name in episode_metrics:
            total = np.sum(np.where(episodes > 0, value * episodes, 0.0), 0)
            ended = np.sum(episodes, 0)
            means[name] = np.where(ended > 0, total / np.maximum(ended, 1), np.nan)
        else:
            means[name] = np.mean(value, 0)
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


def keep_compiled_programs() -> None:
    """Turn on the persistent compilation cache, unless the user has placed one."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxrl"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def main(args: Options, make_task: Callable[[Any], Task]) -> None:
    """Run a trainer from the command line: one line and exit code 2 for bad input."""
    try:
        join(args.hosts)
        keep_compiled_programs()
        train(args, make_task(args))
    except (ValueError, ImportError) as error:
        sys.exit(_say(f"error: {error}", 2))
    except Interrupted as stopped:
        sys.exit(_say(str(stopped), stopped.exit_code))
    except KeyboardInterrupt:
        sys.exit(_say("stopped without saving", 128 + signal.SIGINT))
    except Diverged as error:
        sys.exit(_say(f"diverged: {error}", 1))


def _say(text: str, exit_code: int) -> int:
    print(text, file=sys.stderr)
    return exit_code

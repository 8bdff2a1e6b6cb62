"""The host loop: compiles one program, calls it again and again, and keeps what it says.

Every trainer shares it. Nothing here is inside the program: flags, devices, files, signals.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxrl import memory
from jaxrl.checkpoint import Checkpoints, abstract
from jaxrl.metrics import Metrics
from jaxrl.program import Member, Program, make_program
from jaxrl.train import swept
from jaxrl.train.before import Before, before, words
from jaxrl.train.causes import Broken, advice, first_broken
from jaxrl.train.devices import choose, described, one_core_each
from jaxrl.train.logs import Lines, known_means
from jaxrl.train.options import Options
from jaxrl.train.plot import plot_curve
from jaxrl.train.progress import Progress, report
from jaxrl.train.resume import Past, files_of, layout_of, lost_lines
from jaxrl.train.run_folder import RunFolder, jsonable, numbered_path, read_metrics
from jaxrl.train.saving import kept, one_error, stopped
from jaxrl.train.stop import Diverged, Interrupted, StopSignal, leave_with
from jaxrl.train.tracing import Profiler
from jaxrl.train.trainer import Chunk, Task

CHUNK_SECONDS = 1.0  # work between two looks at the metrics
MAX_CHUNK = 1024  # iterations in a chunk at most


Callback = Callable[[Chunk], bool | None]  # True: enough


class Run:
    """One run from its first chunk to its summary."""

    def __init__(self, args: Options, task: Task, callback: Callback | None = None):
        self.args, self.task, self.callback = args, task, callback
        self.enough = False  # the callback says so
        self.members = swept.members_of(args, task.cfg, task.env, task.name)
        self.mesh, self.past = self._open()
        leave_with(self.left_at_once)
        self.newest = 0 if self.past is None else self.past.iteration
        if task.host is not None:
            task.host.open(self.folder.path, self.newest)
        self.of_env = jax.eval_shape(task.env.reset, jax.random.key(0))[1].metrics.keys()
        self.lines = Lines(args.log_every or -(-task.num_iterations // 1000))
        self.iteration = self.resumed_at = 0
        self.compile_s = self.run_s = 0.0
        self._pace = 0.0  # s per iteration
        self.profile = Profiler(self.folder.path if args.profile and self.folder.writes else None)
        self.before: Before | None = None if self.past is None else self.past.before

    def _open(self) -> tuple[Mesh, Past | None]:
        """Enter the run folder; the devices, and of a run that goes on what it was until now."""
        args, task = self.args, self.task
        sizes = (task.num_blocks, task.minibatch_rows, task.weights)
        if args.resume is None:
            mesh = choose(args.devices, args.num_members, *sizes)
            check_memory(args, task, list(mesh.devices.flat))
            layout = asdict(layout_of(mesh, task.num_blocks, task.weights))
            self.folder = self._open_folder({"layout": layout, "files": files_of(args)})
            self.checkpoints = Checkpoints(self.folder.checkpoints)
            return mesh, None
        self.folder = self._open_folder({})
        self.checkpoints = Checkpoints(self.folder.checkpoints)
        try:
            (newest,) = agree(max(self.checkpoints.iterations(), default=0))
            record = self.checkpoints.record(newest) if newest else {}
            past = Past(self.folder.config, record, newest, self.checkpoints.path(newest), args)
            mesh = past.mesh(args, *sizes)
            check_memory(args, task, list(mesh.devices.flat))
            past.tell(self.folder.writes)
        except BaseException:
            self.folder.close()  # or the next one could not enter
            raise
        return mesh, past

    def _open_folder(self, about: dict[str, Any]) -> RunFolder:
        args, problem = self.args, None
        how: Any = {"writes": jax.process_index() == 0, "wandb": args.wandb}
        how["trainer"] = self.task.name
        path = args.resume or args.run_dir
        if path is None:
            (stamp,) = agree(int(time.time()))
            date = time.strftime("%Y%m%d-%H%M%S", time.gmtime(stamp))
            name = args.env.replace("/", "-").replace(":", "-")
            path = Path("runs") / f"{name}-{self.task.name}-{date}"
        folder = None
        try:
            if args.resume is None:
                folder = RunFolder.create(path, args, about, numbered=args.run_dir is None, **how)
            else:
                folder = RunFolder.reopen(path, **how)
        except ValueError as error:
            problem = error
        # or the other hosts would wait for this one, or write to another folder
        failed, number = agree(int(problem is not None), folder.number if folder else 0)
        if folder is None or failed:
            if folder is not None:
                folder.close()
            raise problem or ValueError(f"run_dir={path} was refused on another host; see there.")
        folder.path = numbered_path(path, number)
        return folder

    def left_at_once(self) -> str:
        """What a command says that a signal ends at once."""
        path = self.folder.path
        return f"stopped; {kept(path, self.checkpoints.iterations())}: go on with --resume {path}"

    def complete(self, progress: Progress) -> dict[str, Any]:
        """Compile, train, evaluate; the summary.

        Raises Interrupted after a signal; where there is nothing new to save one acts at once.
        """
        alone = jax.process_count() == 1  # or the other hosts have to be told
        with StopSignal(self.left_at_once, at_once=alone) as stop:
            program, init, execute = self.compile(progress)
            stop.at_once = False
            end = self.task.outcome.trained(self.advance(program, execute, init, progress, stop))
            trained = jax.tree.map(to_host, end)
        (stopping,) = agree(stop.signum)
        if stopping:
            raise Interrupted(stopping, self.folder.path)
        path = self.folder.path
        leave_with(lambda: f"stopped; training is saved, --resume {path} only evaluates it again")
        progress.close()
        self.folder.close_logs()
        self.checkpoints.close()
        with progress.phase(f"evaluate {self.args.eval_episodes} episodes a seed"):
            summary = self.finish(trained)
        leave_with(lambda: f"stopped at its end; all is saved in {path}")
        return summary

    def compile(self, progress: Progress) -> tuple[Program, Any, Any]:
        """The program and its two executables, init and run."""
        program = program_of(self.task, self.mesh)
        weights = self.task.weights
        label = f"compile {swept.words(self.args)} on {described(self.mesh, weights)}"
        with progress.phase(label) as phase:
            init, run = program.compile(self.members, one_core_each(self.mesh, weights))
        memory.give_back()
        self.compile_s = phase.seconds
        return program, init, run

    def start(self, init: Any, placed: Member) -> Any:
        """The first state: fresh, or that of the newest checkpoint."""
        state = init(placed)
        if self.newest:
            self.iteration = self.resumed_at = self.newest
            state = self.checkpoints.restore(self.newest, abstract(state))
            self.checkpoints.refuse_copy(self.newest, int(to_host(state.iteration).flat[0]))
            return state
        return state if self.task.start is None else self.task.start(state)

    def open_logs(self) -> None:
        """Open the logs where the run goes on, and see what is left of them."""
        kept = self.folder.open_logs(self.iteration, self.task.steps(self.iteration))
        if self.past is not None:
            self.past.find_lines(kept, self.lines)
            layout = layout_of(self.mesh, self.task.num_blocks, self.task.weights)
            self.folder.goes_on(self.past.extended(self.args, layout))
            self.past.tell(self.folder.writes)

    def advance(
        self, program: Program, run: Any, init: Any, progress: Progress, stop: StopSignal
    ) -> Any:
        """All chunks, with metrics read one chunk behind; returns the last state.

        Where a callback says that it is enough, the chunk that runs then is the last. Raises
        Interrupted after a signal and Diverged after a NaN.
        """
        placed = program.place(self.members)
        state = self.start(init, placed)
        self.open_logs()
        progress.resumed(self.task.steps(self.iteration))
        pending = None
        self._recorded_at = saved_at = time.monotonic()
        while self.iteration < self.task.num_iterations:
            count = self.next_count()
            if pending is not None and self.profile.is_next:  # or it would count into the pace
                pending = self.record(*pending, progress)
            state, metrics = self.profile(run, state, placed, program.scalar(count))
            self.iteration += count
            if pending is not None:
                self.record(*pending, progress)
            pending = (self.iteration, count, metrics)
            if self.task.host is not None:  # its metrics are there: a chunk ends with its call
                pending = self.record(*pending, progress)
            self.transcribe(state)  # before the next chunk takes its memory
            due = time.monotonic() - saved_at > self.args.checkpoint_every
            stopping, due, enough = agree(stop.signum, int(due), int(self.enough))
            if stopping or due or enough or self.iteration >= self.task.num_iterations:
                if pending is not None:
                    self.record(*pending, progress)  # nothing is saved before it is known finite
                pending, saved_at = None, time.monotonic()
                self.folder.flush()
                with one_error(self.checkpoints.folder, self.iteration):
                    self.checkpoints.save(self.iteration, state, self.to_remember())
            if stopping:
                raise Interrupted(stopping, self.folder.path)
            if enough:
                break
        return state

    def to_remember(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the state."""
        folder, lines = self.folder, self.lines.as_json()
        written = folder.transcribed
        return {
            "config": folder.config, "lines": lines, "transcripts": written, "before": self.before
        }  # fmt: skip

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
        """Iterations in the next chunk: about CHUNK_SECONDS, whatever a line of the log takes."""
        seconds = min(CHUNK_SECONDS, self.args.checkpoint_every)
        wanted = int(np.clip(seconds / self._pace if self._pace else 1, 1, MAX_CHUNK))
        (count,) = agree(wanted if jax.process_index() == 0 else 0)
        return min(count, self.task.num_iterations - self.iteration)

    def record(self, last: int, count: int, metrics: Metrics, progress: Progress) -> None:
        """Log the chunk of `count` iterations that ended at iteration `last`."""
        task = self.task
        host: Metrics = jax.tree.map(lambda x: to_host(x)[:count], metrics)  # [count, K]
        if self.args.sweep:
            host = swept.without_broken(host)
        now = time.monotonic()
        self._pace = (now - self._recorded_at) / count
        self.run_s += now - self._recorded_at
        self._recorded_at = now
        broken = first_broken(host, count, self.of_env)
        good = count if broken is None else broken.before
        for done, means in self.lines.add(host, last - count + good, good, task.num_iterations):
            line = {name: jsonable(x) for name, x in means.items()}
            steps = task.steps(done)
            pace = task.steps_per_iteration * self.args.num_members / self._pace
            where = {"iteration": done, f"env_{task.unit}": steps}
            self.folder.log(where, line, steps, {f"{task.unit}_per_s": pace}, self.of_env)
        if broken is not None:
            self.folder.flush()
            raise Diverged(self._why(broken, last - count + good + 1))
        self._look_at_start(host, task.warm_up - (last - count), count, progress)
        means = known_means(host)
        over_chunk = {name: float(np.nanmean(x)) for name, x in means.items()}
        reason = None if task.refuse is None else task.refuse(over_chunk)
        if reason is not None:
            self.folder.flush()
            raise ValueError(reason)
        note = f"warm start {last}/{task.warm_up}" if last < task.warm_up else ""
        progress.update(task.steps(last), over_chunk.get("episode_return"), note)
        if self.callback is not None and self.callback(Chunk(last, task.steps(last), means)):
            self.enough = True

    def _look_at_start(self, host: Metrics, index: int, count: int, progress: Progress) -> None:
        """Say what was scored in iteration `index` of this chunk, the first that learns."""
        if not 0 <= index < count or (found := before(host, index)) is None:
            return
        self.before = found
        for line in words(found, self.task.warm_up > 0, self.task.env, self.folder.path):
            progress.say(line)

    def _why(self, broken: Broken, iteration: int) -> str:
        saved = self.checkpoints.iterations()
        good = f"{self.checkpoints.path(saved[-1])}" if saved else "none yet"
        return (
            f"{broken.what} of {swept.member(self.args, broken.member)} is not finite at iteration "
            f"{iteration}; last good checkpoint: {good}. {advice(broken, self.args.env)}"
        )

    def finish(self, trained: Any) -> dict[str, Any]:
        """Save what was trained, evaluate it, plot the curve; the summary."""
        args, task, outcome = self.args, self.task, self.task.outcome
        if not self.folder.writes:
            return {}
        trained, lost = swept.mended(trained) if args.sweep else (trained, None)
        outcome.save(self.folder.path, trained)
        final = outcome.evaluate(trained, self.members, args.eval_episodes)
        played = task.steps(self.iteration)
        new = (played - task.steps(self.resumed_at)) * args.num_members
        summary = {
            "env": args.env,
            "algo": task.name,
            f"env_{task.unit}": played,
            "num_seeds": args.num_seeds,
            "members": args.num_members,
            "devices": self.mesh.devices.size,
            "compile_s": round(self.compile_s, 3),
            "run_s": round(self.run_s, 3),
            f"{task.unit}_per_s": round(new / self.run_s) if self.run_s else None,
            "final_return": final,
        }
        if self.iteration < task.num_iterations:
            summary["stopped_at"] = self.iteration
        if self.before is not None:
            summary["before"] = self.before
        if lost := lost_lines(self.folder.config):
            summary["lost"] = lost
        if task.host is not None:
            summary |= task.host.summary()
        self.folder.write_json("summary.json", summary)
        if args.sweep:
            summary["sweep"] = swept.write(self.folder, args, task.name, final["per_seed"], lost)
        title = f"{task.name.upper()} on {args.env}: final return {final['mean']:.4g}"
        path = self.folder.path
        plot_curve(read_metrics(path), title, path / "curve.png", task.unit)
        return summary


def check_memory(args: Options, task: Task, devices: list[Any]) -> None:
    """ValueError for a run, or its evaluation at the end, that the devices cannot hold."""
    option = "configurations x seeds" if args.sweep else "num_seeds"
    evaluating = task.outcome.parts(args.eval_episodes)
    memory.check(task.parts, args.num_members, devices, option)
    memory.check(evaluating, args.num_members, devices[:1], option)


def train(args: Options, task: Task) -> dict[str, Any]:
    """`run`, and what came of it for a person; returns the summary."""
    summary, path = run(args, task)
    if summary:
        report(summary, path, task)
    return summary


def run(
    args: Options, task: Task, callback: Callback | None = None, *, shows: bool = True
) -> tuple[dict[str, Any], Path]:
    """Run `task` to its end, or until the callback says so; returns the summary and the run folder.

    Raises ValueError for what cannot work (before anything is compiled), Interrupted, Diverged, and
    Stopped where the folder cannot be written any more.
    """
    run = Run(args, task, callback)
    progress = Progress(
        task.steps(task.num_iterations),
        task.unit.removesuffix("s"),
        shows=shows and jax.process_index() == 0,
    )
    try:
        try:
            summary = run.complete(progress)
        finally:
            progress.close()
            run.folder.close()
            if task.host is not None:
                task.host.close()
            with one_error(run.checkpoints.folder, run.iteration):
                run.checkpoints.close()
    except BrokenPipeError:
        raise  # the terminal's, not the folder's
    except OSError as error:
        raise stopped(error, run.folder.path, run.checkpoints.iterations()) from None
    return summary, run.folder.path


def program_of(task: Task, mesh: Any) -> Program:
    """The program of a task on a mesh, not compiled."""
    if task.host is not None:
        return task.host.program(task, mesh)
    how: Any = {"one_by_one": task.one_by_one, "look": task.look}
    return make_program(task.init, task.update, task.layout, mesh, MAX_CHUNK, **how)


def to_host(x: jax.Array | np.ndarray) -> np.ndarray:
    """The whole array on this host, wherever its pieces lie."""
    if isinstance(x, np.ndarray) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def agree(*numbers: int) -> tuple[int, ...]:
    """The largest of every host's numbers: the hosts must take the same turn."""
    if jax.process_count() == 1:
        return numbers
    everyone = multihost_utils.process_allgather(np.asarray(numbers, np.int64))
    return tuple(int(x) for x in everyone.max(0))

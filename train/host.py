"""Training where environments are stepped by Python: the same learner, in two programs and a host.

A compiled `act` plays in a thread of its own while a compiled `learn` works on the rollout before;
both are made of the functions of the one program (`jaxrl/hosted.py`).
"""

import importlib.util
import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl.config import check_fields, check_positive, check_range
from jaxrl.env import per_env_keys
from jaxrl.host import machines
from jaxrl.host.actor import OF_EPISODES, Actor, Noted
from jaxrl.host.environment import HostEnvironment
from jaxrl.host.worlds import Episode
from jaxrl.hosted import Hosted, Played, to_env
from jaxrl.mesh import DATA, SEED, axis_size, global_index
from jaxrl.metrics import Metrics, Sums, add_up, until_broken
from jaxrl.policy import Policy
from jaxrl.program import ONE_CORE, Member, Program, make_program, over_members, seed_keys
from jaxrl.rollout import Ended, Transition, forget
from jaxrl.spaces import by_leaf, is_space
from jaxrl.statistics import summarize_returns
from jaxrl.train import edge
from jaxrl.train.devices import num_cores

RESUMES = "the learner exactly; environments begin new episodes"  # told in summary.json


@dataclass(frozen=True)
class Actors:
    """How environments that Python steps are played."""

    processes: int = 0  # that step environments; 0: one for each core
    overlap: bool = True  # play the next rollout while learning, with weights one rollout old
    deadline: float = 60.0  # s that a step may take before its process counts as dead
    ray: str | None = None  # processes on a Ray cluster: auto, HOST:PORT, or local to try it

    def __post_init__(self):
        check_fields(self)
        check_range("actors.processes", self.processes, 0, 4096, 0)
        check_positive("actors.deadline", self.deadline, 60.0)
        if self.ray is not None and importlib.util.find_spec("ray") is None:
            raise ImportError(f"actors.ray={self.ray} needs Ray: pip install 'jaxrl[ray]'.")

    @property
    def num_processes(self) -> int:
        """At most so many; no more than there are environments."""
        return self.processes or num_cores()


class HostPlay:
    """The environments of a run, and the program around them; `Task.host`."""

    def __init__(
        self, env: HostEnvironment, cfg: Any, actors: Actors, algorithm: ModuleType | None = None
    ):
        self.env, self.cfg, self.actors = env, cfg, actors
        self.hosted: Callable[..., Hosted] | None = getattr(algorithm, "hosted", None)
        if algorithm is not None and self.hosted is None:
            raise ValueError(
                f"env={env.world.id} is stepped by Python, which train."
                f"{algorithm.__name__.split('.')[-1]} does not serve; try train.ppo, a2c, dqn, sac "
                "or td3."
            )
        if actors.ray is not None and env.world.threads:
            raise ValueError(
                f"actors.ray={actors.ray} plays on other machines, and env={env.world.id} in "
                "threads of this one; try --env-args engine=ale."
            )
        if algorithm is not None and env.world.note:
            edge.say(f"note: {env.world.note}")
        if actors.ray is not None:
            machines.join(actors.ray)
        self.wrap = getattr(algorithm, "wrap", None)
        self.worlds: Any = None

    def program(self, task: Any, mesh: Mesh) -> "HostProgram":
        return HostProgram(self, make_program(task.init, task.update, task.layout, mesh), task)

    def open(self, folder: Path, iteration: int) -> None:
        """The run begins in a folder, which keeps nothing of environments."""

    def start(self, num_envs: int) -> Any:
        """Processes for so many environments, in place of those before."""
        self.close()
        self.worlds = self.env.world.open(num_envs, self.actors)
        return self.worlds

    def close(self) -> None:
        """End all processes."""
        if self.worlds is not None:
            self.worlds.close()

    def summary(self) -> dict[str, Any]:
        """What summary.json says of them."""
        restarts = 0 if self.worlds is None else self.worlds.restarts
        return {"worlds": {"restarts": restarts, "resume": RESUMES}}


class HostProgram:
    """As `jaxrl.program.Program`, with a `run` that calls compiled parts."""

    def __init__(self, host: HostPlay, base: Program, task: Any):
        self.host, self.base, self.task = host, base, task
        self.place, self.scalar, self.mesh = base.place, base.scalar, base.mesh
        self.waiting: Future | None = None  # the rollout that is being played
        self.treedef: Any = None  # of what acting reads of a state
        self.thread = ThreadPoolExecutor(1)
        self.acting = acting_mesh(base.mesh)
        self.there = NamedSharding(self.acting, P(SEED))

    def compile(self, members: Member, one_core: bool = True) -> tuple[Callable, Callable]:
        """(init, run): `run(state, members, count)` is as that of the one program."""
        state, members, _ = self.base.abstract(members)
        init = self.base.init.lower(members).compile()
        self._parts(one_core)
        self._compiled(state, members)
        return init, self.run

    def _hosted(self, member: Member) -> Hosted:
        assert self.host.hosted is not None
        return self.host.hosted(member.cfg, self._wrapped(member))

    def _wrapped(self, member: Member) -> Any:
        assert self.host.wrap is not None
        return self.host.wrap(member.env, member.cfg)

    def _parts(self, one_core: bool) -> None:
        """What a rollout and an iteration are made of, jitted."""
        layout = self.base.layout
        axis = DATA if self.mesh.shape[DATA] > 1 else None
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        options = ONE_CORE if on_cpu and one_core else None
        whole, split, in_time = P(SEED), P(SEED, DATA), P(SEED, None, DATA)
        hosted = self._hosted(Member(0, self.host.cfg, self.host.env))
        self.num_rounds, self.num_steps = hosted.num_rounds, hosted.num_steps

        def mapped(f: Callable, ins: Any, outs: Any, acts: bool = False, **how: Any) -> Callable:
            where: Any = {"mesh": self.acting if acts else self.mesh, "check_vma": False}
            over = jax.shard_map(over_members(f), in_specs=ins, out_specs=outs, **where)
            return jax.jit(over, compiler_options=options, **how)

        def key_of(state: Any, member: Member) -> jax.Array:
            return jax.random.fold_in(seed_keys(member.seed)[1], state)

        def start(state: Any, member: Member) -> tuple:
            parts = self._hosted(member)
            return parts.afresh(state), parts.memory(parts.afresh(state))

        def snapshot(state: Any, member: Member) -> list[jax.Array]:
            # As leaves: to take a module apart costs more than a small network's step.
            leaves, self.treedef = jax.tree.flatten(self._hosted(member).player(state))
            return [jnp.copy(x) for x in leaves]

        def noise(member: Member, iteration: jax.Array, i: jax.Array) -> Any:
            parts = self._hosted(member)
            rollout_key = parts.keys(key_of(iteration, member), i)[0]
            index = global_index(self.task.cfg.num_envs // axis_size(axis), axis)
            keys = per_env_keys(jax.random.split(rollout_key)[0], index)
            return jax.vmap(lambda k: parts.noise(k, (self.num_steps,)), out_axes=1)(keys)

        def act(player: Any, member: Member, memory: Any, fresh: Any, obs: Any, noise: Any, t: Any):
            now = jax.tree.map(lambda x: x[t], noise)
            player = self.treedef.unflatten(player)
            memory, chosen = self._hosted(member).act(player, forget(memory, fresh), obs, now)
            return memory, chosen.action, chosen.aux, to_env(self._wrapped(member), chosen.action)

        def learn(state: Any, member: Member, played: Played, i: jax.Array) -> tuple:
            parts, iteration = self._hosted(member), state.iteration
            key = parts.keys(key_of(iteration, member), i)[1]
            state, log = parts.learn(state, played, key, axis)
            return state.replace(iteration=iteration + (i == self.num_rounds - 1)), log

        given = Played(in_time, split, split, split, split)  # pyright: ignore
        of_all = whole, whole
        self.start = mapped(start, (layout, whole), (layout, split), donate_argnums=0)
        self.snapshot = mapped(snapshot, (layout, whole), whole)
        self.noise = mapped(noise, (whole, *of_all), in_time, acts=True)
        seen = *of_all, split, split, split, in_time, whole
        self.act = mapped(act, seen, split, acts=True)
        self.learn = mapped(learn, (layout, whole, given, whole), (layout, whole), donate_argnums=0)

    def _compiled(self, state: Any, members: Member) -> None:
        """The parts as executables: what they take follows from what the others give."""
        K, B, T = *members.seed.shape, self.task.cfg.num_envs, self.num_steps
        number: Any = jax.ShapeDtypeStruct((K,), np.int32)
        flag: Any = jax.ShapeDtypeStruct((K, B), np.bool_)
        _, memory = jax.eval_shape(self.start, state, members)
        player = jax.eval_shape(self.snapshot, state, members)
        elsewhere: Any = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.there), members
        )
        noise = jax.eval_shape(self.noise, elsewhere, number, number)
        obs = jax.tree.map(
            lambda s: jax.ShapeDtypeStruct((K, B, *s.shape), s.dtype),
            by_leaf(self.host.env.observation_space),
            is_leaf=is_space,
        )
        seen = player, elsewhere, memory, flag, obs, noise, number
        memory, action, aux, _ = jax.eval_shape(self.act, *seen)
        reward: Any = jax.ShapeDtypeStruct((K, B), np.float32)
        one = Transition(obs, action, aux, reward, flag, flag, obs)
        steps = jax.tree.map(lambda x: jax.ShapeDtypeStruct((K, T, *x.shape[1:]), x.dtype), one)
        ended = {name: reward for name in OF_EPISODES}
        played = Played(steps, Ended(ended, reward, reward, reward), obs, memory, flag)
        self.start = self.start.lower(state, members).compile()
        self.snapshot = self.snapshot.lower(state, members).compile()
        self.noise = self.noise.lower(elsewhere, number, number).compile()
        self.act = self.act.lower(*seen).compile()
        self.learn = self.learn.lower(state, members, played, number).compile()

    def run(self, state: Any, members: Member, count: Any) -> tuple[Any, Metrics]:
        """`count` iterations; metrics as Sums with leaves [count, K]."""
        first = int(np.asarray(state.iteration)[0])
        if self.host.worlds is None:
            state = self._begin(state, members, first)
        logged = []
        for iteration in range(first, first + int(count)):
            rounds: list[Metrics] = []
            noted: list[Noted] = []
            for i in range(self.num_rounds):
                played, seen = self._next(state, members, iteration, i)
                state, log = self.learn(state, members, played, self._whole(i))
                rounds.append(log)
                noted.append(seen)
            logged.append(self._log(rounds, noted))
        names = {name for log in logged for name in log}
        unknown = sums(*np.zeros((2, self.actor.shape[0]), np.float32))
        logged = [{name: log.get(name, unknown) for name in names} for log in logged]
        return state, jax.tree.map(lambda *x: np.stack(x), *logged)

    def _begin(self, state: Any, members: Member, iteration: int) -> Any:
        """Environments for the run; the state as it is where all episodes are new."""
        seeds = [int(x) for x in np.asarray(members.seed)]
        shape = len(seeds), self.task.cfg.num_envs
        self.actor = Actor(self.host.start(shape[0] * shape[1]), shape, self._act, self.num_steps)
        state, memory = self.start(state, members)
        self.actor.begin(env_seeds(seeds, iteration, shape[1]), jax.tree.map(np.asarray, memory))
        self.members = jax.device_put(members, self.there)
        return state

    def _act(self, player: Any, *seen: Any) -> Any:
        memory, fresh, obs, noise, t = seen
        times = np.full(self.actor.shape[0], t)
        return self.act(player, self.members, memory, fresh, obs, noise, times)

    def _next(self, state: Any, members: Member, iteration: int, i: int) -> tuple[Played, Noted]:
        """The rollout before round i of an iteration; with `overlap` the one after it begins."""

        def begin(iteration: int, i: int) -> Future:
            player = jax.device_put(self.snapshot(state, members), self.there)
            noise = self.noise(self.members, self._whole(iteration), self._whole(i))
            return self.thread.submit(self.actor.play, player, noise)

        if self.waiting is None:
            self.waiting = begin(iteration, i)
        found, self.waiting = self.waiting.result(), None
        following = divmod(iteration * self.num_rounds + i + 1, self.num_rounds)
        if self.host.actors.overlap and following[0] < self.task.num_iterations:
            self.waiting = begin(*following)
        return found

    def _whole(self, number: int) -> np.ndarray:
        """int32 [K]."""
        return np.full(self.members.seed.shape, number, np.int32)

    def _log(self, rounds: list[Metrics], noted: list[Noted]) -> Metrics:
        """An iteration's metrics, leaves [K] on the host."""
        shape = self.actor.shape
        parts = jax.tree.map(lambda *x: np.stack([np.asarray(one) for one in x]), *rounds)
        learned = jax.tree.map(np.asarray, add_up(until_broken(parts)))
        episodes = [episode for one in noted for episode in one.episodes]
        lost = np.full(shape[0], sum(one.lost for one in noted) / shape[0], np.float32)
        told = of_episodes(episodes, shape) | {"lost_episodes": sums(lost, np.ones_like(lost))}
        return learned | told


def acting_mesh(mesh: Mesh) -> Mesh:
    """Where acting is computed: beside a learner of one device, if there is another of its kind.

    A device takes one program after the other, so that on the learner's own acting would wait.
    """
    one = mesh.devices.flat[0]
    others = [d for d in jax.local_devices() if d.platform == one.platform and d != one]
    if mesh.devices.size > 1 or not others:
        return mesh
    return Mesh(np.asarray(others[:1]).reshape(mesh.devices.shape), mesh.axis_names)


def sums(numerator: Any, denominator: Any) -> Sums:
    """Sums of arrays on the host."""
    return Sums(numerator, denominator)


def of_episodes(episodes: list[Episode], shape: tuple[int, int]) -> Metrics:
    """Means over the episodes of each member [K], whose environments are its row of `shape`."""
    names = {"episode_return", "episode_length"} | {name for _, one in episodes for name in one}
    added = {name: np.zeros((2, shape[0]), np.float32) for name in sorted(names)}
    count = np.zeros(shape[0], np.float32)
    for index, metrics in episodes:
        k = index // shape[1]
        count[k] += 1
        for name, x in metrics.items():
            added[name][:, k] += x, 1.0
    means = {name: sums(*both) for name, both in added.items()}
    return means | {"episodes": sums(count, np.ones_like(count))}


def env_seeds(seeds: list[int], iteration: int, num_envs: int) -> list[int]:
    """One for each environment of each member, of a run that begins at this iteration."""
    grid = [(seed, iteration, index) for seed in seeds for index in range(num_envs)]
    return [int(np.random.SeedSequence(entry).generate_state(1)[0] >> 1) for entry in grid]


def evaluate_on_host(
    host: HostPlay, policies: Policy, members: Member, episodes: int
) -> dict[str, Any]:
    """Statistics of so many fresh episodes of each policy [K, ...], actions sampled."""
    num_envs = min(episodes, host.cfg.num_envs)
    quota = np.array([len(share) for share in np.array_split(np.arange(episodes), num_envs)])

    @jax.jit
    def act(policy: Policy, memory: Any, fresh: Any, obs: Any, key: Any) -> tuple:
        return policy.step(forget(memory, fresh), obs, key)

    found = []
    for k, seed in enumerate(np.asarray(members.seed)):
        policy = jax.tree.map(lambda x, k=k: jnp.asarray(x[k]), policies)
        key = seed_keys(jnp.uint32(seed))[2]
        worlds = host.start(num_envs)
        # The key of training's episodes is the iteration at which it began: none began so late.
        obs, left = worlds.reset(env_seeds([int(seed)], 2**31, num_envs)), quota.copy()
        memory, fresh = policy.begin((num_envs,)), np.ones(num_envs, np.bool_)
        kept: list[dict[str, float]] = []
        for t in itertools.count():
            memory, action = act(policy, memory, fresh, obs, jax.random.fold_in(key, t))
            outcome = worlds.step(np.asarray(action))
            for index, metrics in outcome.ended:
                if left[index] > 0:
                    left[index] -= 1
                    kept.append(metrics)
            obs, fresh = outcome.obs, outcome.terminated | outcome.truncated | outcome.lost
            if not left.any():
                break
        found.append(kept)
    host.close()
    names = sorted(set.intersection(*(set(one) for kept in found for one in kept)))
    arrays = {n: np.array([[one[n] for one in kept] for kept in found]) for n in names}
    return summarize_returns(arrays.pop("episode_return"), arrays)

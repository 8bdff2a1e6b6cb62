"""The program of a run in which the host has a word: compiled parts, called from Python in turn.

What `jaxrl.program.Program` is to a run without. One device; members one after the other. Two
halves of an iteration's prompts take turns: while one decodes, the host answers the other.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.lm.host.player import take_turns
from jaxrl.lm.host.speaker import Parts, Speaker, play
from jaxrl.lm.host.worlds import Place
from jaxrl.lm.learn.agent import Agent, State
from jaxrl.lm.learn.iteration import in_layers, warm_up
from jaxrl.lm.learn.options import GroupConfig
from jaxrl.metrics import Metrics, Sums
from jaxrl.program import ONE_CORE, QUICK_TO_COMPILE, Member, seed_keys

Compiled = dict[str, Any]  # name -> the executable of a part


@dataclass(frozen=True)
class HostProgram:
    """`compile` gives (init, run) as those of a `Program` are, over states [K, ...]."""

    init_one: Callable  # (key, member, *, axis) -> state
    update_one: Callable  # an algorithm's `update`, which takes what was `played`
    cfg: GroupConfig
    agent: Agent
    count: int  # members, K

    @property
    def halves(self) -> int:
        """Parts of an iteration's prompts that take turns."""
        return 2 if self.cfg.num_prompts % 2 == 0 else 1

    @cached_property
    def index(self) -> list[np.ndarray]:
        """The prompts of each half."""
        return np.split(np.arange(self.cfg.num_prompts, dtype=np.int32), self.halves)

    @property
    def parts(self) -> Parts:
        lanes = max(1, self.cfg.num_lanes // self.halves)
        return Parts(self.agent, self.cfg.group_size, lanes)

    def place(self, members: Member) -> Member:
        return jax.device_put(members)

    def scalar(self, value: int) -> int:
        return value

    def compile(self, members: Member, one_core: bool = True) -> tuple[Callable, Callable]:
        """(init, run), ahead of time and side by side."""
        on_cpu = jax.devices()[0].platform == "cpu"
        options = ONE_CORE if on_cpu and one_core else None
        parts, prompts = self.parts, len(self.index[0])
        state = jax.eval_shape(self._init, members)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        who = jax.eval_shape(self._enter, state, members, number)
        shapes = parts.shapes(who, prompts)
        if "play" in shapes:
            _, _, record, work = jax.eval_shape(parts.play, *shapes["play"])
        else:
            rounds = shapes["go_on"][3]
            record, work = rounds.record, rounds.work
        rows = (prompts * self.cfg.group_size,)
        judged = [jax.ShapeDtypeStruct(rows, kind) for kind in (jnp.float32, jnp.bool_)]
        learning = (state, members, number, [(record, work, *judged)] * self.halves)
        jobs: dict[str, tuple] = {
            "enter": (self._enter, (state, members, number), (), options),
            "learn": (self._learn, learning, (0,), options),
            "init": (self._init, (members,), (), QUICK_TO_COMPILE if on_cpu else None),
        }
        for name, arguments in shapes.items():
            donated = (3,) if name == "go_on" else ()
            jobs[name] = (getattr(parts, name), arguments, donated, options)
        if self.cfg.sft_steps:
            like = jax.eval_shape(self._learn, *learning)[1]
            warm = (partial(self._warm, like), (state, members, number), (0,), options)
            jobs["warm"] = warm
        with ThreadPoolExecutor(len(jobs)) as pool:
            found = dict(zip(jobs, pool.map(_compiled, jobs.values()), strict=True))
        return found.pop("init"), partial(self.run, found)

    def run(self, parts: Compiled, state: Any, members: Member, count: int) -> tuple[Any, Metrics]:
        """(state [K, ...], metrics [count, K]) after so many iterations."""
        rows: list[list[Metrics]] = []
        for _ in range(count):
            rows.append([])
            for k in range(self.count):
                state, metrics = self.iterate(parts, state, members, k)
                rows[-1].append(metrics)
        names = dict.fromkeys(name for row in rows for one in row for name in one)
        return state, {name: _stacked(name, rows) for name in names}

    def iterate(self, parts: Compiled, state: Any, members: Member, k: int) -> tuple[Any, Metrics]:
        """(state [K, ...], metrics) after an iteration of member k."""
        iteration, seed = int(state.iteration[k]), int(members.seed[k])
        if iteration < self.cfg.sft_steps:
            state, metrics = parts["warm"](state, members, k)
            return state, jax.device_get(metrics)
        place = Place(seed, iteration, self.cfg.num_iterations)
        who = parts["enter"](state, members, k)
        host, group = self.agent.host, self.cfg.group_size
        played: list[dict[str, Any]] = [{} for _ in self.index]
        take_turns(
            [
                play(parts, host, who, index, group, place, out)
                for index, out in zip(self.index, played, strict=True)
            ]
        )
        del who  # a copy of the policy
        state, metrics = parts["learn"](state, members, k, [tuple(x.values()) for x in played])
        own = {n: Sums(*map(jnp.float32, x)) for n, x in host.ledger.take().items()}
        return state, jax.device_get(metrics) | own

    def _init(self, members: Member) -> Any:
        def one(member: Member) -> Any:
            return self.init_one(seed_keys(member.seed)[0], member, axis=None)

        return jax.lax.map(one, members)

    def _enter(self, state: State, members: Member, k: Any) -> Speaker:
        """The policy of member k as it plays in its iteration."""
        state, member = self._pick((state, members), k)
        cfg = member.cfg.at_iteration(state.iteration)
        play_key, _, _ = jax.random.split(_key(state, member), 3)
        policy = in_layers(state.params, cfg).policy
        return Speaker(policy, jax.random.key_data(play_key), cfg, member.env)

    def _learn(self, state: State, members: Member, k: Any, played: Any) -> tuple[State, Metrics]:
        one, member = self._pick((state, members), k)
        paid = [self.agent.host.paid(record, *judged) for record, _, *judged in played]
        record = jax.tree.map(lambda *x: jnp.concatenate(x), *paid)
        work = jax.tree.map(lambda *x: sum(x), *(work for _, work, *_ in played))
        how: Any = {"cfg": member.cfg, "agent": self._in(member), "axis": None}
        one, metrics = self.update_one(one, _key(one, member), played=(record, work), **how)
        return self._put(state, one, k), metrics

    def _warm(self, like: Metrics, state: State, members: Member, k: Any) -> tuple[State, Metrics]:
        one, member = self._pick((state, members), k)
        how: Any = {"cfg": member.cfg, "agent": self._in(member), "axis": None}
        one, metrics = warm_up(one, _key(one, member), like=like, **how)
        return self._put(state, one, k), metrics

    def _in(self, member: Member) -> Agent:
        return replace(self.agent, env=member.env)

    def _pick(self, stacked: Any, k: Any) -> Any:
        """Member k of leaves [K, ...]; of a single one without an index, which would be a copy."""
        return jax.tree.map(lambda x: x[0] if self.count == 1 else x[k], stacked)

    def _put(self, stacked: Any, one: Any, k: Any) -> Any:
        def put(x: jax.Array, y: jax.Array) -> jax.Array:
            return y[None] if self.count == 1 else x.at[k].set(y)

        return jax.tree.map(put, stacked, one)


def _compiled(job: tuple) -> Any:
    function, shapes, donated, options = job
    return jax.jit(function, donate_argnums=donated).lower(*shapes).compile(options)


def _key(state: State, member: Member) -> jax.Array:
    """The key of a member's iteration, as in `jaxrl.program`."""
    return jax.random.fold_in(seed_keys(member.seed)[1], state.iteration)


def _stacked(name: str, rows: list[list[Metrics]]) -> Sums:
    """[count, K] of one metric; unknown where an iteration or a member lacks it."""
    unknown = Sums(jnp.float32(0), jnp.float32(0))
    parts = [[one.get(name, unknown) for one in row] for row in rows]
    return Sums(*(jnp.asarray([[x[i] for x in row] for row in parts], jnp.float32) for i in (0, 1)))

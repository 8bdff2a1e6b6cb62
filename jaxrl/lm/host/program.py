"""The program of a run in which the host has a word: compiled parts, called from Python in turn.

What `jaxrl.program.Program` is to a run without. One device; members one after the other.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.config import with_values
from jaxrl.lm.host.player import Half, Place, take_turns, with_rewards
from jaxrl.lm.learn.agent import Agent, State
from jaxrl.lm.learn.iteration import in_layers, warm_up
from jaxrl.lm.learn.options import GroupConfig
from jaxrl.lm.play.episodes import Episodes
from jaxrl.lm.play.rounds import Work
from jaxrl.metrics import Metrics, Sums
from jaxrl.program import ONE_CORE, QUICK_TO_COMPILE, Member, seed_keys


@dataclass(frozen=True)
class HostProgram:
    """`compile` gives (init, run) as those of a `Program` are, over states [K, ...]."""

    init_one: Callable  # (key, member, *, axis) -> state
    update_one: Callable  # an algorithm's `update`, which takes what was `played`
    cfg: GroupConfig
    agent: Agent

    def place(self, members: Member) -> Member:
        return jax.device_put(members)

    def scalar(self, value: int) -> int:
        return value

    def compile(self, members: Member, one_core: bool = True) -> tuple[Callable, Callable]:
        """(init, run), ahead of time and side by side."""
        on_cpu = jax.devices()[0].platform == "cpu"
        options = ONE_CORE if on_cpu and one_core else None
        count, size = len(members.seed), self.prompts_of_a_half
        state = jax.eval_shape(self._init, members)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        index = jax.ShapeDtypeStruct((size,), jnp.int32)
        record = jax.eval_shape(partial(self._half, count), state, members, number, index)[2:]
        rows = (size * self.cfg.group_size,)
        rewards = [jax.ShapeDtypeStruct(rows, x) for x in (jnp.float32, jnp.bool_)]
        played = [(*record, *rewards)] * self.halves
        learn = partial(self._learn, count)
        like = jax.eval_shape(learn, state, members, number, played)[1]
        parts = [
            (self._init, (members,), (), QUICK_TO_COMPILE if on_cpu else None),
            (partial(self._half, count), (state, members, number, index), (), options),
            (learn, (state, members, number, played), (0,), options),
        ]
        if self.cfg.sft_steps:
            warm = partial(self._warm, count, like)
            parts.append((warm, (state, members, number), (0,), options))
        with ThreadPoolExecutor(len(parts)) as pool:
            init, *others = pool.map(_compiled, parts)
        return init, partial(self.run, *others)

    @property
    def halves(self) -> int:
        """Parts of an iteration's prompts that take turns."""
        return 2 if self.cfg.num_prompts % 2 == 0 else 1

    @property
    def prompts_of_a_half(self) -> int:
        return self.cfg.num_prompts // self.halves

    def run(self, *args: Any) -> tuple[Any, Metrics]:
        """(state [K, ...], metrics [count, K]) after so many iterations."""
        *parts, state, members, count = args
        rows: list[list[Metrics]] = []
        for _ in range(count):
            rows.append([])
            for k in range(len(members.seed)):
                state, metrics = self.iterate(parts, state, members, k)
                rows[-1].append(metrics)
        names = dict.fromkeys(name for row in rows for one in row for name in one)
        return state, {name: _stacked(name, rows) for name in names}

    def iterate(
        self, parts: Any, state: Any, members: Member, k: int
    ) -> tuple[Any, Metrics]:
        """(state [K, ...], metrics) after an iteration of member k."""
        half, learn, *warm = parts
        iteration, seed = int(state.iteration[k]), int(members.seed[k])
        if iteration < self.cfg.sft_steps:
            state, metrics = warm[0](state, members, k)
            return state, jax.device_get(metrics)
        host = self.agent.host
        place = Place(seed, iteration, self.cfg.num_iterations)
        played: list[Any] = [None] * self.halves
        playing = partial(self.play, half, state, members, k, place, played)
        take_turns([playing(h) for h in range(self.halves)])
        state, metrics = learn(state, members, k, played)
        own = {n: Sums(*map(np.float32, x)) for n, x in host.rewards.take().items()}
        return state, jax.device_get(metrics) | own

    def play(
        self, half: Callable, state: Any, members: Any, k: int, place: Place, played: list, h: int
    ) -> Iterator[bool]:
        """Play half h of the prompts and have it judged; yields where another can go on."""
        host, size = self.agent.host, self.prompts_of_a_half
        index = np.arange(h * size, (h + 1) * size, dtype=np.int32)
        states, told, record, work = half(state, members, k, index)
        on_host = Half(h * size, *jax.device_get((states, told, record)))
        group = self.cfg.group_size
        calls = host.ask(on_host, group, place)
        yield True
        played[h] = (record, work, *host.judge(calls))

    def _init(self, members: Member) -> Any:
        def one(member: Member) -> Any:
            return self.init_one(seed_keys(member.seed)[0], member, axis=None)

        return jax.lax.map(one, members)

    def _half(
        self, count: int, state: State, members: Member, k: Any, index: jax.Array
    ) -> tuple[Any, Any, Episodes, Work]:
        """(states and observations of the resets, the record, work) of these prompts."""
        state, member = _pick(count, (state, members), k)
        cfg, agent = member.cfg.at_iteration(state.iteration), self._in(member)
        play_key, _, _ = jax.random.split(_key(state, member), 3)
        policy = in_layers(state.params, cfg).policy
        cfg = with_values(cfg, num_lanes=max(1, cfg.num_lanes // self.halves))
        record, work, prompts = agent.play_from(policy, play_key, index, cfg, cfg.group_size)
        return prompts.env_state, prompts.told, record, work

    def _learn(
        self, count: int, state: State, members: Member, k: Any, played: Any
    ) -> tuple[State, Metrics]:
        one, member = _pick(count, (state, members), k)
        judged = [with_rewards(record, *given, False) for record, _, *given in played]
        record = jax.tree.map(lambda *x: jnp.concatenate(x), *judged)
        work = jax.tree.map(lambda *x: sum(x), *(work for _, work, *_ in played))
        how: Any = {"cfg": member.cfg, "agent": self._in(member), "axis": None}
        one, metrics = self.update_one(one, _key(one, member), played=(record, work), **how)
        return _put(count, state, one, k), metrics

    def _warm(
        self, count: int, like: Metrics, state: State, members: Member, k: Any
    ) -> tuple[State, Metrics]:
        one, member = _pick(count, (state, members), k)
        how: Any = {"cfg": member.cfg, "agent": self._in(member), "axis": None}
        one, metrics = warm_up(one, _key(one, member), like=like, **how)
        return _put(count, state, one, k), metrics

    def _in(self, member: Member) -> Agent:
        return replace(self.agent, env=member.env)


def _compiled(part: tuple) -> Any:
    function, shapes, donated, options = part
    return jax.jit(function, donate_argnums=donated).lower(*shapes).compile(options)


def _key(state: State, member: Member) -> jax.Array:
    """The key of a member's iteration, as in `jaxrl.program`."""
    return jax.random.fold_in(seed_keys(member.seed)[1], state.iteration)


def _pick(count: int, stacked: Any, k: Any) -> Any:
    """Member k of leaves [K, ...]; of a single one without an index, which would be a copy."""
    return jax.tree.map(lambda x: x[0] if count == 1 else x[k], stacked)


def _put(count: int, stacked: Any, one: Any, k: Any) -> Any:
    return jax.tree.map(lambda x, y: y[None] if count == 1 else x.at[k].set(y), stacked, one)


def _stacked(name: str, rows: list[list[Metrics]]) -> Sums:
    """[count, K] of one metric; unknown where an iteration or a member lacks it."""
    unknown = Sums(np.zeros((), np.float32), np.zeros((), np.float32))
    parts = [[one.get(name, unknown) for one in row] for row in rows]
    return Sums(*(jnp.asarray([[x[i] for x in row] for row in parts], jnp.float32) for i in (0, 1)))

"""Episodes on the host, state by state, to be drawn: fresh ones, or what training went through."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import envs
from jaxrl.env import Environment, per_env_keys
from jaxrl.policy import Policy
from jaxrl.program import seed_keys
from jaxrl.train.again import Step
from jaxrl.train.film import Panel
from jaxrl.wrappers import EpisodeStats, tree_where

CHUNK = 100  # steps that are played in one call
AT_ONCE = 128  # pictures that are kept at the same time


@dataclass
class Shown:
    """States of one or several episodes, the first and after each step."""

    title: str
    states: list[Any] = field(default_factory=list)
    episode_return: list[float] = field(default_factory=list)
    episode_length: list[int] = field(default_factory=list)
    ending: list[str] = field(default_factory=list)

    def add(self, state: Any, paid: float, length: int, ending: str = "") -> None:
        """A state of the environment, and what its episode has come to with it."""
        self.states.append(state)
        self.episode_return.append(paid)
        self.episode_length.append(length)
        self.ending.append(ending)

    @property
    def words(self) -> str:
        """For the terminal: what became of the episodes."""
        rows = zip(self.episode_return, self.episode_length, self.ending, strict=True)
        *ended, last = rows
        ended = [row for row in ended if row[2]] + [last]
        return "; ".join(f"return {r:g}, {n} steps, {how or 'goes on'}" for r, n, how in ended)

    def panel(self, env: Environment) -> Panel:
        """Drawn, as a part of a film."""
        states = jax.tree.map(lambda *x: np.stack(x), *self.states)
        numbers = self.episode_return, self.episode_length, self.ending
        return Panel(self.title, partial(_drawn, env, states), *numbers)


def _drawn(env: Environment, states: Any, index: np.ndarray) -> Iterator[np.ndarray]:
    """Pictures of the states of these numbers, not all of them at once."""
    for first in range(0, len(index), AT_ONCE):
        part = index[first : first + AT_ONCE]
        yield from envs.frames(env, jax.tree.map(lambda x: x[part], states))  # noqa: B023


def of_training(steps: Sequence[Step], paid: float, length: int, title: str) -> Shown:
    """What one environment went through; the episode before had come to so much."""
    shown, over = Shown(title), True
    for step in steps:
        if over:
            shown.add(step.state, paid, length)
        paid, length = float(np.float32(paid) + np.float32(step.reward)), length + 1
        ending = "terminated" if step.terminated else "truncated" if step.truncated else ""
        shown.add(step.after, paid, length, ending)
        over = bool(ending)
        if over:
            paid, length = 0.0, 0
    return shown


def episodes(policy: Policy, env: Environment, args: Any) -> list[Shown]:
    """The best, median and worst of fresh episodes, those that `train.evaluate` plays.

    They are played twice, by one executable: for their returns, then for the states of those shown.
    """
    count, limit = args.episodes, args.max_steps
    seed = np.uint32(args.seed)
    play = jax.jit(partial(_play, greedy=args.greedy))
    start = jax.jit(partial(_begin, count=count))(policy, env, seed)
    ends = start
    for t in range(0, limit, CHUNK):
        ends, _ = play(ends, policy, env, seed, np.arange(t, t + CHUNK), limit, np.zeros(1, int))
        if np.all(ends[1].done):
            break
    order = np.argsort(np.asarray(ends[1].metrics["episode_return"]), kind="stable")
    chosen = {"best": order[-1], "median": order[(count - 1) // 2], "worst": order[0]}
    names = {name: int(i) for name, i in chosen.items() if count > 2 or name != "median"}
    names = {"episode": 0} if count == 1 else names
    index = np.array(list(names.values()))
    shown = [Shown(f"{name} of {count}" if count > 1 else name) for name in names]
    first = jax.device_get(jax.tree.map(lambda x: x[index], start[0].inner))
    for i, one in enumerate(shown):
        one.add(jax.tree.map(lambda x: x[i], first), 0.0, 0)  # noqa: B023
    ends = start
    for t in range(0, limit, CHUNK):
        ends, seen = play(ends, policy, env, seed, np.arange(t, t + CHUNK), limit, index)
        _extend(shown, jax.device_get(seen), limit)
        if np.all(ends[1].done[index]):
            break
    return shown


def _extend(shown: list[Shown], seen: tuple, limit: int) -> None:
    """The steps [CHUNK, n] that follow, of those whose episodes are not over."""
    for t in range(CHUNK):
        for i, one in enumerate(shown):
            if one.ending[-1]:
                continue
            state, ts = jax.tree.map(lambda x: x[t, i], seen)  # noqa: B023
            paid, length = ts.metrics["episode_return"], int(ts.metrics["episode_length"])
            ending = "terminated" if ts.terminated else "truncated" if ts.truncated else ""
            one.add(state.inner, float(paid), length, ending or ("cut" if length >= limit else ""))


def _begin(policy: Policy, env: Environment, seed: jax.Array, count: int) -> tuple:
    """(states, TimeSteps, memories) [count], as `jaxrl.evaluate` begins them."""
    reset_key, _ = jax.random.split(seed_keys(seed)[2])
    state, ts = jax.vmap(EpisodeStats(env).reset)(per_env_keys(reset_key, jnp.arange(count)))
    memory = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), policy.begin())
    return state, ts, memory


def _play(
    carry: tuple,
    policy: Policy,
    env: Environment,
    seed: jax.Array,
    times: jax.Array,
    limit: jax.Array,
    chosen: jax.Array,
    *,
    greedy: bool,
) -> tuple[tuple, tuple]:
    """(carry after these steps, the states and TimeSteps [T, n] of the chosen episodes).

    Keys are those of `jaxrl.evaluate`. What is over, or as long as the limit, stays as it is.
    """
    _, play_key = jax.random.split(seed_keys(seed)[2])
    keys = per_env_keys(play_key, jnp.arange(carry[1].reward.shape[0]))

    def one(carry, key, t):
        state, ts, memory = carry
        act_key, env_key = jax.random.split(jax.random.fold_in(key, t))
        memory, action = policy.step(memory, ts.obs, None if greedy else act_key)
        stepped = (*EpisodeStats(env).step(state, action, env_key), memory)
        return tree_where(ts.done | (t >= limit), carry, stepped)

    def step(carry, t):
        carry = jax.vmap(one, (0, 0, None))(carry, keys, t)
        return carry, jax.tree.map(lambda x: x[chosen], carry[:2])

    return jax.lax.scan(step, carry, times)

"""A policy that plays prompts with the host in it: its compiled parts, and what goes between."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.config import with_values
from jaxrl.env import TimeStep
from jaxrl.host_world import HostWorld
from jaxrl.lm.host.player import Half, Host
from jaxrl.lm.host.texts import encoded
from jaxrl.lm.host.worlds import Answer, Episode, Place
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.play.host import Heard, Rounds, go_on, nothing_said, open_play
from jaxrl.lm.play.rounds import PlayContext, make_context, resets
from jaxrl.text import to_str


class Speaker(flax.struct.PyTreeNode):
    """Who plays, where and with which noise."""

    policy: Any
    key: jax.Array  # the data of a key
    cfg: Any
    env: Any


@dataclass(frozen=True)
class Parts:
    """What is compiled, of the prompts with these global indices [P]; `compiled` makes it so."""

    agent: Agent
    group_size: int
    num_lanes: int
    in_rows: bool = False

    def play(self, who: Speaker, index: jax.Array) -> Any:
        """(states, observations, record, work), the environment compiled with it."""
        cfg = with_values(who.cfg, num_lanes=self.num_lanes)
        how: Any = {"group_size": self.group_size, "in_rows": self.in_rows}
        agent = replace(self.agent, env=who.env)
        key = jax.random.wrap_key_data(who.key)
        record, work, prompts = agent.play_from(who.policy, key, index, cfg, **how)
        return prompts.env_state, prompts.told, record, work

    def begin(self, who: Speaker, index: jax.Array) -> Any:
        """(states, observations) of fresh episodes, before the host has its say."""
        env_state, ts = resets(who.env, self._context(who, index)[1], index, self.in_rows)
        return env_state, ts.obs

    def open(self, who: Speaker, index: jax.Array, env_state: Any, told: Any) -> Any:
        """(prompts, rounds, answers to nobody)."""
        context, _ = self._context(who, index)
        prompts, rounds = open_play(context, env_state, told, self.num_lanes)
        return prompts, rounds, nothing_said(context, len(rounds.lanes.turn))

    def go_on(
        self, who: Speaker, index: jax.Array, prompts: Any, rounds: Rounds, ts: TimeStep
    ) -> tuple[Rounds, Heard]:
        """(rounds, what the host is to answer)."""
        return go_on(self._context(who, index)[0], prompts, rounds, ts)

    def _context(self, who: Speaker, index: jax.Array) -> tuple[PlayContext, jax.Array]:
        agent = self.agent
        how: Any = {"temperature": who.cfg.temperature, "refill_at": who.cfg.refill_at}
        key, how["group_size"] = jax.random.wrap_key_data(who.key), self.group_size
        return make_context(who.policy, who.env, agent.chat, agent.limits, key, index, **how)

    def shapes(self, who: Any, prompts: int) -> dict[str, tuple]:
        """name -> arguments of each part that is needed, as shapes."""
        index = jax.ShapeDtypeStruct((prompts,), jnp.int32)
        if not isinstance(self.agent.env, HostWorld):
            return {"play": (who, index)}
        opening = (who, index, *jax.eval_shape(self.begin, who, index))
        prompts_, rounds, ts = jax.eval_shape(self.open, *opening)
        going = (who, index, prompts_, rounds, ts)
        return {"begin": (who, index), "open": opening, "go_on": going}


def jitted(parts: Parts) -> dict[str, Any]:
    """The parts, each compiled when it is first called."""
    return {name: jax.jit(getattr(parts, name)) for name in ("play", "begin", "open", "go_on")}


def play(
    parts: dict[str, Any], host: Host, who: Speaker, index: np.ndarray, group_size: int,
    place: Place, out: dict[str, Any],
) -> Iterator[bool]:  # fmt: skip
    """Play these prompts and have them judged; yields where another can go on.

    `out` has record, work, reward [N], masked [N] and states at the end.
    """
    masked = np.zeros(len(index) * group_size, bool)
    if host.worlds is None:
        states, told, record, work = parts["play"](who, index)
        states, prompts = jax.device_get(states), _texts(told)
    else:
        states, told = jax.device_get(parts["begin"](who, index))
        starts = host.starts(states)
        said_first = host.worlds.open(place, int(index[0]) * group_size, starts)
        prompts = [before + after for before, after in zip(_texts(told), said_first, strict=True)]
        rounds = yield from converse(
            parts, host, who, index, group_size, place, states, prompts, starts, masked
        )
        record, work = rounds.record, rounds.work
    half = Half(int(index[0]), states, prompts, jax.device_get(record))
    calls = host.ask(half, group_size, place)
    yield True
    reward, failed = host.judge(calls, len(masked))
    out |= {"record": record, "work": work, "reward": reward, "masked": masked | failed}


def converse(
    parts: dict[str, Any], host: Host, who: Speaker, index: np.ndarray, group_size: int,
    place: Place, states: Any, prompts: list[str], starts: list[Any], masked: np.ndarray,
) -> Any:  # fmt: skip
    """The rounds after whole episodes, answered by the host's world; marks those that it masks."""
    worlds = host.worlds
    assert worlds is not None
    env = worlds.env
    told = encoded(prompts, env.observation_space.capacity)
    opened, rounds, ts = parts["open"](who, index, states, told)
    first = int(index[0]) * group_size
    episodes = [Episode(first + i, starts[i // group_size]) for i in range(len(index) * group_size)]
    while True:
        rounds, heard = parts["go_on"](who, index, opened, rounds, ts)
        heard = jax.device_get(heard)
        if heard.over:
            return rounds
        lanes = np.flatnonzero(heard.ready).tolist()
        asked = [worlds.ask(place, episodes[heard.episode[b]], host.heard(heard, b)) for b in lanes]
        yield True
        answers = worlds.settle(asked)
        masked[[heard.episode[b] for b, a in zip(lanes, answers, strict=True) if a.masked]] = True
        ts = answered(lanes, answers, len(heard.ready), env)


def answered(lanes: list[int], answers: list[Answer], count: int, env: HostWorld) -> TimeStep:
    """What the host says to all lanes [B], most of whom may not have asked."""
    size, most = env.observation_space.capacity, env.answer_bytes
    obs = [""] * count
    reward = np.zeros(count, np.float32)
    terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
    for lane, answer in zip(lanes, answers, strict=True):
        obs[lane], reward[lane] = answer.obs, answer.reward
        terminated[lane], truncated[lane] = answer.terminated, answer.truncated
    text = encoded(obs, size, most)
    given: Any = {"reward": reward, "terminated": terminated, "truncated": truncated}
    return TimeStep(obs=text, final_obs=text, metrics={}, **given)


def _texts(told: Any) -> list[str]:
    told = jax.device_get(told)
    return [to_str(jax.tree.map(lambda x: x[p], told)) for p in range(len(told.length))]  # noqa: B023

"""Rounds of play whose environments Python steps: the parts that are compiled.

`open_play`, then `go_on` again and again: it takes what the host has answered to the lanes that
waited, and lets all of them write until enough wait again.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, timestep
from jaxrl.lm.play.episodes import Episodes, empty, metric_names
from jaxrl.lm.play.rounds import (
    Lanes,
    PlayContext,
    Prompts,
    Work,
    active,
    answer,
    idle_lanes,
    read_prompts,
    respond,
)
from jaxrl.text import Text


class Rounds(flax.struct.PyTreeNode):
    """Where play stands between two rounds."""

    lanes: Lanes
    record: Episodes
    queue: jax.Array  # int32 []: the next episode to be taken up
    work: Work


class Heard(flax.struct.PyTreeNode):
    """What the host is to answer; leaves [B]."""

    ready: jax.Array  # bool: the lane waits for an answer
    episode: jax.Array  # int32: of the record
    turn: jax.Array  # int32
    response: jax.Array  # int32 [B, R]
    written: jax.Array  # int32: its tokens
    ended: jax.Array  # bool: the last of them is an end of turn
    over: jax.Array  # bool []: every episode has been played to its end


def open_play(
    context: PlayContext, env_state: Any, told: Text, num_lanes: int
) -> tuple[Prompts, Rounds]:
    """Prompts that were read, of episodes that say this first, and nothing played of them."""
    prompts = read_prompts(context, env_state, told)
    sizes = context.limits
    names = metric_names(context.env)
    record = empty(context.num_episodes, sizes.context, sizes.max_turns, names, sizes.first)
    lanes = idle_lanes(context, prompts, min(num_lanes, context.num_episodes))
    zero = jnp.zeros((), jnp.float32)
    return prompts, Rounds(lanes, record, jnp.zeros((), jnp.int32), Work(zero, zero))


def go_on(
    context: PlayContext, prompts: Prompts, rounds: Rounds, ts: TimeStep
) -> tuple[Rounds, Heard]:
    """The rounds after these answers [B] to the lanes that waited, and who waits next."""
    lanes, record, work = rounds.lanes, rounds.record, rounds.work
    lanes, record, queue = answer(
        context, prompts, lanes, record, rounds.queue, lanes.env_state, ts
    )
    lanes, record, work = respond(context, lanes, record, work)
    busy = active(context, lanes)
    newest = jnp.take_along_axis(lanes.response, jnp.maximum(lanes.written - 1, 0)[:, None], 1)
    heard = Heard(
        ready=busy & lanes.waiting,
        episode=lanes.episode,
        turn=lanes.turn,
        response=lanes.response,
        written=lanes.written,
        ended=context.ends_turn(newest[:, 0]),
        over=~jnp.any(busy) & (queue >= context.num_episodes),
    )
    return Rounds(lanes, record, queue, work), heard


def nothing_said(context: PlayContext, num_lanes: int) -> TimeStep:
    """The answers [B] before anybody has asked."""
    size = context.env.observation_space.capacity
    empty = Text(jnp.zeros(size, jnp.uint8), jnp.zeros((), jnp.int32), jnp.asarray(False))
    ts = timestep(empty)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_lanes, *x.shape)), ts)

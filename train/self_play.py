"""Games against oneself: the learner of now and of before as the opponent in an environment.

Against nobody but itself of now a learner forgets what it has beaten ("opponent sampling",
arXiv:1710.03748). So half of the iterations are played against one of `PAST` policies of the run so
far, any of them alike: at first all are that of its begin, in the end they are equally spaced.
"""

from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxrl import mesh, opponents
from jaxrl.program import Member
from jaxrl.train.trainer import Task

PAST = 8


class Playing(flax.struct.PyTreeNode):
    """A learner's state, and the policies that it was."""

    learner: Any
    past: Any  # Policy, leaves [PAST, ...]

    @property
    def iteration(self) -> jax.Array:
        return self.learner.iteration


def against_itself(task: Task) -> Task:
    """The task with an opponent drawn for each iteration in the place of `opponents.Self`."""
    outcome, every = task.outcome, max(task.num_iterations // PAST, 1)

    def init(key: jax.Array, member: Member, *, axis: Any) -> Playing:
        learner = task.init(key, member, axis=axis)
        now = outcome.trained(learner)
        return Playing(learner, jax.tree.map(lambda x: jnp.broadcast_to(x, (PAST, *x.shape)), now))

    def update(state: Playing, key: jax.Array, member: Member, *, axis: Any) -> tuple:
        draw_key, learn_key = jax.random.split(key)
        now = outcome.trained(state.learner)
        past = remembered(state.past, now, state.iteration, every)
        env = opponents.against(member.env, drawn(past, now, draw_key))
        learner, metrics = task.update(state.learner, learn_key, member.replace(env=env), axis=axis)
        return Playing(learner, past), metrics

    def layout(per_member: int) -> Playing:
        inner = task.layout(per_member) if callable(task.layout) else task.layout
        return Playing(inner, P(mesh.SEED))  # pyright: ignore

    def start(state: Playing) -> Playing:
        return state.replace(learner=task.start(state.learner))  # pyright: ignore

    return replace(
        task,
        init=init,
        update=update,
        layout=layout,
        start=None if task.start is None else start,
        outcome=replace(outcome, trained=lambda state: outcome.trained(state.learner)),
    )


def remembered(past: Any, now: Any, iteration: jax.Array, every: int) -> Any:
    """The policies of the past with that of now, where its turn has come."""
    place, due = iteration // every % PAST, iteration % every == 0
    return jax.tree.map(lambda all, x: all.at[place].set(jnp.where(due, x, all[place])), past, now)


def drawn(past: Any, now: Any, key: jax.Array) -> Any:
    """The policy of now, or as often one of the past."""
    coin_key, place_key = jax.random.split(key)
    earlier = jax.random.bernoulli(coin_key)
    place = jax.random.randint(place_key, (), 0, PAST, jnp.int32)
    return jax.tree.map(lambda all, x: jnp.where(earlier, all[place], x), past, now)

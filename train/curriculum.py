"""Physics that widen while a run learns: from the environment's own numbers to all that are drawn.

A level in [0, 1] says how far. It is a function of the iteration, or it goes up or down after each
iteration in which episodes ended, by whether a mean of theirs reached a threshold: as in automatic
domain randomisation (arXiv:1910.07113), with one level for all numbers. Evaluation is at level 1.
"""

import math
from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxrl import mesh, metrics
from jaxrl.physics import with_numbers
from jaxrl.program import Member
from jaxrl.train.trainer import Task

STEP = 0.05  # of the level, in an iteration


class Widening(flax.struct.PyTreeNode):
    """A learner's state, and how wide its physics are."""

    learner: Any
    level: jax.Array  # float32 [], in [0, 1]

    @property
    def iteration(self) -> jax.Array:
        return self.learner.iteration


def parse(text: str) -> tuple[str, float]:
    """(metric, threshold), or ("", share of the training) ; ValueError for neither."""
    metric, separator, word = text.rpartition(":")
    try:
        value = float(word) if len(word) < 100 else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (separator and not metric.isidentifier()):
        raise ValueError(
            f"curriculum={text} must be a share of the training, or METRIC:VALUE; try 0.5 or "
            "success:0.8."
        )
    if not separator and not 0 < value <= 1:
        raise ValueError(f"curriculum={text} must be above 0 and at most 1; try 0.5.")
    return metric, value


def widening(task: Task, text: str, known: set[str]) -> Task:
    """The task with a level that moves; ValueError where episodes have no such metric."""
    metric, value = parse(text)
    if metric and metric not in known:
        raise ValueError(
            f"curriculum={text}: episodes have no metric {metric}; try one of "
            f"{', '.join(sorted(known))}."
        )

    def at(level: jax.Array, member: Member) -> Member:
        return member.replace(env=with_numbers(member.env, {"curriculum_level": level}))

    def init(key: jax.Array, member: Member, *, axis: Any) -> Widening:
        level = jnp.zeros((), jnp.float32)
        return Widening(task.init(key, at(level, member), axis=axis), level)

    def update(state: Widening, key: jax.Array, member: Member, *, axis: Any) -> tuple:
        level = state.level
        learner, seen = task.update(state.learner, key, at(level, member), axis=axis)
        if metric:
            ended = seen[metric].denominator > 0
            up = metrics.quotient(seen[metric]) >= value
            moved = jnp.clip(level + jnp.where(up, STEP, -STEP), 0.0, 1.0)
            after = jnp.where(ended, moved, level)
        else:
            after = jnp.minimum(learner.iteration / (value * task.num_iterations), 1.0)
        after = after.astype(jnp.float32)
        shown = {"curriculum_level": metrics.value(level)}
        return Widening(learner, after), metrics.merged(seen, shown)

    def layout(per_member: int) -> Widening:
        inner = task.layout(per_member) if callable(task.layout) else task.layout
        return Widening(inner, P(mesh.SEED))  # pyright: ignore

    def start(state: Widening) -> Widening:
        return state.replace(learner=task.start(state.learner))  # pyright: ignore

    outcome = task.outcome
    return replace(
        task,
        init=init,
        update=update,
        layout=layout,
        start=None if task.start is None else start,
        outcome=replace(outcome, trained=lambda state: outcome.trained(state.learner)),
    )

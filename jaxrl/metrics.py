"""Metrics as sums: what was added up, and how much of it there was.

An update returns a flat dict of `name -> Sums`. Sums are added over pieces of a batch, minibatches,
devices and logged iterations, and divided once, at the very end: so that no mean depends on how
the work was cut. A denominator of 0 says that the metric is unknown (no episode ended), and a
number that is not finite that the run has diverged.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Sums(NamedTuple):
    """A mean as float32 (numerator, denominator), of one number or of a batch of metrics."""

    numerator: jax.Array
    denominator: jax.Array


Metrics = dict[str, Sums]


def mean(x: jax.Array, mask: jax.Array | None = None) -> Sums:
    """Of all entries, or of those that a mask of the same shape keeps (1 = keep)."""
    if mask is None:
        return Sums(jnp.sum(x, dtype=jnp.float32), jnp.float32(x.size))
    kept = jnp.where(mask, x, 0)
    return Sums(jnp.sum(kept, dtype=jnp.float32), jnp.sum(mask, dtype=jnp.float32))


def value(x: Any) -> Sums:
    """A number that is not a mean, such as a norm: over several iterations its mean is shown."""
    return Sums(jnp.asarray(x, jnp.float32), jnp.ones((), jnp.float32))


def merged(*parts: Metrics) -> Metrics:
    """All of them as one dict; ValueError for a name that stands in two."""
    names = [name for part in parts for name in part]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"metric {name!r} is the trainer's and the environment's; rename it in the "
                f"environment's TimeStep.metrics, to env_{name} for example."
            )
    return {name: sums for part in parts for name, sums in part.items()}


def add_up(metrics: Metrics) -> Metrics:
    """Sums stacked along a first axis (of minibatches, say) as the sums over all of it."""
    return jax.tree.map(lambda x: jnp.sum(x, 0), metrics)


def until_broken(stacked: Any) -> Any:
    """Leaves [S, ...] with zeros after the first entry that is not finite.

    Of a run that diverges their sums then tell what diverged first, not all that followed.
    """
    leaves = jax.tree.leaves(stacked)
    steps = jnp.arange(leaves[0].shape[0])
    bad = sum(jnp.any(~jnp.isfinite(x).reshape(x.shape[0], -1), 1) for x in leaves) > 0
    kept = steps <= jnp.min(jnp.where(bad, steps, steps.size))
    return jax.tree.map(lambda x: jnp.where(kept.reshape(-1, *[1] * (x.ndim - 1)), x, 0), stacked)


HIDDEN = "first_broken_"  # begins the names of metrics that are not logged, but tell why


def hidden(name: str) -> bool:
    """Whether a metric is there for the case alone that the run diverges."""
    return name.startswith(HIDDEN)


def quotient(sums: Sums) -> jax.Array:
    """The mean that sums stand for; 0 where nothing was counted."""
    known = sums.denominator > 0
    return jnp.where(known, sums.numerator / jnp.where(known, sums.denominator, 1.0), 0.0)

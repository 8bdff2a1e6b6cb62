"""Priorities of the rows of a replay, arXiv:1511.05952: proportional, with two levels of sums.

Each block of environments is drawn from alone, so that the draws are the same on any number of
devices and no sum crosses them; importance weights know it.
"""

from math import isqrt

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl import mesh
from jaxrl.env import per_env_keys
from jaxrl.replay import Replay, Where, same_in_members


class Priorities(flax.struct.PyTreeNode):
    """Of every step that a replay keeps, with its alpha-th power taken; 0: not to be drawn."""

    weight: jax.Array  # float32 [B, chunks, chunk]: place p is chunk p // chunk, p % chunk in it
    total: jax.Array  # float32 [B, chunks]
    largest: jax.Array  # float32 [B]: so far; what is new gets it


def empty(num_envs: int, capacity: int) -> Priorities:
    """Of a replay that holds nothing yet."""
    chunk = isqrt(capacity - 1) + 1
    chunks = -(-capacity // chunk)
    weight = jnp.zeros((num_envs, chunks, chunk), jnp.float32)
    return Priorities(weight, weight[..., 0], jnp.ones(num_envs, jnp.float32))


def place(priorities: Priorities, where: Where, weight: jax.Array) -> Priorities:
    """With these weights for steps that lie there; equal steps have equal weights."""
    env, at = where
    chunk, rest = at // priorities.weight.shape[-1], at % priorities.weight.shape[-1]
    new = priorities.weight.at[env, chunk, rest].set(weight)
    total = priorities.total.at[env, chunk].set(jnp.sum(new[env, chunk], -1))
    return Priorities(new, total, priorities.largest.at[env].max(weight))


def added(
    priorities: Priorities, buffer: Replay, num_new: int, num_following: int = 1
) -> Priorities:
    """After `replay.add` wrote `num_new` steps: what is new may be drawn, with the largest weight.

    A step may be drawn once num_following - 1 others came after it.
    """
    count, (B,) = same_in_members(buffer.count), priorities.largest.shape
    new = count - num_new + jnp.arange(num_new, dtype=jnp.int32)

    def write(priorities, step, weight):
        env, at = jnp.meshgrid(jnp.arange(B), step % buffer.capacity, indexing="ij")
        return place(priorities, (env, at), jnp.broadcast_to(weight, env.shape))

    if num_following > 1:
        priorities = write(priorities, new, 0.0)
        new = new - (num_following - 1)
    return write(priorities, new, jnp.where(new >= 0, priorities.largest[:, None], 0.0))


def draw(
    priorities: Priorities, key: jax.Array, batch_size: int, axis: str | None
) -> tuple[Where, jax.Array]:
    """(where the rows of a batch lie, float32 [n]: the share of each in its block's sum).

    Rows of one block take equal parts of its sum, one each, as in appendix B.2.1 of the paper.
    """
    (B, chunks), n = priorities.total.shape, batch_size // mesh.axis_size(axis)
    blocks, row = min(B, n), mesh.global_index(n, axis)
    rows, size = n // blocks, B // blocks  # of a block: rows drawn, environments
    u = jax.vmap(lambda k: jax.random.uniform(k, (2,)))(per_env_keys(key, row))
    local = jnp.arange(n, dtype=jnp.int32)
    totals = priorities.total.reshape(blocks, -1)[local // rows]
    first = _pick(totals, (row % rows + u[:, 0]) / rows)
    env, chunk = local // rows * size + first // chunks, first % chunks
    weight = priorities.weight[env, chunk]
    second = _pick(weight, u[:, 1])
    share = jnp.take_along_axis(weight, second[:, None], -1)[:, 0] / jnp.sum(totals, -1)
    return (env, chunk * weight.shape[-1] + second), share


def importance(share: jax.Array, beta: jax.Array | float, axis: str | None) -> jax.Array:
    """float32 [n]: (1 / (N P(i)))^beta over the largest of the whole batch, section 3.4.

    N and the number of blocks cancel out; `share` is of `draw`.
    """
    weight = jnp.maximum(share, 1e-30) ** -beta
    largest = jnp.max(weight)
    if mesh.axis_size(axis) > 1:
        largest = jax.lax.pmax(largest, axis)
    return weight / largest


def _pick(weight: jax.Array, u: jax.Array) -> jax.Array:
    """int32 [n]: the entry of weight [n, M] at a share u [n] of its sum; never one of weight 0."""
    up_to = jnp.cumsum(weight, -1)
    reached = (weight > 0) & (up_to > u[:, None] * up_to[:, -1:])
    # Rounding may leave none: then the largest.
    return jnp.argmax(jnp.where(reached, jnp.inf, weight), -1).astype(jnp.int32)

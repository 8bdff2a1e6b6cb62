"""Advantages and returns: formulas over time, checkable on paper."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl.metrics import Sums

Number = float | Float[Array, ""]


def gae(
    reward: Float[Array, "T B"],
    value: Float[Array, "T B"],
    next_value: Float[Array, "T B"],
    terminated: Bool[Array, "T B"],
    truncated: Bool[Array, "T B"],
    gamma: Number,
    lam: Number,
) -> Float[Array, "T B"]:
    """Generalized advantage estimation, eq. 16 of arXiv:1506.02438.

    value[t] is V(obs[t]); next_value[t] is V of where the action led, before auto-reset.
    A terminated step bootstraps from 0, a truncated one from next_value; both cut the trace;
    where both flags are set, terminated wins.
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    decay = jnp.where(terminated | truncated, 0.0, gamma * lam)

    def backward(advantage, inputs):
        delta, decay = inputs
        advantage = delta + decay * advantage
        return advantage, advantage

    init = jnp.zeros_like(delta[0])
    _, advantage = jax.lax.scan(backward, init, (delta, decay), reverse=True, unroll=8)
    return advantage


def lambda_return(
    reward: Float[Array, "T B"],
    next_value: Float[Array, "T B"],
    terminated: Bool[Array, "T B"],
    truncated: Bool[Array, "T B"],
    gamma: Number,
    lam: Number,
) -> Float[Array, "T B"]:
    """The lambda-return; with next_value[t] = max_a Q(next_obs[t], a) it is Peng's Q(lambda).

    R[t] = reward[t] + gamma * ((1 - lam) * next_value[t] + lam * R[t+1]), eq. 5 of
    arXiv:2407.04811; the last step bootstraps from next_value. A terminated step bootstraps from 0,
    a truncated one from next_value; both cut the trace; terminated wins where both are set.
    """
    one_step = reward + gamma * jnp.where(terminated, 0.0, next_value)
    decay = jnp.where(terminated | truncated, 0.0, gamma * lam)

    def backward(following, inputs):
        one_step, decay, next_value = inputs
        total = one_step + decay * (following - next_value)
        return total, total

    steps = (one_step, decay, next_value)
    return jax.lax.scan(backward, next_value[-1], steps, reverse=True, unroll=8)[1]


def n_step_return(
    reward: Float[Array, "T N"],
    terminated: Bool[Array, "T N"],
    truncated: Bool[Array, "T N"],
    gamma: Number,
) -> tuple[Float[Array, " N"], Float[Array, " N"], Int[Array, " N"]]:
    """(sum of discounted rewards, discount of what follows, last step) of T steps in a row.

    The sum stops with the first step that ends an episode; `last` is that step, T-1 without one.
    What follows is the value of where it led, times gamma^(last+1), or 0 where it terminated.
    """
    done = terminated | truncated
    before = jnp.cumsum(done, 0) - done  # ends before each step
    power = gamma ** jnp.arange(reward.shape[0], dtype=jnp.float32)[:, None]
    total = jnp.sum(jnp.where(before == 0, power * reward, 0.0), 0)
    last = jnp.sum(before == 0, 0, dtype=jnp.int32) - 1
    ended = jnp.any(terminated & (before == 0), 0)
    return total, jnp.where(ended, 0.0, gamma ** (last + 1)), last


def discounted_sum(
    start: Float[Array, " B"],
    reward: Float[Array, "T B"],
    done: Bool[Array, "T B"],
    gamma: Number,
) -> tuple[Float[Array, " B"], Float[Array, "T B"]]:
    """Discounted sum of the rewards since the episode began, at each step.

    `start` is the sum carried in; a step that ends an episode counts in full, and the next
    episode starts from 0. Returns (the sum carried out, the sum at each step).
    """

    def forward(total, inputs):
        reward, done = inputs
        total = gamma * total + reward
        return jnp.where(done, 0.0, total), total

    return jax.lax.scan(forward, start, (reward, done), unroll=8)


def explained_variance(
    value: Float[Array, "*N"],
    target: Float[Array, "*N"],
    mask: Bool[Array, "*N"] | None = None,
    axis: str | None = None,
) -> Sums:
    """1 - Var(target - value) / Var(target) over what the masks of all devices keep, as Sums.

    Unknown where the target does not vary. In two passes, about the mean: a mean of squares would
    cancel where the mean is large.
    """
    mask = jnp.ones(target.shape, jnp.bool_) if mask is None else mask
    rows = jnp.where(mask, jnp.stack([target, target - value]), 0.0).reshape(2, -1)
    count, total = _total((jnp.sum(mask, dtype=jnp.float32), jnp.sum(rows, 1)), axis)
    mean = (total / jnp.maximum(count, 1.0)).reshape(2, *[1] * target.ndim)
    centred = jnp.where(mask, rows.reshape(2, *target.shape) - mean, 0.0)
    of_target, of_error = _total(jnp.sum(jnp.square(centred).reshape(2, -1), 1), axis)
    varies = of_target > 1e-8 * jnp.maximum(count, 1.0)
    return Sums(jnp.where(varies, of_target - of_error, 0.0), jnp.where(varies, of_target, 0.0))


def _total(tree: Any, axis: str | None) -> Any:
    return tree if axis is None else jax.lax.psum(tree, axis)

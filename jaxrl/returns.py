"""Advantages and returns: formulas over time, checkable on paper."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def gae(
    reward: Float[Array, "T B"],
    value: Float[Array, "T B"],
    next_value: Float[Array, "T B"],
    terminated: Bool[Array, "T B"],
    truncated: Bool[Array, "T B"],
    gamma: float,
    lam: float,
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


def discounted_sum(
    start: Float[Array, " B"],
    reward: Float[Array, "T B"],
    done: Bool[Array, "T B"],
    gamma: float,
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
    target_moment: tuple[jax.Array, jax.Array], error_moment: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """1 - Var(target - prediction) / Var(target), from (mean, mean of squares) of both.

    Moments rather than arrays, so that a mean over devices can be taken in between.
    0 where the target does not vary.
    """
    target = target_moment[1] - target_moment[0] ** 2
    error = error_moment[1] - error_moment[0] ** 2
    return jnp.where(target > 1e-8, 1.0 - error / jnp.maximum(target, 1e-8), 0.0)

"""Objectives over sequences of tokens: ratios, masks and means of the losses.

Rows are sequences of `S` tokens; a mask [N, S] keeps those that the policy chose, the end-of-turn
token among them. What lies outside the mask may hold anything and has no gradient: a log-ratio is 0
there. (A loss of log-probs themselves, such as a KL, wants them masked first: NaN has no gradient.)

A mean is carried as `Sums`, two float32 scalars. Sum both over micro-batches and devices, then
take the quotient: the result depends on neither. A denominator is a count, so the gradient of a
mean is the sum of the numerators' gradients over the sum of the denominators.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl.metrics import Sums


def token_log_ratio(
    log_prob: Float[Array, "N S"], old_log_prob: Float[Array, "N S"], mask: Bool[Array, "N S"]
) -> Float[Array, "N S"]:
    """Log of the ratio of each token's probabilities."""
    return jnp.where(mask, log_prob - old_log_prob, 0.0)


def on_policy_log_ratio(
    log_prob: Float[Array, "N S"], mask: Bool[Array, "N S"]
) -> Float[Array, "N S"]:
    """Log of the ratio of a policy that has not moved since it sampled: 0, with a gradient.

    The first step of an iteration needs no second computation of the old log-prob, and its ratio
    is 1 exactly, whatever the sampler's rounding.
    """
    return token_log_ratio(log_prob, jax.lax.stop_gradient(log_prob), mask)


def sequence_log_ratio(
    log_prob: Float[Array, "N S"], old_log_prob: Float[Array, "N S"], mask: Bool[Array, "N S"]
) -> Float[Array, "N S"]:
    """The mean of a sequence's token log-ratios, at each of its tokens: the ratio of GSPO.

    As in GSPO-token (eq. 14 of arXiv:2507.18071) its gradient at a token is that of the token's own
    log-prob: the same as GSPO's where a sequence has one advantage, and right where its turns have
    different ones.
    """
    ratio = token_log_ratio(log_prob, old_log_prob, mask)
    count = jnp.maximum(jnp.sum(mask, 1, keepdims=True, dtype=jnp.float32), 1.0)
    mean = jax.lax.stop_gradient(jnp.sum(ratio, 1, keepdims=True) / count)
    return jnp.where(mask, mean + on_policy_log_ratio(log_prob, mask), 0.0)


def token_mean(loss: Float[Array, "N S"], mask: Bool[Array, "N S"]) -> Sums:
    """Sums of the mean over all tokens of the batch: a long response weighs more."""
    return Sums(jnp.sum(jnp.where(mask, loss, 0.0)), jnp.sum(mask, dtype=jnp.float32))


def sequence_mean(loss: Float[Array, "N S"], mask: Bool[Array, "N S"]) -> Sums:
    """Sums of the mean over sequences of the mean over their tokens; empty ones do not count."""
    count = jnp.sum(mask, 1, dtype=jnp.float32)
    total = jnp.sum(jnp.where(mask, loss, 0.0), 1)
    return Sums(jnp.sum(total / jnp.maximum(count, 1.0)), jnp.sum(count > 0, dtype=jnp.float32))


def constant_mean(loss: Float[Array, "N S"], mask: Bool[Array, "N S"], length: int) -> Sums:
    """Sums of the mean over sequences of their token sum / length, a constant (arXiv:2503.20783).

    A token weighs the same whatever the length of its response, and of the other ones. Empty
    sequences do not count.
    """
    sequences = jnp.sum(jnp.any(mask, 1), dtype=jnp.float32)
    return Sums(jnp.sum(jnp.where(mask, loss, 0.0)), sequences * length)


def sft_loss(log_prob: Float[Array, "N S"], mask: Bool[Array, "N S"]) -> Sums:
    """Sums of the mean of -log_prob over all tokens that the assistant wrote."""
    return token_mean(-log_prob, mask)


def sequence_log_prob(
    log_prob: Float[Array, "N S"], mask: Bool[Array, "N S"]
) -> Float[Array, " N"]:
    """Log-prob of each whole response, as DPO wants it."""
    return jnp.sum(jnp.where(mask, log_prob, 0.0), 1)


def without_cut(
    mask: Bool[Array, "N S"], turn: Int[Array, "N S"], cut: Bool[Array, "N U"]
) -> Bool[Array, "N S"]:
    """The mask without the tokens of responses that the length limit cut, for masking them.

    `turn` is the turn of each token: a response that was cut early in an episode is dropped alone.
    """
    return mask & ~jnp.take_along_axis(cut, jnp.where(mask, turn, 0), axis=1)

"""Loss formulas: elementwise, before any mean."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def clipped_surrogate(
    log_prob: Float[Array, "*N"],
    old_log_prob: Float[Array, "*N"],
    advantage: Float[Array, "*N"],
    clip_eps: float,
) -> Float[Array, "*N"]:
    """PPO's objective as a loss, eq. 7 of arXiv:1707.06347: the min, for both signs of A."""
    return clipped_ratio(log_prob - old_log_prob, advantage, clip_eps, clip_eps)


def clipped_ratio(
    log_ratio: Float[Array, "*N"],
    advantage: Float[Array, "*N"],
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> Float[Array, "*N"]:
    """PPO's objective as a loss, the ratio clipped to [1 - clip_low, 1 + clip_high].

    Apart they are those of arXiv:2503.14476, eq. 8. `dual_clip` > 1 bounds the loss at
    dual_clip * |A| where A < 0 (arXiv:1912.09729, eq. 5), which nothing else does.
    """
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    loss = -jnp.minimum(ratio * advantage, clipped * advantage)
    if dual_clip is None:
        return loss
    return jnp.where(advantage < 0, jnp.minimum(loss, -dual_clip * advantage), loss)


def outside_clip(
    log_ratio: Float[Array, "*N"], advantage: Float[Array, "*N"], clip_low: float, clip_high: float
) -> Bool[Array, "*N"]:
    """Where `clipped_ratio` without a dual clip has no gradient because of the clip."""
    ratio = jnp.exp(log_ratio)
    above = (advantage > 0) & (ratio > 1.0 + clip_high)
    return above | ((advantage < 0) & (ratio < 1.0 - clip_low))


def cispo(
    log_prob: Float[Array, "*N"],
    log_ratio: Float[Array, "*N"],
    advantage: Float[Array, "*N"],
    ratio_cap: float,
) -> Float[Array, "*N"]:
    """Policy gradient weighted by the capped ratio, eq. 4 of arXiv:2506.13585.

    The weight has no gradient, so that every token keeps its own, also beyond the cap.
    """
    weight = jax.lax.stop_gradient(jnp.minimum(jnp.exp(log_ratio), ratio_cap))
    return -weight * advantage * log_prob


def policy_gradient(
    log_prob: Float[Array, "*N"], advantage: Float[Array, "*N"]
) -> Float[Array, "*N"]:
    """REINFORCE as a loss: -A log pi."""
    return -advantage * log_prob


def value_loss(value: Float[Array, "*N"], target: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """Half the squared error."""
    return 0.5 * jnp.square(value - target)


def clipped_value_loss(
    value: Float[Array, "*N"],
    old_value: Float[Array, "*N"],
    target: Float[Array, "*N"],
    clip_eps: float,
) -> Float[Array, "*N"]:
    """The larger of the plain loss and that of a value kept within clip_eps of the old one."""
    near = old_value + jnp.clip(value - old_value, -clip_eps, clip_eps)
    return jnp.maximum(value_loss(value, target), value_loss(near, target))


def approx_kl(log_prob: Float[Array, "*N"], old_log_prob: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """KL(old || new) per sample: the k3 estimator, non-negative (Schulman 2020)."""
    log_ratio = log_prob - old_log_prob
    return jnp.expm1(log_ratio) - log_ratio


def kl_k1(log_prob: Float[Array, "*N"], ref_log_prob: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """KL(pi || ref) per sample of pi: unbiased; as a loss its mean gradient is 0."""
    return log_prob - ref_log_prob


def kl_k2(log_prob: Float[Array, "*N"], ref_log_prob: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """Half the squared log-ratio (Schulman 2020).

    On samples of pi its mean gradient is that of KL(pi || ref), which k3's is not.
    """
    return 0.5 * jnp.square(log_prob - ref_log_prob)


def kl_k3(log_prob: Float[Array, "*N"], ref_log_prob: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """KL(pi || ref) per sample of pi: unbiased and non-negative, the term of GRPO's paper."""
    return approx_kl(ref_log_prob, log_prob)

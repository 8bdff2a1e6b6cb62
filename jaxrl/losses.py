"""Loss formulas: elementwise, before any mean."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def clipped_surrogate(
    log_prob: Float[Array, "*N"],
    old_log_prob: Float[Array, "*N"],
    advantage: Float[Array, "*N"],
    clip_eps: float,
) -> Float[Array, "*N"]:
    """PPO's objective as a loss, eq. 7 of arXiv:1707.06347: the min, for both signs of A."""
    ratio = jnp.exp(log_prob - old_log_prob)
    clipped = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


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

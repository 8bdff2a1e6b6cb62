"""Losses of preferences: which of two responses is the better one, or whether one is good.

Elementwise, before any mean. `chosen` and `rejected` are scores, log-probs of whole responses or
their log-ratios to a reference's, as each function says; a log-prob is a sum over the response's
tokens, except for SimPO's, which is their mean.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def bradley_terry(
    chosen: Float[Array, "*N"],
    rejected: Float[Array, "*N"],
    margin: Float[Array, "*N"] | float = 0.0,
) -> Float[Array, "*N"]:
    """Loss of a reward model on pairs: -log sigmoid(chosen - rejected - margin)."""
    return jax.nn.softplus(rejected - chosen + margin)


def implied_margin(
    chosen: Float[Array, "*N"],
    rejected: Float[Array, "*N"],
    ref_chosen: Float[Array, "*N"],
    ref_rejected: Float[Array, "*N"],
) -> Float[Array, "*N"]:
    """How much further a policy is from its reference for the chosen response, in log-probs.

    Times beta the difference of the rewards that the policy implies (eq. 5 of arXiv:2305.18290);
    what the losses below take as `margin`.
    """
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def dpo(margin: Float[Array, "*N"], beta: float, flipped: float = 0.0) -> Float[Array, "*N"]:
    """Direct preference optimisation, eq. 7 of arXiv:2305.18290.

    With `flipped` the expected loss where so many labels are wrong: conservative DPO (Mitchell
    2023), whose optimum has sigmoid(beta * margin) = 1 - flipped.
    """
    right, wrong = jax.nn.softplus(-beta * margin), jax.nn.softplus(beta * margin)
    return (1.0 - flipped) * right + flipped * wrong


def robust(margin: Float[Array, "*N"], beta: float, flipped: float) -> Float[Array, "*N"]:
    """DPO whose mean is that of right labels though a share `flipped` < 1/2 of them is wrong.

    Robust DPO, arXiv:2403.00409. Unbounded below.
    """
    right, wrong = jax.nn.softplus(-beta * margin), jax.nn.softplus(beta * margin)
    return ((1.0 - flipped) * right - flipped * wrong) / (1.0 - 2.0 * flipped)


def ipo(margin: Float[Array, "*N"], beta: float) -> Float[Array, "*N"]:
    """Identity preference optimisation, eq. 17 of arXiv:2310.12036: a margin of 1 / (2 beta)."""
    return jnp.square(margin - 0.5 / beta)


def hinge(margin: Float[Array, "*N"], beta: float) -> Float[Array, "*N"]:
    """Nothing from beta * margin = 1 on: SLiC-HF's calibration (arXiv:2305.10425)."""
    return jax.nn.relu(1.0 - beta * margin)


def simpo(
    chosen: Float[Array, "*N"],
    rejected: Float[Array, "*N"],
    beta: float,
    gamma: Float[Array, "*N"] | float,
) -> Float[Array, "*N"]:
    """Of mean log-probs, without a reference: arXiv:2405.14734."""
    return bradley_terry(beta * chosen, beta * rejected, gamma)


def kto_baseline(mismatched: Float[Array, "*N"]) -> Float[Array, ""]:
    """The reference point of KTO, without a gradient: log-ratios of others' responses, >= 0.

    Of prompts with responses to other prompts they estimate KL(policy || reference).
    """
    return jax.lax.stop_gradient(jnp.maximum(jnp.mean(mismatched), 0.0))


def kto(
    log_ratio: Float[Array, "*N"],
    good: Bool[Array, "*N"],
    baseline: Float[Array, ""],
    beta: float,
    good_weight: float = 1.0,
    bad_weight: float = 1.0,
) -> Float[Array, "*N"]:
    """Kahneman-Tversky optimisation of single responses, arXiv:2402.01306.

    In (0, weight): a good response should be further above the baseline, a bad one below it.
    """
    above = beta * (log_ratio - baseline)
    return jnp.where(good, good_weight * jax.nn.sigmoid(-above), bad_weight * jax.nn.sigmoid(above))

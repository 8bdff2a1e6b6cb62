"""Losses of preferences: NumPy, finite differences, and what is known of them on paper."""

import beartype
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import jaxtyped
from quick import jit

from jaxrl import preferences

checked = jaxtyped(typechecker=beartype.beartype)  # the signatures' shapes hold, in and out
BETA, FLIPPED, GAMMA = 0.3, 0.2, 0.5
GOOD = np.array([1, 0, 1, 1, 0, 0, 1, 0], bool)
BASELINE = 0.4


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


# each of (x, other), which stand for what the loss is of; and the same in NumPy
LOSSES = {
    "bradley_terry": (
        lambda x, other: checked(preferences.bradley_terry)(x, other, other * other),
        lambda x, other: -log_sigmoid(x - other - other * other),
    ),
    "implied_margin": (
        lambda x, other: checked(preferences.implied_margin)(x, other, 2 * other, 3 * x),
        lambda x, other: (x - 2 * other) - (other - 3 * x),
    ),
    "dpo": (
        lambda x, other: checked(preferences.dpo)(x, BETA),
        lambda x, other: -log_sigmoid(BETA * x),
    ),
    "cdpo": (
        lambda x, other: checked(preferences.dpo)(x, BETA, FLIPPED),
        lambda x, other: -(1 - FLIPPED) * log_sigmoid(BETA * x) - FLIPPED * log_sigmoid(-BETA * x),
    ),
    "robust": (
        lambda x, other: checked(preferences.robust)(x, BETA, FLIPPED),
        lambda x, other: (
            (FLIPPED * log_sigmoid(-BETA * x) - (1 - FLIPPED) * log_sigmoid(BETA * x))
            / (1 - 2 * FLIPPED)
        ),
    ),
    "ipo": (
        lambda x, other: checked(preferences.ipo)(x, BETA),
        lambda x, other: (x - 1 / (2 * BETA)) ** 2,
    ),
    "hinge": (
        lambda x, other: checked(preferences.hinge)(x, BETA),
        lambda x, other: np.maximum(0, 1 - BETA * x),
    ),
    "simpo": (
        lambda x, other: checked(preferences.simpo)(x, other, BETA, GAMMA),
        lambda x, other: -log_sigmoid(BETA * (x - other) - GAMMA),
    ),
    "kto": (
        lambda x, other: checked(preferences.kto)(
            x, jnp.asarray(GOOD), jnp.asarray(BASELINE), BETA, 1.2, 0.7
        ),
        lambda x, other: np.where(
            GOOD,
            1.2 * (1 - np.exp(log_sigmoid(BETA * (x - BASELINE)))),
            0.7 * (1 - np.exp(log_sigmoid(BETA * (BASELINE - x)))),
        ),
    ),
}


@pytest.fixture(scope="module")
def computed():
    """name -> (loss, slope, slope by finite differences) [8], and what it was of."""
    x, other = np.random.default_rng(2).normal(scale=4.0, size=(2, 8))

    def every_loss(x):
        # with the margins on both sides of the hinge's corner, and none near it
        return jnp.stack([ours(x, jnp.asarray(other)) for ours, _ in LOSSES.values()])

    with jax.enable_x64(True):
        along = jit(lambda x: jax.jvp(every_loss, (x,), (jnp.ones_like(x),)))
        below, above, (loss, slope) = jax.device_get((along(x - 1e-6), along(x + 1e-6), along(x)))
    rise = (above[0] - below[0]) / 2e-6
    return x, other, {name: (loss[i], slope[i], rise[i]) for i, name in enumerate(LOSSES)}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_that_of_numpy_and_its_gradient_that_of_finite_differences(name, computed):
    x, other, found = computed
    loss, slope, rise = found[name]
    np.testing.assert_allclose(loss, LOSSES[name][1](x, other), rtol=1e-10)
    np.testing.assert_allclose(slope, rise, rtol=1e-6, atol=1e-8)
    assert np.any(slope != 0)


def test_a_policy_that_is_its_reference_has_the_losses_that_are_known_on_paper():
    log_prob = jnp.linspace(-30.0, -1.0, 5)
    margin = preferences.implied_margin(log_prob, log_prob[::-1], log_prob, log_prob[::-1])
    assert not np.any(margin), "so that no pair is told right"
    for loss in (
        preferences.dpo(margin, 0.1),
        preferences.dpo(margin, 2.0, FLIPPED),
        preferences.robust(margin, 0.1, FLIPPED),
        preferences.bradley_terry(margin, margin),
    ):
        np.testing.assert_allclose(loss, np.log(2.0), rtol=1e-6)
    np.testing.assert_allclose(preferences.ipo(margin, 0.1), 25.0, rtol=1e-6)
    np.testing.assert_array_equal(preferences.hinge(margin, 0.1), 1.0)
    nothing = preferences.kto_baseline(margin)
    for good in (True, False):
        loss = preferences.kto(margin, jnp.full(5, good), nothing, 0.1)
        np.testing.assert_allclose(loss, 0.5, rtol=1e-6)


def test_dpo_is_the_bradley_terry_loss_of_the_implied_rewards():
    chosen, rejected, ref_chosen, ref_rejected = jnp.asarray(
        np.random.default_rng(4).normal(scale=4.0, size=(4, 9)), jnp.float32
    )
    margin = preferences.implied_margin(chosen, rejected, ref_chosen, ref_rejected)
    rewards = BETA * (chosen - ref_chosen), BETA * (rejected - ref_rejected)
    expected = preferences.bradley_terry(*rewards)
    np.testing.assert_allclose(preferences.dpo(margin, BETA), expected, rtol=1e-4)


def test_conservative_dpo_is_least_where_the_policy_expects_the_share_of_flipped_labels():
    best = np.log((1 - FLIPPED) / FLIPPED) / BETA
    slope = jax.vmap(jax.grad(lambda x: preferences.dpo(x[None], BETA, FLIPPED)[0]))
    below, at, above = slope(jnp.asarray([best - 0.1, best, best + 0.1], jnp.float32))
    assert below < -1e-4 and abs(at) < 1e-6 and above > 1e-4


def test_the_mean_robust_loss_over_flipped_labels_is_dpo_of_the_right_ones():
    margin = jnp.linspace(-9.0, 9.0, 7)
    right, wrong = (preferences.robust(sign * margin, BETA, FLIPPED) for sign in (1, -1))
    mean = (1 - FLIPPED) * right + FLIPPED * wrong
    np.testing.assert_allclose(mean, preferences.dpo(margin, BETA), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(preferences.robust(margin, BETA, 0.0), preferences.dpo(margin, BETA))


def test_a_margin_that_is_asked_for_moves_the_loss_by_as_much():
    chosen, rejected = jnp.asarray([[2.0, -1.0], [0.5, 3.0]])
    margin = jnp.asarray([0.25, 2.0])
    got = preferences.bradley_terry(chosen, rejected, margin)
    np.testing.assert_allclose(got, preferences.bradley_terry(chosen - margin, rejected))


def test_simpo_of_no_gamma_asks_for_a_likelier_token_on_average():
    chosen, rejected = jnp.asarray([-1.0, -2.0]), jnp.asarray([-1.0, -1.0])
    got = preferences.simpo(chosen, rejected, 2.0, 0.0)
    np.testing.assert_allclose(got, np.log1p(np.exp([0.0, 2.0])), rtol=1e-6)


def test_ktos_baseline_is_never_below_zero_and_has_no_gradient():
    value, slope = jax.value_and_grad(preferences.kto_baseline)(jnp.asarray([3.0, -1.0]))
    assert value == 1.0 and not np.any(slope)
    assert preferences.kto_baseline(jnp.asarray([1.0, -2.0])) == 0.0


def test_ktos_loss_falls_as_a_good_response_rises_or_a_bad_one_falls_and_is_bounded():
    ratio = jnp.asarray([-1e3, -1.0, 0.5, 1e3])
    good = preferences.kto(ratio, jnp.ones(4, bool), jnp.asarray(0.5), 0.1, 2.0)
    bad = preferences.kto(ratio, jnp.zeros(4, bool), jnp.asarray(0.5), 0.1, 1.0, 3.0)
    assert np.all(np.diff(good) < 0) and np.all(np.diff(bad) > 0)
    np.testing.assert_allclose(good[jnp.asarray([0, 2, 3])], [2.0, 1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(bad[jnp.asarray([0, 2, 3])], [0.0, 1.5, 3.0], atol=1e-6)


def test_a_hopeless_pair_has_a_finite_loss_and_gradient():
    loss = jax.value_and_grad(lambda x: preferences.bradley_terry(x, -x).sum())
    value, slope = loss(jnp.asarray([-500.0]))
    assert value == 1000.0 and slope == -2.0
    value, slope = jax.value_and_grad(lambda x: preferences.dpo(x, 1.0).sum())(jnp.asarray([1e4]))
    assert value == 0.0 and slope == 0.0

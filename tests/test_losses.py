"""Loss formulas: cases by hand, gradients by finite differences."""

import beartype
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError, jaxtyped
from quick import jit
from scipy import stats

from jaxrl import losses

checked = jaxtyped(typechecker=beartype.beartype)  # the signatures' shapes hold, in and out
clipped_surrogate = jit(checked(losses.clipped_surrogate), static_argnums=3)
value_loss = jit(checked(losses.value_loss))
clipped_value_loss = jit(checked(losses.clipped_value_loss), static_argnums=3)
approx_kl = jit(checked(losses.approx_kl))
clipped_ratio = jit(checked(losses.clipped_ratio), static_argnums=(2, 3, 4))
outside_clip = jit(checked(losses.outside_clip), static_argnums=(2, 3))
cispo = jit(checked(losses.cispo), static_argnums=3)
policy_gradient = jit(checked(losses.policy_gradient))
kl_k2 = jit(checked(losses.kl_k2))
kl_k3 = jit(checked(losses.kl_k3))

# (ratio, advantage, loss, d loss / d log_prob) with clip_eps 0.2, by hand
SURROGATE = [
    (1.5, 1.0, -1.2, 0.0),  # good and already likelier: nothing more to gain
    (0.5, 1.0, -0.5, -0.5),  # good but less likely: pulled back
    (1.5, -1.0, 1.5, 1.5),  # bad but likelier: pushed down
    (0.5, -1.0, 0.8, 0.0),  # bad and already less likely
    (1.1, 2.0, -2.2, -2.2),
    (0.9, -2.0, 1.8, 1.8),
    (1.0, 3.0, -3.0, -3.0),
    (1.0, -3.0, 3.0, 3.0),
    (1.5, 0.0, 0.0, 0.0),
]

# (ratio, advantage, loss, d loss / d log_prob) with clips 0.2 below and 0.28 above, dual clip 3
DUAL = [
    (1.27, 1.0, -1.27, -1.27),  # within the wider side
    (1.5, 1.0, -1.28, 0.0),
    (0.5, 1.0, -0.5, -0.5),
    (0.79, -1.0, 0.8, 0.0),  # beyond the narrower side
    (1.5, -1.0, 1.5, 1.5),
    (2.9, -2.0, 5.8, 5.8),
    (9.0, -2.0, 6.0, 0.0),  # the dual clip
    (9.0, 2.0, -2.56, 0.0),  # of which a good action knows nothing
    (0.1, 2.0, -0.2, -0.2),
]


def array(*numbers):
    return np.asarray(numbers, np.float32)


def columns(rows):
    return (array(*x) for x in zip(*rows, strict=True))


def gradient(f, x):
    """d f(x)[i] / d x[i] for an elementwise f."""
    return jit(jax.grad(lambda x: jnp.sum(f(x))))(x)


def test_the_surrogate_is_the_smaller_objective_for_both_signs_of_the_advantage():
    ratio, advantage, loss, _ = columns(SURROGATE)
    old = np.linspace(
        -3, 1, len(SURROGATE), dtype=np.float32
    )  # only the difference of log-probs counts
    got = clipped_surrogate(old + np.log(ratio), old, advantage, 0.2)
    np.testing.assert_allclose(got, loss, rtol=1e-5, atol=1e-6)


def test_the_surrogate_has_no_gradient_only_where_clipping_makes_it_worse():
    ratio, advantage, _, slope = columns(SURROGATE)
    zero = 0 * ratio
    got = gradient(lambda x: losses.clipped_surrogate(x, zero, advantage, 0.2), np.log(ratio))
    np.testing.assert_allclose(got, slope, rtol=1e-5, atol=1e-6)


def test_the_surrogate_at_ratio_1_has_the_policy_gradient():
    advantage, log_prob = array(2.0, -1.0, 0.5), array(-0.1, -3.0, 1.0)
    got = gradient(lambda x: losses.clipped_surrogate(x, log_prob, advantage, 0.2), log_prob)
    np.testing.assert_allclose(got, -advantage, rtol=1e-6)


def test_the_gradients_of_all_losses_agree_with_finite_differences():
    x = array(-0.63, -0.31, -0.11, 0.05, 0.12, 0.27, 0.66)  # away from the kinks
    zero, target = 0 * x, array(1.0, -1.0, 0.5, 2.0, -2.0, 0.1, -0.4)

    def every_loss(x):
        surrogate = losses.clipped_surrogate(x, zero, target, 0.2)
        value = losses.clipped_value_loss(x, zero, target, 0.2)
        return jnp.stack(
            [surrogate, value, losses.value_loss(x, target), losses.approx_kl(x, zero)]
        )

    along = jit(lambda x: jax.jvp(every_loss, (x,), (jnp.ones_like(x),)))
    h = np.float32(1e-2)
    expected = (along(x + h)[0] - along(x - h)[0]) / (2 * h)
    np.testing.assert_allclose(along(x)[1], expected, rtol=2e-3, atol=2e-3)


def test_the_value_loss_is_half_the_squared_error():
    np.testing.assert_array_equal(value_loss(array(1.0, -2.0), array(4.0, 0.0)), [4.5, 2])


def test_the_clipped_value_loss_is_the_larger_of_the_plain_and_the_clipped_one():
    # (value, old value, target, loss) with clip_eps 0.2
    value, old, target, loss = columns(
        [
            (1.0, 0.0, 2.0, 0.5 * 1.8**2),  # moved towards the target beyond the clip
            (-1.0, 0.0, -2.0, 0.5 * 1.8**2),
            (1.0, 0.0, 0.0, 0.5 * 1.0**2),  # moved away: the plain loss pulls it back
            (0.1, 0.0, 2.0, 0.5 * 1.9**2),  # within the clip: the plain loss
            (5.1, 5.0, 7.0, 0.5 * 1.9**2),  # about the old value, not about zero
        ]
    )
    got = clipped_value_loss(value, old, target, 0.2)
    np.testing.assert_allclose(got, loss, rtol=1e-5)
    assert np.all(got >= value_loss(value, target) - 1e-6)


def test_the_clipped_value_loss_has_no_gradient_beyond_the_clip_towards_the_target():
    zero, target = array(0, 0, 0), array(2.0, 0.0, 2.0)
    got = gradient(lambda x: losses.clipped_value_loss(x, zero, target, 0.2), array(1.0, 1.0, 0.1))
    np.testing.assert_allclose(got, [0.0, 1.0, -1.9], rtol=1e-5)


def test_the_kl_estimate_is_never_negative_and_zero_only_for_equal_log_probs():
    log_ratio = array(*np.linspace(-5, 3, 81), 1e-3, -1e-3)
    got = np.asarray(approx_kl(log_ratio - 2, 0 * log_ratio - 2))
    assert np.all(got >= 0) and np.all(got[np.abs(log_ratio) > 0.01] > 0)
    assert got[50] == 0 and log_ratio[50] == 0


def test_the_mean_of_the_kl_estimate_is_kl_of_old_from_new():
    p, q = np.random.default_rng(0).dirichlet(np.ones(6), size=2)
    expected = stats.entropy(p, q)
    assert expected > 0.1
    got = approx_kl(array(*np.log(q)), array(*np.log(p)))
    np.testing.assert_allclose(p @ np.asarray(got), expected, rtol=1e-4)


def test_the_kl_estimate_of_nearly_equal_log_probs_loses_no_digits():
    log_ratio = array(1e-3, -1e-3)  # exp(x) - 1 - x in float32 would be off by a tenth
    np.testing.assert_allclose(approx_kl(log_ratio, 0 * log_ratio), log_ratio**2 / 2, rtol=2e-3)


@pytest.mark.parametrize("loss", [value_loss, approx_kl])
def test_losses_refuse_inputs_that_would_broadcast(loss):
    with pytest.raises(TypeCheckError):
        loss(jnp.zeros((3, 1)), jnp.zeros(3))


def test_the_clipped_losses_refuse_inputs_that_would_broadcast():
    for odd in range(3):
        inputs = [jnp.zeros(3)] * 3
        inputs[odd] = jnp.zeros((3, 1))
        for loss in (clipped_surrogate, clipped_value_loss):
            with pytest.raises(TypeCheckError):
                loss(*inputs, 0.2)


def test_the_clip_has_a_side_above_and_one_below_and_the_dual_clip_bounds_bad_actions():
    ratio, advantage, loss, slope = columns(DUAL)
    got = clipped_ratio(np.log(ratio), advantage, 0.2, 0.28, 3.0)
    np.testing.assert_allclose(got, loss, rtol=1e-5)
    got = gradient(lambda x: losses.clipped_ratio(x, advantage, 0.2, 0.28, 3.0), np.log(ratio))
    np.testing.assert_allclose(got, slope, rtol=1e-5, atol=1e-6)
    without = clipped_ratio(np.log(ratio), advantage, 0.2, 0.28, None)
    np.testing.assert_allclose(without, np.where(loss == 6, 18, loss), rtol=1e-5)


def test_outside_clip_is_where_the_clip_leaves_no_gradient():
    ratio, advantage, _, _ = columns(DUAL + SURROGATE)
    slope = gradient(lambda x: losses.clipped_ratio(x, advantage, 0.2, 0.28), np.log(ratio))
    got = np.asarray(outside_clip(np.log(ratio), advantage, 0.2, 0.28))
    np.testing.assert_array_equal(got, (slope == 0) & (advantage != 0))
    assert got.any() and not got.all()


def test_cispo_caps_the_weight_of_a_token_and_keeps_its_gradient():
    ratio, advantage = array(0.5, 1.0, 3.0, 9.0, 9.0), array(2.0, 1.0, 1.0, 1.0, -1.0)
    old = array(-1.0, -2.0, -3.0, -4.0, -5.0)
    log_prob, weight = old + np.log(ratio), array(0.5, 1.0, 3.0, 4.0, 4.0)
    got = cispo(log_prob, log_prob - old, advantage, 4.0)
    np.testing.assert_allclose(got, -weight * advantage * log_prob, rtol=1e-5)
    got = gradient(lambda x: losses.cispo(x, x - old, advantage, 4.0), log_prob)
    np.testing.assert_allclose(got, -weight * advantage, rtol=1e-5)


def test_the_policy_gradient_is_the_gradient_of_the_surrogate_at_ratio_1():
    log_prob, advantage = array(-0.1, -3.0, -1.0), array(2.0, -1.0, 0.5)
    np.testing.assert_allclose(policy_gradient(log_prob, advantage), [0.2, -3.0, 0.5], rtol=1e-6)
    got = gradient(lambda x: losses.policy_gradient(x, advantage), log_prob)
    np.testing.assert_array_equal(got, -advantage)


def test_the_mean_of_k3_is_kl_of_the_policy_from_the_reference():
    p, q = np.random.default_rng(0).dirichlet(np.ones(6), size=2)
    got = p @ np.asarray(kl_k3(array(*np.log(p)), array(*np.log(q))))
    np.testing.assert_allclose(got, stats.entropy(p, q), rtol=1e-4)
    assert abs(stats.entropy(p, q) - stats.entropy(q, p)) > 0.1


def test_k2_has_the_gradient_of_the_kl_on_average():
    logit, ref = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)

    def exact(logit):
        log_p, log_q = jax.nn.log_softmax(logit), jax.nn.log_softmax(ref)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q))

    def on_samples(logit):
        log_p = jax.nn.log_softmax(logit)
        weight = jax.lax.stop_gradient(jnp.exp(log_p))  # how often each is drawn
        return jnp.sum(weight * losses.kl_k2(log_p, jax.nn.log_softmax(ref)))

    got, expected = (jit(jax.grad(f))(logit) for f in (on_samples, exact))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kl_k2(array(-1.0, 2.0), array(1.0, 1.0)), [2.0, 0.5])


def test_the_gradients_of_the_language_losses_agree_with_finite_differences():
    rng = np.random.default_rng(3)
    x, ref, other = rng.normal(size=(3, 8))

    def every_loss(x):
        return jnp.stack(
            [
                losses.kl_k2(x, ref),
                losses.kl_k3(x, ref),
                losses.clipped_ratio(x, other, 0.2, 0.28, 3.0),
            ]
        )

    with jax.enable_x64(True):
        along = jit(lambda x: jax.jvp(every_loss, (x,), (jnp.ones_like(x),)))
        below, above, (_, slope) = jax.device_get((along(x - 1e-6), along(x + 1e-6), along(x)))
    np.testing.assert_allclose(slope, (above[0] - below[0]) / 2e-6, rtol=1e-6, atol=1e-8)

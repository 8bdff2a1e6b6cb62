"""Objectives over tokens: against NumPy in float64, the gradients by finite differences of it."""

from functools import partial
from itertools import pairwise

import beartype
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import TypeCheckError, jaxtyped
from quick import jit

from jaxrl import losses, metrics, objectives
from jaxrl.metrics import Sums

N, S = 8, 6
LOW, HIGH, DUAL, CAP, LENGTH = 0.2, 0.28, 1.5, 1.2, 10


def checked(function):
    """The function, of arrays of either kind, with the shapes of its signature held."""
    held = jaxtyped(typechecker=beartype.beartype)(function)

    def call(*args, **how):
        return held(*(jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in args), **how)

    return call


def random_tokens():
    """log_prob and old [N, S], advantage [N] and mask, one row of it empty."""
    rng = np.random.default_rng(3)  # reaches every branch, see below
    old = -rng.exponential(1.0, (N, S))
    near = old + rng.normal(0.0, 0.5, (2, N, S))
    mask = rng.random((N, S)) < 0.7
    mask[2] = False
    advantage = np.array([1.5, -0.7, 2.0, -1.2, 0.4, -0.9, 0.8, -2.0])
    return near[0], old, advantage, mask


LOG_PROB, OLD, ADVANTAGE, MASK = random_tokens()
A = np.broadcast_to(ADVANTAGE[:, None], (N, S)).copy()


# Each objective twice: ours, of log-probs and mask; and in NumPy, token by token, where `at` are
# the log-probs that what has no gradient is computed from.


def ours_clipped(log_prob, old, mask):
    ratio = checked(objectives.token_log_ratio)(log_prob, old, mask)
    return losses.clipped_ratio(ratio, A, LOW, HIGH)


def ours_dual(log_prob, old, mask):
    return losses.clipped_ratio(objectives.token_log_ratio(log_prob, old, mask), A, LOW, HIGH, DUAL)


def ours_on_policy(log_prob, old, mask):
    ratio = checked(objectives.on_policy_log_ratio)(log_prob, mask)
    return losses.clipped_ratio(ratio, A, LOW, HIGH)


def ours_gspo(log_prob, old, mask):
    ratio = checked(objectives.sequence_log_ratio)(log_prob, old, mask)
    return losses.clipped_ratio(ratio, A, 0.05, 0.05)


def ours_cispo(log_prob, old, mask):
    return losses.cispo(log_prob, objectives.token_log_ratio(log_prob, old, mask), A, CAP)


def ours_reinforce(log_prob, old, mask):
    return losses.policy_gradient(log_prob, A)


def clip(ratio, advantage, low=LOW, high=HIGH):
    if advantage > 0:
        return -advantage * min(ratio, 1 + high)
    return -advantage * max(ratio, 1 - low)


def token_by_token(formula):
    def loss(log_prob, at):
        return np.array([[formula(log_prob, at, n, s) for s in range(S)] for n in range(N)])

    return loss


@token_by_token
def numpy_clipped(log_prob, at, n, s):
    return clip(np.exp(log_prob[n, s] - OLD[n, s]), ADVANTAGE[n])


@token_by_token
def numpy_dual(log_prob, at, n, s):
    loss = clip(np.exp(log_prob[n, s] - OLD[n, s]), ADVANTAGE[n])
    return loss if ADVANTAGE[n] > 0 else min(loss, DUAL * -ADVANTAGE[n])


@token_by_token
def numpy_on_policy(log_prob, at, n, s):
    return clip(np.exp(log_prob[n, s] - at[n, s]), ADVANTAGE[n])


@token_by_token
def numpy_gspo(log_prob, at, n, s):
    if not MASK[n].any():
        return 0.0
    mean = np.mean([log_prob[n, i] - OLD[n, i] for i in range(S) if MASK[n, i]])
    return clip(np.exp(mean), ADVANTAGE[n], 0.05, 0.05)


@token_by_token
def numpy_cispo(log_prob, at, n, s):
    weight = min(np.exp(at[n, s] - OLD[n, s]), CAP)
    return -weight * ADVANTAGE[n] * log_prob[n, s]


@token_by_token
def numpy_reinforce(log_prob, at, n, s):
    return -ADVANTAGE[n] * log_prob[n, s]


SURROGATES = {
    "clipped": (ours_clipped, numpy_clipped),
    "dual": (ours_dual, numpy_dual),
    "on_policy": (ours_on_policy, numpy_on_policy),
    "gspo": (ours_gspo, numpy_gspo),
    "cispo": (ours_cispo, numpy_cispo),
    "reinforce": (ours_reinforce, numpy_reinforce),
}

MEANS = {
    "token": checked(objectives.token_mean),
    "sequence": checked(objectives.sequence_mean),
    "constant": partial(checked(objectives.constant_mean), length=LENGTH),
}


def every_mean(loss, mask):
    return jnp.stack([metrics.quotient(mean(loss, mask)) for mean in MEANS.values()])


def numpy_means(loss, mask):
    rows = [loss[n][mask[n]] for n in range(len(loss)) if mask[n].any()]
    tokens = np.concatenate(rows)
    return np.array(
        [
            tokens.sum() / len(tokens),
            np.mean([row.mean() for row in rows]),
            np.mean([row.sum() / LENGTH for row in rows]),
        ]
    )


def finite_differences(function, x, h=1e-6):
    """[..., N, S]: the slope of the function's every output along each entry of x."""
    slope = np.zeros((len(MEANS), *x.shape))
    for at in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[at] = h
        slope[:, *at] = (function(x + step) - function(x - step)) / (2 * h)
    return slope


@pytest.mark.parametrize("name", SURROGATES)
def test_every_mean_of_a_surrogate_and_its_gradient_are_those_of_the_numpy_reference(name):
    ours, reference = SURROGATES[name]

    def objective(log_prob):
        return every_mean(ours(log_prob, OLD, MASK), MASK)

    def expected(log_prob):
        return numpy_means(reference(log_prob, LOG_PROB), MASK)

    with jax.enable_x64(True):
        both = jit(lambda x: (objective(x), jax.jacrev(objective)(x)))
        value, slope = jax.device_get(both(LOG_PROB))
    np.testing.assert_allclose(value, expected(LOG_PROB), rtol=1e-6)
    np.testing.assert_allclose(slope, finite_differences(expected, LOG_PROB), rtol=1e-5, atol=1e-8)
    assert np.all(slope[:, ~MASK] == 0) and np.abs(slope).max() > 0.01


def test_the_inputs_of_the_references_reach_every_branch():
    """Or clips, caps and their sides would be compared by nothing."""
    ratio, good = np.exp(LOG_PROB - OLD), A > 0
    whole = np.exp(np.asarray(objectives.sequence_log_ratio(LOG_PROB, OLD, MASK)))
    for branch in (
        good & (ratio > 1 + HIGH),
        good & (ratio < 1 - LOW),
        ~good & (ratio > DUAL),
        ~good & (ratio < 1 - LOW),
        ratio > CAP,
        good & (whole > 1.05),
        ~good & (whole < 0.95),
        np.abs(whole - 1) < 0.05,
    ):
        assert np.any(MASK & branch)
    outside = losses.outside_clip(np.log(ratio), A, LOW, HIGH)
    np.testing.assert_array_equal(outside, (good & (ratio > 1.28)) | (~good & (ratio < 0.8)))


@pytest.mark.parametrize("name", SURROGATES)
def test_nothing_outside_the_mask_reaches_a_loss_or_a_gradient(name):
    ours = SURROGATES[name][0]
    spoilt = [np.where(MASK, x, np.nan).astype(np.float32) for x in (LOG_PROB, OLD)]

    def objective(log_prob, old):
        return jnp.sum(every_mean(ours(log_prob, old, MASK), MASK))

    both = jit(jax.value_and_grad(objective))
    for got, expected in zip(
        jax.tree.leaves(both(*spoilt)),
        jax.tree.leaves(both(np.float32(LOG_PROB), np.float32(OLD))),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)
        assert np.all(np.isfinite(got))


def test_the_end_of_turn_token_gets_the_gradient_of_every_other_token():
    """It is an action: the mask that keeps it is all that it takes."""
    mask = np.zeros((N, S), bool)
    mask[:, 1:4] = True  # two tokens and the end of turn, at 3

    def objective(log_prob, mask):
        return objectives.token_mean(ours_on_policy(log_prob, OLD, mask), mask)[0]

    slope = jit(jax.grad(objective))(LOG_PROB.astype(np.float32), mask)
    np.testing.assert_allclose(slope[:, 1:4], -A[:, 1:4], rtol=1e-6)
    np.testing.assert_array_equal(slope[:, [0, 4, 5]], 0)


def test_the_on_policy_ratio_is_1_exactly_and_its_gradient_the_policy_gradient():
    log_prob = np.float32(LOG_PROB)

    def total(log_prob):
        ratio = objectives.on_policy_log_ratio(log_prob, MASK)
        return jnp.sum(losses.clipped_ratio(ratio, A.astype(np.float32), LOW, HIGH)), ratio

    slope, ratio = jit(jax.grad(total, has_aux=True))(log_prob)
    np.testing.assert_array_equal(ratio, 0)
    np.testing.assert_array_equal(slope, np.where(MASK, -A, 0).astype(np.float32))


def test_the_ratio_of_a_policy_that_has_moved_is_not_1():
    """As it would be if the old log-prob were computed from the new parameters."""
    for ratio_of in (objectives.token_log_ratio, objectives.sequence_log_ratio):
        ratio = np.asarray(ratio_of(LOG_PROB, OLD, MASK))
        assert np.all(ratio[MASK] != 0) and np.abs(ratio).max() > 0.01


def test_the_sequence_ratio_gives_each_turn_the_gradient_of_its_own_advantage():
    mask, advantage = np.ones((1, 4), bool), np.array([[1.0, 1.0, -2.0, -2.0]], np.float32)
    log_prob = np.float32(LOG_PROB[:1, :4])

    def objective(x):
        ratio = objectives.sequence_log_ratio(x, log_prob, mask)
        return jnp.sum(losses.clipped_ratio(ratio, advantage, 3e-4, 3e-4))

    np.testing.assert_allclose(jit(jax.grad(objective))(log_prob), -advantage, rtol=1e-6)


def test_the_means_by_hand():
    loss, mask = np.float32([[1, 2, 9], [5, 9, 9], [9, 9, 9]]), np.zeros((3, 3), bool)
    mask[0, :2] = mask[1, 0] = True
    assert MEANS["token"](loss, mask) == (8, 3)
    assert MEANS["sequence"](loss, mask) == (1.5 + 5, 2)
    assert MEANS["constant"](loss, mask) == (8, 2 * LENGTH)
    assert metrics.quotient(Sums(jnp.float32(8), jnp.float32(3))) == np.float32(8) / 3


@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
def test_a_mean_does_not_depend_on_how_the_batch_is_split(mean):
    """Not even into pieces of very different lengths, one of them empty."""
    loss, mask = np.float32(LOG_PROB), MASK.copy()
    mask[0], mask[1, 1:] = True, False
    whole = metrics.quotient(mean(loss, mask))
    for pieces in (range(N + 1), [0, 3, 4, N]):
        sums = [mean(loss[a:b], mask[a:b]) for a, b in pairwise(pieces)]
        total = Sums(*(sum(x) for x in zip(*sums, strict=True)))
        np.testing.assert_allclose(metrics.quotient(total), whole, rtol=1e-6)
    naive = np.mean([metrics.quotient(mean(loss[n : n + 1], mask[n : n + 1])) for n in range(N)])
    assert abs(naive - whole) > 0.01


def test_the_gradient_summed_over_four_devices_is_that_of_the_whole_batch():
    old, mask = np.float32(OLD), MASK.copy()
    mask[0], mask[1, 1:] = True, False

    def gradient(scale, log_prob, old, advantage, mask, axis=None):
        def numerator(scale):
            ratio = objectives.token_log_ratio(scale * log_prob, old, mask)
            return objectives.token_mean(losses.clipped_ratio(ratio, advantage, LOW, HIGH), mask)

        slope, count = jax.grad(numerator, has_aux=True)(scale)
        if axis is not None:
            slope, count = jax.lax.psum((slope, count), axis)
        return metrics.quotient(Sums(slope, count))

    inputs = np.float32(LOG_PROB), old, np.float32(A), mask
    on_mesh = jax.shard_map(
        partial(gradient, axis="data"),
        mesh=Mesh(np.array(jax.devices()[:4]), ("data",)),
        in_specs=(P(), *[P("data")] * 4),
        out_specs=P(),
        check_vma=False,
    )
    whole = jit(gradient)(jnp.float32(1.0), *inputs)
    np.testing.assert_allclose(jit(on_mesh)(jnp.float32(1.0), *inputs), whole, rtol=1e-5)
    assert abs(whole) > 0.01


@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
def test_a_batch_without_a_token_has_mean_0_and_gradient_0(mean):
    nothing = np.zeros((N, S), bool)
    both = jit(jax.value_and_grad(lambda x: metrics.quotient(mean(x, nothing))))
    value, slope = both(jnp.full((N, S), jnp.nan))
    assert value == 0 and not np.any(slope)


def test_the_sft_loss_is_the_mean_of_minus_log_prob_over_the_tokens_of_the_batch():
    numerator, denominator = checked(objectives.sft_loss)(np.float32(LOG_PROB), MASK)
    np.testing.assert_allclose(numerator, -LOG_PROB[MASK].sum(), rtol=1e-5)
    assert denominator == MASK.sum()


def test_the_log_prob_of_a_response_is_the_sum_over_its_tokens():
    spoilt = np.where(MASK, LOG_PROB, np.nan).astype(np.float32)
    got = checked(objectives.sequence_log_prob)(spoilt, MASK)
    np.testing.assert_allclose(got, [x[m].sum() for x, m in zip(LOG_PROB, MASK, strict=True)], 1e-5)


def test_only_the_tokens_of_cut_responses_leave_the_mask():
    turn = np.int32([[0, 0, 1, 1, 2, -1], [0, 1, 1, 2, 2, 2]])
    mask = np.array([[1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1]], bool)
    cut = np.array([[False, True, False], [True, False, True]])
    got = checked(objectives.without_cut)(mask, turn, cut)
    np.testing.assert_array_equal(got, np.array([[1, 1, 0, 0, 1, 0], [0, 1, 1, 0, 0, 0]], bool))


def test_objectives_refuse_inputs_that_would_broadcast():
    log_prob = np.float32(LOG_PROB)
    with pytest.raises(TypeCheckError):
        MEANS["token"](log_prob[:, :1], MASK)
    with pytest.raises(TypeCheckError):
        checked(objectives.token_log_ratio)(log_prob, log_prob[:1], MASK)
    with pytest.raises(TypeCheckError):
        checked(objectives.sequence_log_prob)(log_prob, MASK.astype(np.float32))

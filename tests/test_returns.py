"""Advantages and returns: by hand, against plain loops, and as identities."""

from functools import partial

import beartype
import jax
import numpy as np
import pytest
from jaxtyping import TypeCheckError, jaxtyped
from quick import jit

from jaxrl import returns
from jaxrl.metrics import quotient

checked = jaxtyped(typechecker=beartype.beartype)  # the signatures' shapes hold, in and out
gae = jit(checked(returns.gae), static_argnums=(5, 6))
lambda_return = jit(checked(returns.lambda_return), static_argnums=(4, 5))
n_step_return = jit(checked(returns.n_step_return), static_argnums=3)
discounted_sum = jit(checked(returns.discounted_sum), static_argnums=3)

T, B = 11, 5


def random_steps(seed=0):
    """reward, value, next_value [T, B] and the two flags, each set at about a quarter of steps."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(3, T, B)).astype(np.float32)
    flags = rng.random((2, T, B)) < 0.25
    assert np.any(flags[0] & flags[1]) and np.any(flags[0] & ~flags[1])
    return (*numbers, *flags)


def gae_by_loops(reward, value, next_value, terminated, truncated, gamma, lam):
    advantage = np.zeros((T, B))
    for b in range(B):
        following = 0.0
        for t in reversed(range(T)):
            bootstrap = 0.0 if terminated[t, b] else next_value[t, b]
            if terminated[t, b] or truncated[t, b]:
                following = 0.0
            delta = reward[t, b] + gamma * bootstrap - value[t, b]
            following = delta + gamma * lam * following
            advantage[t, b] = following
    return advantage


@pytest.fixture(scope="module")
def by_hand():
    """Advantages [3, 4] of four trajectories that differ in how their second step ends: not at
    all, terminated, truncated, both. next_value is never the next row's value."""
    ones, flag = np.ones((3, 4), np.float32), np.zeros((2, 3, 4), bool)
    value = ones * np.array([[1.0], [2.0], [3.0]], np.float32)
    flag[0, 1, [1, 3]] = True
    flag[1, 1, [2, 3]] = True
    return np.asarray(gae(ones, value, 10 * value, *flag, 0.5, 0.5))


def test_gae_without_an_end_sums_the_deltas_at_gamma_lambda(by_hand):
    # delta = 1 + 0.5 * next_value - value = 5, 9, 13; decay 0.25
    np.testing.assert_array_equal(by_hand[:, 0], [5 + (9 + 13 / 4) / 4, 9 + 13 / 4, 13])


def test_gae_after_termination_neither_bootstraps_nor_looks_beyond(by_hand):
    np.testing.assert_array_equal(by_hand[:, 1], [5 - 1 / 4, 1 - 2, 13])


def test_gae_after_truncation_bootstraps_from_next_value_but_cuts_the_trace(by_hand):
    np.testing.assert_array_equal(by_hand[:, 2], [5 + 9 / 4, 1 + 10 - 2, 13])


def test_gae_with_both_flags_is_gae_after_termination(by_hand):
    np.testing.assert_array_equal(by_hand[:, 3], by_hand[:, 1])


@pytest.mark.parametrize(("gamma", "lam"), [(0.9, 0.8), (1.0, 1.0), (0.0, 0.5)])
def test_gae_equals_a_plain_loop_on_random_steps(gamma, lam):
    steps = random_steps()
    expected = gae_by_loops(*steps, gamma, lam)
    np.testing.assert_allclose(gae(*steps, gamma, lam), expected, rtol=1e-5, atol=1e-5)


def test_gae_with_lambda_0_is_the_one_step_error():
    reward, value, next_value, terminated, _ = steps = random_steps(1)
    delta = reward + 0.9 * next_value * ~terminated - value
    np.testing.assert_allclose(gae(*steps, 0.9, 0.0), delta, rtol=1e-5, atol=1e-6)


def test_gae_with_lambda_1_plus_value_is_the_discounted_return_to_the_end():
    reward, value, _, _, _ = random_steps(2)
    next_value = np.concatenate([value[1:], value[:1]])
    never = np.zeros((T, B), bool)
    last = never | (np.arange(T) == T - 1)[:, None]
    discount = 0.9 ** np.arange(T)
    expected = [discount[: T - t] @ reward[t:] for t in range(T)]
    total = gae(reward, value, next_value, last, never, 0.9, 1.0) + value
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)
    # The same return, its tail replaced by what the clock left out.
    total = gae(reward, value, next_value, never, last, 0.9, 1.0) + value
    tail = 0.9 ** np.arange(T, 0, -1)[:, None] * next_value[-1]
    np.testing.assert_allclose(total, expected + tail, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("odd", range(5))
def test_gae_refuses_an_input_of_another_shape_or_kind(odd):
    steps = list(random_steps())
    good = steps[odd]
    for bad in (good[:-1], good[:, 0], good.astype(bool if odd < 3 else np.float32)):
        steps[odd] = bad
        with pytest.raises(TypeCheckError):
            gae(*steps, 0.9, 0.95)


def test_lambda_returns_by_hand_however_the_second_step_ends():
    """Columns: the second step goes on, terminates, is truncated, both; gamma = lambda = 1/2."""
    flag = np.zeros((2, 3, 4), bool)
    flag[0, 1, [1, 3]] = True
    flag[1, 1, [2, 3]] = True
    reward = np.float32([[1.0], [2.0], [3.0]]) * np.ones((3, 4), np.float32)
    total = np.asarray(lambda_return(reward, 4 * reward, *flag, 0.5, 0.5))
    last = 3 + 0.5 * 12
    second = [2 + 0.25 * 8 + 0.25 * last, 2, 2 + 0.5 * 8, 2]
    np.testing.assert_array_equal(total[2], [last] * 4)
    np.testing.assert_array_equal(total[1], second)
    np.testing.assert_array_equal(total[0], [1 + 0.25 * 4 + 0.25 * x for x in second])


def test_lambda_return_is_gae_plus_value_where_next_values_are_the_values_of_the_next_steps():
    reward, value, next_value, terminated, truncated = random_steps(4)
    going_on = ~(terminated | truncated)[:-1]
    next_value[:-1] = np.where(going_on, value[1:], next_value[:-1])
    ends = terminated, truncated
    advantage = gae(reward, value, next_value, *ends, 0.9, 0.8)
    total = lambda_return(reward, next_value, *ends, 0.9, 0.8)
    np.testing.assert_allclose(total, advantage + value, rtol=1e-5, atol=1e-5)


def test_discounted_sum_counts_the_last_step_of_an_episode_and_then_starts_from_zero():
    reward = np.array([[1], [2], [4], [8]], np.float32) * np.ones((4, 3), np.float32)
    done = np.zeros((4, 3), bool)
    done[1, 0] = done[3, 1] = True
    carried, total = discounted_sum(np.full(3, 10, np.float32), reward, done, 0.5)
    unbroken = [6.0, 5.0, 6.5, 11.25]
    np.testing.assert_array_equal(total.T, [[6.0, 5.0, 4.0, 10.0], unbroken, unbroken])
    np.testing.assert_array_equal(carried, [10.0, 0.0, 11.25])


def test_discounted_sum_in_two_pieces_is_the_whole():
    reward, _, _, done, _ = random_steps(3)
    start = np.arange(5, dtype=np.float32)
    carried, whole = discounted_sum(start, reward, done, 0.9)
    middle, first = discounted_sum(start, reward[:4], done[:4], 0.9)
    end, second = discounted_sum(middle, reward[4:], done[4:], 0.9)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, rtol=1e-6)
    np.testing.assert_allclose(end, carried, rtol=1e-6)


@jax.jit
def explained(target, prediction, mask=None):
    return returns.explained_variance(prediction, target, mask)


def test_explained_variance_is_one_minus_the_share_of_variance_left():
    rng = np.random.default_rng(0)
    target, noise = rng.normal(size=(2, 1000)).astype(np.float32)
    noisy = target + noise / 2
    expected = 1 - np.var(target - noisy) / np.var(target)
    np.testing.assert_allclose(quotient(explained(target, noisy)), expected, rtol=1e-4)
    # A constant offset explains as much: the variance of the error counts, not its size.
    np.testing.assert_allclose(quotient(explained(target, noisy + 3)), expected, rtol=1e-3)
    assert quotient(explained(target, target)) == 1
    assert abs(quotient(explained(target, 0 * target))) < 1e-6
    assert quotient(explained(target, -target)) < -2


def test_explained_variance_of_a_constant_target_is_unknown():
    constant = explained(np.ones(1000, np.float32), np.arange(1000, dtype=np.float32))
    assert constant == (0, 0)


def test_explained_variance_survives_a_mean_far_from_zero():
    """A mean of squares would cancel: 1e4 squared leaves no digit for a variance of 1."""
    rng = np.random.default_rng(0)
    target, noise = rng.normal(size=(2, 10_000))
    target += 1e4
    value = target + noise / 10
    expected = 1 - np.var(target - value) / np.var(target)
    got = quotient(explained(target.astype(np.float32), value.astype(np.float32)))
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_explained_variance_is_that_of_the_rows_that_the_mask_keeps():
    rng = np.random.default_rng(0)
    target, value = rng.normal(size=(2, 8, 9)).astype(np.float32)
    mask = rng.random((8, 9)) < 0.6
    expected = 1 - np.var((target - value)[mask]) / np.var(target[mask])
    dirty = np.where(mask, target, 1e6).astype(np.float32)
    np.testing.assert_allclose(quotient(explained(dirty, value, mask)), expected, rtol=1e-4)
    assert explained(dirty, value, mask & False) == (0, 0)


def test_explained_variance_over_devices_is_that_of_all_rows():
    rng = np.random.default_rng(0)
    target, value = rng.normal(size=(2, 4, 8)).astype(np.float32)
    target += np.arange(4, dtype=np.float32)[:, None]  # of another mean on each device
    mask = rng.random((4, 8)) < 0.6
    split = jax.vmap(partial(returns.explained_variance, axis="data"), axis_name="data")
    whole = explained(target.ravel(), value.ravel(), mask.ravel())
    for mine, all_rows in zip(jit(split)(value, target, mask), whole, strict=True):
        np.testing.assert_allclose(mine, [all_rows] * 4, rtol=1e-4)


def test_an_n_step_return_stops_at_the_first_end_and_a_truncated_one_is_followed():
    reward = np.float32([[1] * 5, [2] * 5, [4] * 5])
    terminated, truncated = np.zeros((2, 3, 5), bool)
    terminated[1, 1] = truncated[0, 2] = truncated[2, 3] = True
    terminated[2, 4] = truncated[1, 4] = True  # the clock is first, what follows is another episode
    total, discount, last = n_step_return(reward, terminated, truncated, 0.5)
    np.testing.assert_array_equal(total, [3, 2, 1, 3, 2])
    np.testing.assert_array_equal(discount, [0.125, 0, 0.5, 0.125, 0.25])
    np.testing.assert_array_equal(last, [2, 1, 0, 2, 1])


def test_the_lambda_return_of_1_is_the_n_step_return_of_all_steps():
    reward, _, following, terminated, truncated = random_steps(3)
    whole = lambda_return(reward, following, terminated, truncated, 0.9, 1.0)[0]
    total, discount, last = n_step_return(reward, terminated, truncated, 0.9)
    np.testing.assert_allclose(total + discount * following[last, np.arange(B)], whole, rtol=1e-5)

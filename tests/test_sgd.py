"""Shuffles: each row once per epoch, in orders that differ, the same on any number of devices."""

from math import gcd

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import jit
from scipy import stats

from jaxrl import sgd

permutations = jit(sgd.permutations, static_argnums=(1, 2))
shuffled_rows = jit(sgd.shuffled_rows, static_argnums=(2, 3, 4))


def rows(seed=0, num_envs=8, num_steps=6, num_epochs=3, num_minibatches=4, first=0):
    """The blocks of `shuffled_rows` for the environments first .. first + num_envs - 1."""
    index = np.arange(first, first + num_envs, dtype=np.int32)
    key = jax.random.key(seed)
    return np.asarray(shuffled_rows(key, index, num_steps, num_epochs, num_minibatches))


@pytest.mark.parametrize("n", [2, 8, 128, 1024, 1, 3, 5, 7, 100, 1000])
def test_every_epochs_order_is_a_permutation(n):
    order = np.asarray(permutations(jax.random.key(n), n, 5))
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order, 1), np.tile(np.arange(n), (5, 1)))


@pytest.mark.parametrize("n", [100, 128])
def test_orders_differ_between_epochs_and_keys_and_from_the_identity(n):
    order = np.concatenate([permutations(jax.random.key(seed), n, 4) for seed in range(4)])
    order = np.concatenate([order, np.arange(n)[None]])
    assert len(np.unique(order, axis=0)) == 17
    # Random orders agree in one place on average: two that agree in many are not independent.
    agree = (order[:, None] == order[None]).sum(-1)[~np.eye(17, dtype=bool)]
    assert agree.max() < 8 and 0.5 < agree.mean() < 2


@pytest.fixture(scope="module", params=[8, 12])
def many_orders(request):
    """[keys, 2 epochs, n]"""
    keys = jax.random.split(jax.random.key(7), 3000)
    return np.asarray(jit(jax.vmap(lambda k: sgd.permutations(k, request.param, 2)))(keys))


def test_every_element_is_equally_often_at_every_place(many_orders):
    first = many_orders[:, 0]
    n = first.shape[1]
    count = np.stack([np.bincount(first[:, place], minlength=n) for place in range(n)])
    assert all(stats.chisquare(row).pvalue > 1e-6 for row in (*count, *count.T))


def test_pairs_are_neighbours_and_share_a_half_as_often_as_in_random_orders(many_orders):
    place = np.argsort(many_orders[:, 0], axis=1)
    n = place.shape[1]
    near = np.abs(place[:, :, None] - place[:, None]) == 1
    half = place < n // 2
    together = half[:, :, None] == half[:, None]
    pairs = ~np.eye(n, dtype=bool)
    np.testing.assert_allclose(near.mean(0)[pairs], 2 / n, atol=0.25 * 2 / n)
    np.testing.assert_allclose(together.mean(0)[pairs], (n / 2 - 1) / (n - 1), atol=0.05)


def test_the_order_of_one_epoch_says_nothing_about_the_next(many_orders):
    first, second = many_orders[:, 0], many_orders[:, 1]
    n = first.shape[1]
    joint = np.zeros((n, n))
    np.add.at(joint, (first[:, 0], second[:, 0]), 1)
    assert stats.chi2_contingency(joint).pvalue > 1e-6
    np.testing.assert_allclose((first == second).mean(0), 1 / n, atol=0.03)


def test_block_size_is_the_fewest_environments_whose_rows_split_evenly():
    assert sgd.block_size(5, 8) == 8  # coprime: 40 rows, 5 to each of 8 minibatches
    assert sgd.block_size(6, 4) == 2
    assert sgd.block_size(128, 4) == 1
    assert sgd.block_size(4, 128) == 32
    for num_steps in range(1, 13):
        for num_minibatches in range(1, 13):
            size = sgd.block_size(num_steps, num_minibatches)
            assert size * num_steps % num_minibatches == 0
            assert not any(k * num_steps % num_minibatches == 0 for k in range(1, size))
            assert size * gcd(num_steps, num_minibatches) == num_minibatches


@pytest.mark.parametrize(
    ("num_envs", "num_steps", "num_minibatches"), [(8, 6, 4), (8, 5, 8), (3, 8, 2), (4, 4, 1)]
)
def test_every_row_is_in_one_minibatch_of_each_epoch(num_envs, num_steps, num_minibatches):
    order = rows(0, num_envs, num_steps, 3, num_minibatches)
    count = num_envs * num_steps
    assert order.shape == (3, num_minibatches, count // num_minibatches)
    np.testing.assert_array_equal(np.sort(order.reshape(3, -1)), np.tile(np.arange(count), (3, 1)))


def test_every_minibatch_takes_as_many_rows_from_each_block_of_environments():
    order = rows()  # 8 environments in blocks of 2, 6 steps: 3 rows of each block
    block = order % 8 // 2
    for minibatch in block.reshape(-1, 12):
        np.testing.assert_array_equal(np.bincount(minibatch), [3, 3, 3, 3])


def test_rows_are_dealt_anew_in_each_epoch_and_iteration_and_for_each_block():
    order = np.sort(np.stack([rows(seed, num_steps=16) for seed in range(3)]))
    dealt = order.reshape(9, 4, -1)  # (iteration, epoch), minibatch, rows regardless of order
    assert len(np.unique(dealt, axis=0)) == 9
    for a, b in ((0, 1), (1, 2), (0, 3)):
        kept = [len(np.intersect1d(x, y)) for x, y in zip(dealt[a], dealt[b], strict=True)]
        assert max(kept) < 20  # of 32; 8 on average
    in_time_order = np.arange(128).reshape(4, 32)
    assert not any(np.array_equal(x, in_time_order) for x in dealt)
    steps = [dealt[0][0][dealt[0][0] % 8 == b] // 8 for b in range(8)]
    assert len({tuple(x) for x in steps}) == 8


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_minibatches_hold_the_same_rows_however_environments_are_split(num_shards):
    whole, local = rows(), 8 // num_shards
    parts = []
    for shard in range(num_shards):
        part = rows(num_envs=local, first=shard * local)
        t, b = part // local, part % local
        parts.append(t * 8 + shard * local + b)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts, -1)), np.sort(whole))


def test_take_rows_takes_those_rows_of_every_leaf():
    tree = {"a": np.arange(12.0).reshape(6, 2), "b": np.arange(6) * 10, "c": None}
    got = jit(sgd.take_rows)(tree, np.array([4, 0, 3], np.int32))
    np.testing.assert_array_equal(got["a"], [[8, 9], [0, 1], [6, 7]])
    np.testing.assert_array_equal(got["b"], [40, 0, 30])


def test_epochs_run_the_blocks_in_their_order_each_with_its_own_extra():
    order = np.array([[[3, 1], [0, 2]], [[2, 3], [1, 0]]], np.int32)  # 2 epochs, 2 minibatches
    extra = np.float32([1, 10, 100, 1000])

    def step(total, inputs):
        block, extra = inputs
        return total * 2 + extra, (block, extra, total)

    run = jit(lambda data: sgd.epochs(step, jnp.zeros(()), data, order, extra))
    total, (block, used, before) = run(np.float32([0, 5, 10, 15]))
    np.testing.assert_array_equal(block, order.reshape(4, 2) * 5)
    np.testing.assert_array_equal(used, extra)
    np.testing.assert_array_equal(before, [0, 1, 12, 124])
    assert total == 1248


def test_a_linear_schedule_is_what_is_left_of_the_run_and_a_constant_one_is_1():
    linear = [float(sgd.schedule("linear", jnp.int32(i), 4)) for i in range(6)]
    assert linear == [1, 0.75, 0.5, 0.25, 0, 0]
    assert [float(sgd.schedule("constant", jnp.int32(i), 4)) for i in (0, 3, 9)] == [1, 1, 1]


def test_a_step_goes_against_the_direction_by_the_rate():
    params, grads = {"w": jnp.float32([1, 2])}, {"w": jnp.float32([10, -20])}
    moved, _ = sgd.descend(optax.identity(), grads, optax.EmptyState(), params, 0.1)
    np.testing.assert_allclose(moved["w"], [0, 4])

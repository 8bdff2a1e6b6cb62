"""Priorities of a replay's rows: what is drawn how often, from which blocks, with which weight."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from quick import jit

from jaxrl import priorities, replay
from jaxrl.mesh import DATA, SEED, make_mesh


def ranked(capacity=5, num_envs=8, seed=0):
    """(priorities with random weights, a third of them 0; the weights [B, C])."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.1, 2.0, (num_envs, capacity)) * (rng.random((num_envs, capacity)) > 0.3)
    weight[0] = 0.0
    env, place = np.meshgrid(np.arange(num_envs), np.arange(capacity), indexing="ij")
    put = jit(priorities.place)
    return put(priorities.empty(num_envs, capacity), (env, place), np.float32(weight)), weight


@pytest.mark.parametrize("batch_size", [2, 4, 16])
def test_rows_are_drawn_as_often_as_their_share_of_the_block_and_never_where_it_is_0(batch_size):
    ranks, weight = ranked()
    weight[0, 0] = 1.0
    ranks = priorities.place(ranks, (jnp.zeros(1, int), jnp.zeros(1, int)), jnp.ones(1))
    keys = jax.random.split(jax.random.key(0), 4096)
    draw = jax.vmap(lambda key: priorities.draw(ranks, key, batch_size, None))
    (env, place), share = jit(draw)(keys)
    blocks = min(batch_size, 8)
    block = np.arange(8) * blocks // 8
    sums = np.array([weight[block == i].sum() for i in range(blocks)])
    expected = weight / sums[block][:, None]
    np.testing.assert_allclose(share, expected[env, place], rtol=1e-5)
    row = np.arange(batch_size) // (batch_size // blocks)
    np.testing.assert_array_equal(block[env], np.broadcast_to(row, env.shape))
    found = np.bincount(np.asarray(env * 5 + place).ravel(), minlength=40).reshape(8, 5)
    rows = 4096 * batch_size / blocks
    assert not np.any(found[weight == 0])
    assert np.max(np.abs(found - rows * expected)) < 5 * np.sqrt(rows / 4)


def test_sums_follow_the_weights_and_the_largest_is_kept():
    ranks, weight = ranked(capacity=7)
    assert ranks.weight.shape == (8, 3, 3)
    np.testing.assert_allclose(ranks.weight.reshape(8, -1)[:, :7], weight, rtol=1e-6)
    np.testing.assert_allclose(ranks.total, ranks.weight.sum(-1), rtol=1e-6)
    np.testing.assert_allclose(ranks.largest, np.maximum(weight.max(1), 1), rtol=1e-6)


def test_new_steps_get_the_largest_weight_once_enough_others_came_after_them():
    buffer, ranks = replay.empty(jnp.zeros(()), 2, 5), priorities.empty(2, 5)
    ranks = ranks.replace(largest=jnp.float32([1.0, 3.0]))
    found = []
    for _ in range(4):
        buffer = replay.add(buffer, jnp.zeros((2, 2)))
        ranks = priorities.added(ranks, buffer, 2, num_following=3)
        found.append(ranks.weight.reshape(2, -1)[:, :5] > 0)
    kept = np.array([[0] * 5, [1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [1, 0, 0, 1, 1]], bool)
    np.testing.assert_array_equal(np.stack(found)[:, 0], kept)  # 8 steps: places 3 4 0 1 2
    np.testing.assert_array_equal(found[3][1], kept[3])
    np.testing.assert_allclose(np.unique(ranks.weight[1]), [0, 3])
    np.testing.assert_allclose(ranks.total, ranks.weight.sum(-1))


def test_importance_is_the_inverse_share_to_the_power_beta_over_the_largest():
    share = np.float32([0.5, 0.25, 0.125])
    np.testing.assert_allclose(priorities.importance(share, 1.0, None), [0.25, 0.5, 1.0])
    np.testing.assert_allclose(priorities.importance(share, 0.5, None), [0.5, 0.5**0.5, 1.0])
    np.testing.assert_allclose(priorities.importance(share, 0.0, None), [1.0, 1.0, 1.0])


@pytest.mark.parametrize("batch_size", [8, 16])
def test_one_and_eight_devices_draw_the_same_rows_with_the_same_weights(batch_size):
    mesh = make_mesh(1, jax.devices()[:8])
    ranks, _ = ranked(seed=1)
    ranks = priorities.place(ranks, (jnp.zeros(1, int), jnp.zeros(1, int)), jnp.ones(1))

    def run(ranks, key, axis):
        (_, place), share = priorities.draw(ranks, key, batch_size, axis)
        return place, priorities.importance(share, 0.5, axis)

    split, member = P(SEED, DATA), partial(jax.tree.map, lambda x: x[None])
    on_mesh = jax.shard_map(
        jax.vmap(partial(run, axis=DATA), in_axes=(0, None)),
        mesh=mesh,
        in_specs=(split, P()),
        out_specs=split,
        check_vma=False,
    )
    key = jax.random.key(3)
    place, weight = jit(partial(run, axis=None))(ranks, key)
    places, weights = jit(on_mesh)(member(ranks), key)
    np.testing.assert_array_equal(places[0], place)
    np.testing.assert_allclose(weights[0], weight, rtol=1e-5)

"""The replay: a ring of each environment's steps, drawn alike on any number of devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from quick import jit

from jaxrl import replay
from jaxrl.mesh import DATA, SEED, make_mesh
from jaxrl.replay import Replay

LAYOUT = Replay(P(SEED, DATA), P(SEED))  # pyright: ignore


def steps(start, stop, num_envs=8):
    """Rows [T, B, ...] that say where they come from: 100 * step + environment, and its byte."""
    number = 100 * np.arange(start, stop)[:, None] + np.arange(num_envs)
    return {"number": np.int32(number), "byte": np.uint8(number % 256)[..., None]}


def filled(*spans, num_envs=8, capacity=5):
    example = jax.tree.map(lambda x: x[0, 0], steps(0, 1))
    buffer = replay.empty(example, num_envs, capacity)
    for span in spans:
        buffer = jit(replay.add)(buffer, steps(*span, num_envs))
    return buffer


def test_the_oldest_steps_of_each_environment_are_overwritten():
    buffer = filled((0, 2), (2, 3), (3, 6), (6, 7))
    kept = 100 * np.array([5, 6, 2, 3, 4]) + np.arange(8)[:, None]
    np.testing.assert_array_equal(buffer.rows["number"], kept)
    np.testing.assert_array_equal(buffer.rows["byte"][..., 0], np.uint8(kept % 256))
    assert (int(buffer.filled), int(filled((0, 2)).filled)) == (5, 2)


def test_the_count_stays_small_and_the_ring_goes_on_however_much_is_written():
    spans = [(i, i + 3) for i in range(0, 60, 3)]
    buffer = filled(*spans)
    assert 5 <= int(buffer.count) < 10 and int(buffer.count) % 5 == 60 % 5
    assert set(np.asarray(buffer.rows["number"][0]) // 100) == set(range(55, 60))


@pytest.mark.parametrize("batch_size", [2, 4, 8, 24])
def test_a_row_comes_from_its_block_and_every_step_that_is_kept_is_drawn_alike(batch_size):
    buffer, key = filled((0, 3), (3, 6), (6, 8)), jax.random.key(0)
    keys = jax.random.split(key, 4096)
    draw = jax.vmap(lambda key: replay.sample(buffer, key, batch_size, None))
    rows, (env, place) = jit(draw)(keys)
    assert rows["byte"].dtype == np.uint8
    np.testing.assert_array_equal(rows["number"], np.asarray(buffer.rows["number"])[env, place])
    np.testing.assert_array_equal(rows["number"] % 256, rows["byte"][..., 0])
    row = np.arange(batch_size)
    block = row // (batch_size // 8) if batch_size > 8 else row
    np.testing.assert_array_equal(env * min(batch_size, 8) // 8, block + 0 * env)
    counts = np.bincount(np.asarray(env * 5 + place).ravel(), minlength=40)
    expected = 4096 * batch_size / 40
    assert np.max(np.abs(counts - expected)) < 5 * np.sqrt(expected)


def test_what_was_not_written_is_not_drawn():
    keys = jax.random.split(jax.random.key(0), 100)
    buffer = filled((1, 3))
    rows, _ = jit(jax.vmap(lambda key: replay.sample(buffer, key, 8, None)))(keys)
    assert set(np.unique(rows["number"] // 100)) == {1, 2}


def test_drawn_steps_are_followed_by_as_many_as_asked_for():
    buffer = filled((0, 3), (3, 6), (6, 8))  # 3 .. 7 are kept
    keys = jax.random.split(jax.random.key(0), 400)
    env, place = jit(jax.vmap(lambda key: replay.draw(buffer, key, 8, None, num_steps=3)))(keys)
    assert set(np.unique(buffer.rows["number"][env, place] // 100)) == {3, 4, 5}


def test_members_of_one_program_write_rows_of_their_own_at_one_place():
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), filled((0, 4)))
    rows = jax.tree.map(lambda x: np.stack([x, x + 1]), steps(4, 5))
    both = jit(jax.vmap(replay.add))(stacked, rows)
    assert both.count.shape == (2,) and [int(x) for x in both.count] == [5, 5]
    np.testing.assert_array_equal(
        both.rows["number"][1] - both.rows["number"][0], [[0] * 4 + [1]] * 8
    )


@pytest.mark.parametrize("batch_size", [8, 24])
def test_one_and_eight_devices_draw_the_same_rows(batch_size):
    mesh = make_mesh(1, jax.devices()[:8])
    assert mesh.shape[DATA] == 8

    def run(buffer, rows, key, axis):
        buffer = replay.add(buffer, rows)
        return buffer, replay.sample(buffer, key, batch_size, axis)[0]

    buffer, rows, key = filled((0, 3), (3, 6)), steps(6, 8), jax.random.key(3)
    alone = jit(partial(run, axis=None))(buffer, rows, key)
    member = lambda tree: jax.tree.map(lambda x: x[None], tree)  # noqa: E731
    split = jax.shard_map(
        jax.vmap(partial(run, axis=DATA), in_axes=(0, 0, None)),
        mesh=mesh,
        in_specs=(LAYOUT, P(SEED, None, DATA), P()),
        out_specs=(LAYOUT, P(SEED, DATA)),
        check_vma=False,
    )
    together = jit(split)(member(buffer), member(rows), key)
    jax.tree.map(np.testing.assert_array_equal, together, member(alone))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((8, 64, 32, 0, 1), "buffer_size=32 cannot hold a batch of batch_size=64; try 64"),
        ((8, 8, 100, 200, 1), "buffer_size=100 cannot hold learning_starts=200; try 200"),
        ((8, 8, 100, 0, 16), "buffer_size=100 cannot hold 16 steps of num_envs=8; try 128"),
        ((8, 12, 100, 0, 1), "batch_size=12 must be a multiple of num_envs=8, or .*; try 8"),
        ((8, 3, 100, 0, 1), "batch_size=3 must be a multiple of num_envs=8, or .*; try 8"),
        ((8, 0, 100, 0, 1), "batch_size=0 must be at least 1"),
        ((8, 8, 100, -1, 1), "learning_starts=-1 must lie in"),
    ],
)
def test_a_replay_that_cannot_hold_a_batch_or_the_warm_up_is_refused(sizes, words):
    with pytest.raises(ValueError, match=words) as caught:
        replay.check(*sizes)
    assert "\n" not in str(caught.value)

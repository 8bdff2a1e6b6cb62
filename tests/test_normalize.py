"""Running statistics against NumPy's over everything seen, on one device and on several."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from quick import jit

from jaxrl import normalize
from jaxrl.normalize import RunningStats
from jaxrl.spaces import Box, Discrete

jax.config.update("jax_num_cpu_devices", 8)  # as in conftest.py, for this file by itself

update = jit(lambda stats, batch: stats.update(batch))
SHAPES = [(5, 4, 3), (1, 4, 3), (40, 3)]  # of batches; the entries are the last axis, 3


def batches(mean=0.0, std=1.0):
    rng = np.random.default_rng(0)
    # Batches that differ in their means too: merging variances alone would not do.
    return [
        rng.normal(mean + i * std, std * np.array([1.0, 2.0, 0.1]), shape).astype(np.float32)
        for i, shape in enumerate(SHAPES)
    ]


def after(batches, stats=None):
    stats = RunningStats.init((3,)) if stats is None else stats
    for batch in batches:
        stats = update(stats, batch)
    return stats


def seen(batches):
    """Everything seen so far as float64 rows."""
    return np.concatenate([b.reshape(-1, 3) for b in batches]).astype(np.float64)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_statistics_are_those_of_all_batches_together(count):
    parts = batches()[:count]
    stats, rows = after(parts), seen(parts)
    np.testing.assert_allclose(stats.mean, rows.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats.var, rows.var(0), rtol=1e-4)
    assert stats.count == len(rows)


def test_the_prior_is_gone_after_the_first_update():
    # Against a prior of mean 0 and variance 1 that weighs anything, this would show.
    stats = after([np.full((2, 3), 1e6, np.float32)])
    np.testing.assert_array_equal(stats.mean, [1e6] * 3)
    np.testing.assert_array_equal(stats.var, [0] * 3)


def test_a_large_mean_does_not_cancel_the_variance_away():
    # Squares are 1e8, of which float32 keeps steps of 8. The first batch is about mean 0.
    parts = [*batches(1e4), *batches(1e4)]
    np.testing.assert_allclose(after(parts).var, seen(parts).var(0), rtol=0.02)


def test_the_dtype_of_what_is_seen_does_not_matter():
    small = np.arange(250, 256, dtype=np.uint8).reshape(2, 3)  # sums overflow uint8
    stats = after([small])
    np.testing.assert_allclose(stats.mean, small.astype(float).mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats.var, small.astype(float).var(0), rtol=1e-5)


def test_nothing_changes_before_the_first_update():
    x = np.float32([[-3.0, 0.0, 3.0]])
    np.testing.assert_allclose(normalize.normalize(RunningStats.init((3,)), x), x)
    np.testing.assert_allclose(normalize.scale(RunningStats.init((3,)), x), x)


def test_normalised_numbers_have_mean_0_and_std_1_and_stay_within_10():
    rows = seen(batches(5.0, 3.0)).astype(np.float32)
    stats = after([rows])
    got = np.asarray(jit(normalize.normalize)(stats, rows))
    np.testing.assert_allclose(got.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(got.std(0), 1, rtol=1e-4)
    far = normalize.normalize(stats, np.float32([1e6, -1e6, 0]))
    np.testing.assert_array_equal(far[:2], [10, -10])


def test_scaled_numbers_keep_their_sign_and_zero():
    stats = RunningStats(mean=np.float32(100), var=np.float32(4), count=np.float32(9))
    got = normalize.scale(stats, np.float32([-1.0, 0.0, 3.0, 1e6]))
    np.testing.assert_allclose(got, [-0.5, 0.0, 1.5, 10.0], rtol=1e-6)


def test_every_box_of_an_observation_has_statistics_of_its_own_and_choices_stay_choices():
    space = {"near": Box(-1.0, 1.0, (2,)), "far": Box(-1e3, 1e3, ()), "kind": Discrete(3)}
    stats = RunningStats.init_for(space)
    rng = np.random.default_rng(0)
    obs = {
        "near": rng.normal(1, 0.1, (4, 5, 2)).astype(np.float32),
        "far": rng.normal(-100, 30, (4, 5)).astype(np.float32),
        "kind": rng.integers(0, 3, (4, 5)).astype(np.int32),
    }
    stats = jit(normalize.update_obs_stats)(stats, obs)
    for name in ("near", "far"):
        np.testing.assert_allclose(stats[name].mean, obs[name].mean((0, 1)), rtol=1e-5)
        np.testing.assert_allclose(stats[name].var, obs[name].var((0, 1)), rtol=1e-4)
        assert stats[name].count == 20
    got = jit(normalize.normalize_obs)(stats, obs)
    np.testing.assert_allclose(got["far"].std(), 1, rtol=1e-4)
    np.testing.assert_array_equal(got["kind"], obs["kind"], strict=True)


SEEN = {
    "vector": Box(-1.0, 1.0, (2,)),
    "counts": Box(0, 9, (2, 2), np.uint8),
    "free image": Box(-np.inf, np.inf, (2, 2, 1)),
    "image": Box(0, 255, (2, 2, 1), np.uint8),
    "float image": Box(0.0, 255.0, (2, 2, 1)),
    "bits": Box(False, True, (2, 2, 1), np.bool_),
    "kind": Discrete(3),
    "legal": Box(False, True, (4,), np.bool_),
}
NUMBERS = ("vector", "counts", "free image")


def test_numbers_are_normalised_and_bits_choices_masks_and_images_with_bounds_are_not():
    stats = RunningStats.init_for(SEEN)
    assert {name for name, s in stats.items() if s is not None} == set(NUMBERS)
    assert stats["counts"].mean.shape == (2, 2)


def test_the_network_sees_normalised_numbers_without_bounds_and_the_rest_as_it_is():
    seen = normalize.normalized_space(SEEN)
    for name, space in SEEN.items():
        want = Box(-np.inf, np.inf, space.shape) if name in NUMBERS else space
        assert seen[name] == want, name
    again = jax.tree.map(np.shape, RunningStats.init_for(seen))
    assert again == jax.tree.map(np.shape, RunningStats.init_for(SEEN))


def test_without_statistics_observations_stay_as_they_are():
    obs = {"a": np.ones(3), "b": np.zeros(2)}
    assert normalize.normalize_obs(None, obs) is obs
    assert RunningStats.init_for(Discrete(3)) is None  # nothing to normalise in a choice
    assert normalize.update_obs_stats(None, obs) is None


def test_statistics_split_over_four_devices_are_those_of_the_whole_batch_on_each():
    first, second = batches()[0][:4], batches()[2]

    def shard(first, second):
        stats = RunningStats.init((3,)).update(first, "data").update(second, "data")
        return jax.tree.map(lambda x: x[None], stats)

    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    on_mesh = jax.shard_map(shard, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    got, whole = jit(on_mesh)(first, second), after([first, second])
    assert np.ptp(first.reshape(4, -1).mean(1)) > 0.1  # what a shard sees is not the whole
    for name in ("mean", "var", "count"):
        expected = np.broadcast_to(getattr(whole, name), getattr(got, name).shape)
        np.testing.assert_allclose(getattr(got, name), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.var, seen([first, second]).var(0), rtol=1e-4)

"""Spaces: samples, membership, bounds and their description in JSON."""

import json

import jax
import numpy as np
import pytest

from jaxrl import spaces
from jaxrl.spaces import Box, Discrete, MultiDiscrete

SPACES = {
    "discrete": Discrete(5),
    "multi": MultiDiscrete((2, 3, 1)),
    "box": Box(np.array([-1.0, 0.0]), np.array([1.0, 0.5]), (2,)),
    "unbounded": Box(-np.inf, np.inf, (3, 2)),
    "half": Box(0.0, np.inf, (3,)),
    "image": Box(0, 255, (4, 4), np.uint8),
    "ints": Box(-3, 3, (2,), np.int32),
    "words": Box(0, 2**32 - 1, (8,), np.uint32),
    "bits": Box(False, True, (6,), np.bool_),
    "scalar": Box(-1.0, 1.0, ()),
    "tree": {"a": Discrete(3), "b": (Box(-1.0, 1.0, (2,)), Box(-1.0, 1.0, (2,)))},
}


@pytest.fixture(scope="module")
def drawn():
    """256 samples of every space, drawn by one program."""
    keys = jax.random.split(jax.random.key(0), 256)
    return jax.jit(jax.vmap(lambda key: spaces.sample(SPACES, key)))(keys)


@pytest.mark.parametrize("name", SPACES)
def test_a_sample_lies_in_its_space_with_its_shape_and_dtype(name, drawn):
    space, value = SPACES[name], drawn[name]
    assert np.all(jax.vmap(lambda v: spaces.contains(space, v))(value))
    leaves = jax.tree.leaves(space, is_leaf=spaces.is_space)
    for leaf, x in zip(leaves, jax.tree.leaves(value), strict=True):
        assert (x.shape[1:], x.dtype) == (leaf.shape, leaf.dtype)


@pytest.mark.parametrize("name", ["discrete", "multi", "ints", "bits"])
def test_samples_of_a_finite_space_reach_both_bounds(name, drawn):
    space, value = SPACES[name], drawn[name]
    np.testing.assert_array_equal(value.min(0), space.low)
    np.testing.assert_array_equal(value.max(0), space.high)


@pytest.mark.parametrize("name", ["words", "image"])
def test_samples_of_all_the_integers_of_a_dtype_fill_it_evenly(name, drawn):
    space, value = SPACES[name], np.asarray(drawn[name], np.float64)
    assert 0.45 < np.mean(value) / np.max(space.high) < 0.55


def test_leaves_of_a_tree_of_spaces_are_drawn_independently(drawn):
    one, other = drawn["tree"]["b"]
    assert not np.any(one == other)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("discrete", 5),
        ("discrete", -1),
        ("discrete", 1.0),
        ("discrete", [1]),
        ("multi", [1, 3, 0]),
        ("multi", [1, 1]),
        ("box", [0.0, 0.6]),
        ("box", [np.nan, 0.1]),
        ("box", [0.0]),
        ("ints", [0.5, 0.0]),
        ("tree", {"a": 1}),
        ("tree", {"a": 3, "b": (np.zeros(2, np.float32), np.zeros(2, np.float32))}),
    ],
)
def test_a_value_outside_is_not_contained(name, value):
    if not isinstance(value, dict):
        value = np.asarray(value, np.int32 if np.asarray(value).dtype == int else np.float32)
    assert not spaces.contains(SPACES[name], value)


def test_the_bounds_of_a_box_belong_to_it():
    box = SPACES["box"]
    assert box.contains(box.low) and box.contains(box.high)


def test_only_a_box_with_finite_bounds_is_bounded():
    assert SPACES["box"].bounded and not SPACES["half"].bounded and not SPACES["unbounded"].bounded


@pytest.mark.parametrize("name", SPACES)
def test_a_space_survives_its_description_in_json(name):
    space = SPACES[name]
    assert spaces.from_json(json.loads(json.dumps(spaces.to_json(space)))) == space


def test_boxes_are_equal_and_hash_alike_exactly_if_bounds_shape_and_dtype_are():
    a, b, c = (Box(-1.0, high, (2,)) for high in (1.0, np.ones(2), 2.0))
    assert a == b and hash(a) == hash(b) and a != c
    assert Box(0, 1, (2,), np.int32) != Box(0, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Discrete(0), r"n=0 must be at least 1; try 2\."),
        (lambda: MultiDiscrete((2, 0)), r"nvec=\(2, 0\) must be sizes >= 1; try \(2, 3\)\."),
        (lambda: MultiDiscrete(()), r"nvec=\(\) must be"),
        (lambda: Box(1.0, 0.0, (2,)), r"low=1.0 must not exceed high=0.0"),
        (lambda: spaces.to_json(3), r"3 is not a space; use Discrete"),
    ],
)
def test_a_description_that_is_no_space_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

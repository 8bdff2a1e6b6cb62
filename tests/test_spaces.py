"""Spaces: samples, membership, bounds and their description in JSON."""

import json
from collections import OrderedDict, namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

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
    "mixed": Box(
        np.array([-2.0, -np.inf, 0.0, -np.inf]), np.array([3.0, -5.0, np.inf, np.inf]), (4,)
    ),
    "huge": Box(-3e38, 3e38, (2,)),
    "far": Box(np.array([3.4e38, -np.inf]), np.array([np.inf, -3.4e38]), (2,)),
    "halves": Box(0.0, 6e4, (2,), np.float16),
    "brain": Box(-1.0, np.inf, (2,), jnp.bfloat16),
    "long": Box(-1e300, np.inf, (2,), np.float64),
    "tree": {"a": Discrete(3), "b": (Box(-1.0, 1.0, (2,)), Box(-1.0, 1.0, (2,)))},
}


Pair = namedtuple("Pair", ["left", "right"])


@pytest.fixture(scope="module")
def drawn():
    """256 samples of every space, drawn by one program."""
    keys = jax.random.split(jax.random.key(0), 256)
    return jax.jit(jax.vmap(lambda key: spaces.sample(SPACES, key)))(keys)


@pytest.mark.parametrize("name", SPACES)
def test_a_sample_lies_in_its_space_with_its_shape_and_dtype(name, drawn):
    space, value = SPACES[name], drawn[name]
    assert np.all(jit(jax.vmap(lambda v: spaces.contains(space, v)))(value))
    floats = [x for x in jax.tree.leaves(value) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(np.all(np.isfinite(np.asarray(x, np.float64))) for x in floats)
    leaves = jax.tree.leaves(space, is_leaf=spaces.is_space)
    for leaf, x in zip(leaves, jax.tree.leaves(value), strict=True):
        assert (x.shape[1:], x.dtype) == (leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))


@pytest.mark.parametrize("name", ["discrete", "multi", "ints", "bits"])
def test_samples_of_a_finite_space_reach_both_bounds(name, drawn):
    space, value = SPACES[name], drawn[name]
    np.testing.assert_array_equal(value.min(0), space.low)
    np.testing.assert_array_equal(value.max(0), space.high)


def test_samples_fill_what_lies_between_finite_bounds_and_spread_from_a_single_one(drawn):
    value = np.asarray(drawn["mixed"])
    np.testing.assert_allclose(value.mean(0), [0.5, -6.0, 1.0, 0.0], atol=0.25)
    np.testing.assert_allclose(value.std(0), [5 / 12**0.5, 1.0, 1.0, 1.0], atol=0.25)
    assert np.min(drawn["huge"]) < -1e38 and np.max(drawn["huge"]) > 1e38


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


TREES = {
    "numpy n": Discrete(np.prod((3, 1))),
    "numpy nvec": MultiDiscrete(np.array([2, 3])),
    "numpy shape": Box(0, 1, tuple(np.array([2, 3]))),
    "integers beyond float64": Box(0, 2**53 + 1, (1,), np.int64),
    "none": Box(0.0, 1.0, (0,)),
    "int names": {0: Discrete(2), 1: Discrete(3)},
    "ordered": OrderedDict([("b", Discrete(2)), ("a", Discrete(3))]),
    "list": [Discrete(2), (Discrete(3),)],
}


@pytest.mark.parametrize("name", [*SPACES, *TREES])
def test_a_space_survives_its_description_in_json(name):
    space = (SPACES | TREES)[name]
    read = spaces.from_json(json.loads(json.dumps(spaces.to_json(space))))
    assert read == space and type(read) is type(space)
    assert jax.tree.structure(read, is_leaf=spaces.is_space) == jax.tree.structure(
        space, is_leaf=spaces.is_space
    )


def test_a_space_is_written_on_one_line_however_large():
    noise = np.random.default_rng(0).uniform(1, 2, (84, 84, 3))
    assert str(Box(0, 255, (84, 84, 3), np.uint8)) == "Box(0, 255, (84, 84, 3), uint8)"
    assert len(str({"image": Box(-noise, noise, noise.shape)})) < 100


MASKED = {"legal": Box(False, True, (3,), np.bool_), "b": Discrete(2), "a": Discrete(4)}


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_the_mask_of_legal_actions_is_no_feature(kind):
    space = kind(MASKED)
    obs = kind({"legal": np.ones(3, bool), "b": 1, "a": 3})
    assert spaces.legal_space(space) == MASKED["legal"]
    parts = spaces.features_of(space, obs)
    assert {leaf.n: value for leaf, value in parts} == {2: 1, 4: 3}
    leaves = jax.tree.leaves(spaces.features_space(space), is_leaf=spaces.is_space)
    assert [leaf for leaf, _ in parts] == leaves
    assert spaces.features_space(MASKED["b"]) == MASKED["b"]


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
        (lambda: Discrete(2.0), r"n=\(2.0,\) must be integers"),
        (lambda: MultiDiscrete((2, 2.5)), r"nvec=\(2, 2.5\) must be integers"),
        (lambda: Box(0, 300, (2,), np.uint8), r"low=0, high=300 are no bounds of uint8"),
        (lambda: Box(-np.inf, 1, (2,), np.int32), r"low=-inf, high=1 are no bounds of int32"),
        (lambda: Box(np.inf, np.inf, (2,)), r"leave no number between"),
        (lambda: spaces.to_json(3), r"3 is not a space; use Discrete"),
        (lambda: spaces.to_json(Pair(Discrete(2), Discrete(2))), r"a named tuple as a dict"),
        (lambda: spaces.to_json({(0, 1): Discrete(2)}), r"neither str nor int; use strings"),
    ],
)
def test_a_description_that_is_no_space_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

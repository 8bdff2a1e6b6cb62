"""Options as a pytree: floats are leaves, the rest is structure, and only users are checked."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walk import Walk

from jaxrl import config
from jaxrl.algos import ppo
from jaxrl.program import Member, members, stack
from jaxrl.wrappers import TimeLimit


@config.pytree_dataclass
class Options:
    width: int = 4
    rate: float = 0.5
    clip: float | None = None
    kind: Literal["a", "b"] = "a"
    hidden: tuple[int, ...] = (8, 8)
    scale: bool = False

    def __post_init__(self):
        config.check_positive("width", self.width, 4)
        config.check_range("rate", self.rate, 0.0, 1.0, 0.5)
        config.check_positive("clip", self.clip, 0.2)


def paths(tree):
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def test_floats_are_leaves_and_everything_else_is_structure():
    assert paths(Options()) == [".rate"]
    assert paths(Options(clip=0.1)) == [".rate", ".clip"]
    structure = jax.tree.structure(Options())
    assert structure == jax.tree.structure(Options(rate=0.25))
    others = ({"width": 5}, {"kind": "b"}, {"hidden": (8,)}, {"scale": True}, {"clip": 0.1})
    assert all(jax.tree.structure(Options(**other)) != structure for other in others)


def test_a_tree_of_other_numbers_keeps_the_structure_and_the_fields_names():
    doubled = jax.tree.map(lambda x: 2 * x, Options(rate=0.5, clip=0.1, width=7))
    assert doubled == Options(rate=1.0, clip=0.2, width=7)
    assert dataclasses.asdict(doubled)["hidden"] == (8, 8)
    assert dataclasses.replace(doubled, width=3).width == 3


def test_the_checks_see_what_a_user_typed_and_nothing_that_is_traced():
    with pytest.raises(ValueError, match=r"rate=2.0 must lie in \[0.0, 1.0\]; try 0.5"):
        Options(rate=2.0)
    with pytest.raises(ValueError, match=r"clip=-1.0 must be a finite number above 0; try 0.2"):
        dataclasses.replace(Options(), clip=-1.0)
    beyond = jax.tree.map(lambda x: x + 9, Options())  # as a gradient or a shape would be
    assert beyond.rate == 9.5

    @jax.jit
    def run(cfg):
        return config.with_values(cfg, rate=2 * cfg.rate)

    assert run(Options()).rate == 1.0
    assert run(Options(rate=0.25)).rate == 0.5 and run._cache_size() == 1


def test_with_values_changes_fields_without_checks_and_only_those_that_there_are():
    changed = config.with_values(Options(), rate=jnp.float32(7), width=0)
    assert (changed.rate, changed.width, changed.kind) == (7, 0, "a")
    assert Options() == config.with_values(changed, rate=0.5, width=4)
    with pytest.raises(AssertionError, match="speed"):
        config.with_values(Options(), speed=1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1.0])
def test_no_check_of_a_number_lets_a_number_that_is_none_pass(value):
    for check in (
        lambda: config.check_positive("x", value, 1),
        lambda: config.check_range("x", value, 0.0, 1e9, 1),
        lambda: config.check_range("x", value, 0.0, float("inf"), 1),
    ):
        with pytest.raises(ValueError, match=f"x={value} must .*; try 1"):
            check()
    config.check_positive("x", None, 1)
    config.check_range("x", None, 0.0, 1.0, 1)


def test_the_leaves_of_ppos_options_are_its_numbers():
    names = {path.removeprefix(".") for path in paths(ppo.Config())}
    kinds = {f.name: f.type for f in dataclasses.fields(ppo.Config)}
    floats = {name for name, kind in kinds.items() if "float" in str(kind)}
    assert names == floats - {"target_kl", "value_clip"}
    assert len(paths(ppo.Config(target_kl=0.1, value_clip=0.1))) == len(floats) > 8


def test_members_are_stacked_leaf_by_leaf_in_32_bits():
    env = TimeLimit(Walk(), 5)
    one = members([3, 5], Options(), env)
    np.testing.assert_array_equal(one.seed, [3, 5])
    np.testing.assert_array_equal(one.cfg.rate, [0.5, 0.5])
    kinds = {str(x.dtype) for x in jax.tree.leaves(one)}
    assert kinds == {"uint32", "float32", "int32"} and one.cfg.width == 4
    other = Member(np.uint32(9), Options(rate=0.25), TimeLimit(Walk(stride=0.1), 7))
    several = stack([Member(np.uint32(3), Options(), env), other])
    np.testing.assert_allclose(several.cfg.rate, [0.5, 0.25])
    np.testing.assert_allclose(several.env.env.stride, [0.25, 0.1])
    np.testing.assert_array_equal(several.env.max_steps, [5, 7])
    np.testing.assert_array_equal(several.seed, [3, 9])


@pytest.mark.parametrize("other", [{"width": 5}, {"clip": 0.1}])
def test_members_that_differ_in_structure_are_refused(other):
    pair = [Member(np.uint32(0), Options(**fields), Walk()) for fields in ({}, other)]
    with pytest.raises(ValueError, match="differ in numbers alone"):
        stack(pair)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr_schedule": "cosine"}, "lr_schedule='cosine' is none of linear, constant; try linear"),
        ({"num_envs": 16.0}, "num_envs=16.0 must be an integer; try 16"),
        ({"num_epochs": True}, "num_epochs=True must be an integer; try 4"),
        ({"gamma": "0.9"}, "gamma=.0.9. must be a number; try 0.99"),
    ],
)
def test_a_choice_or_an_integer_that_is_none_is_refused_in_python_too(options, words):
    with pytest.raises(ValueError, match=words):
        ppo.Config(**options)


def test_traced_numbers_and_arrays_of_numbers_pass_the_checks_and_bad_arrays_do_not():
    replaced = jax.jit(lambda rate: dataclasses.replace(ppo.Config(), learning_rate=rate))
    assert replaced(0.5).learning_rate == 0.5
    assert ppo.Config(gamma=np.float32([0.9, 0.99])).gamma.shape == (2,)
    with pytest.raises(ValueError, match="gamma="):
        ppo.Config(gamma=np.float32([0.9, 1.5]))

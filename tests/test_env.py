"""The environment contract itself: fields, pytrees and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.env import Environment, Wrapper, per_env_keys, static, timestep


class Left(Environment):
    pace: float = 1.0
    size: int = static(3)


class Right(Environment):
    pace: float = 1.0
    size: int = static(3)


def test_fields_are_leaves_by_name_unless_they_are_static():
    paths = jax.tree_util.tree_leaves_with_path(Wrapper(Left(2.0, 5)))
    assert [(jax.tree_util.keystr(path), leaf) for path, leaf in paths] == [(".env.pace", 2.0)]


def test_an_environment_is_put_together_again_from_its_leaves():
    env = Wrapper(Left(2.0, 5))
    assert jax.tree.map(lambda x: x, env) == env
    assert jax.tree.map(lambda x: x + 1, env) == Wrapper(Left(3.0, 5))
    assert env.replace(env=Left()).env.replace(pace=4.0) == Left(4.0)


def test_classes_with_the_same_fields_are_different_trees():
    """Else one jit given both may run the program of the wrong one."""
    assert jax.tree.structure(Left()) == jax.tree.structure(Left(7.0))
    assert jax.tree.structure(Left()) != jax.tree.structure(Left(size=4))
    assert jax.tree.structure(Left()) != jax.tree.structure(Right())
    assert jax.tree.structure(Wrapper(Left())) != jax.tree.structure(Wrapper(Right()))


def test_a_field_cannot_be_assigned():
    with pytest.raises(AttributeError):
        Left().pace = 2.0


def test_vmap_runs_over_environments_with_other_numbers():
    envs = Left(jnp.arange(3.0))
    np.testing.assert_array_equal(jax.vmap(lambda env: env.pace * env.size)(envs), [0, 3, 6])


def test_the_default_timestep_is_that_of_a_reset():
    ts = timestep(jnp.ones(2))
    assert (ts.reward, ts.terminated, ts.truncated, ts.metrics) == (0, False, False, {})
    assert ts.final_obs is ts.obs and not ts.done
    dtypes = [x.aval.str_short() for x in (ts.reward, ts.terminated, ts.truncated)]
    assert dtypes == ["float32[]", "bool[]", "bool[]"]


def test_the_key_of_an_environment_depends_on_its_index_and_not_on_the_others():
    key = jax.random.key(0)
    few, many = (jax.random.key_data(per_env_keys(key, jnp.arange(n))) for n in (3, 8))
    np.testing.assert_array_equal(few, many[:3])
    assert len(np.unique(many[:, 0])) == 8

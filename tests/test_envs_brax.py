"""brax's environments behind our contract, against brax's own rollouts."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.bridges import brax as bridge
from jaxrl.wrappers import TimeLimit

FAST = {"backend": "spring"}  # the physics that compiles soonest
pytestmark = pytest.mark.filterwarnings("ignore:Accessing:DeprecationWarning")  # brax's own
QUICK = {"xla_backend_optimization_level": 0}


def avals(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def test_a_missing_brax_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    with pytest.raises(ImportError, match=r"brax/ant needs brax: pip install 'jaxrl\[brax\]'"):
        envs.make("brax/ant")
    assert {f"brax/{name}" for name in bridge.NAMES} <= set(envs.ids())


@pytest.fixture(scope="module")
def brax():
    return pytest.importorskip("brax", reason="pip install 'jaxrl[brax]'")


def test_the_table_lists_what_brax_registers(brax):
    registered = set(bridge._suite("ant")._envs) - {"fast"}  # one for its own tests
    assert registered == set(bridge.NAMES)


@pytest.mark.parametrize("name", ["inverted_pendulum", "reacher"])
def test_types_stay_and_a_rollout_is_that_of_brax(brax, name):
    env = envs.make(f"brax/{name}", max_steps=None, **FAST)
    game = env.game
    reset = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct(env.action_space.shape, jnp.float32)
    assert avals(jax.eval_shape(env.step, reset[0], action, jax.random.key(0))) == avals(reset)
    assert jax.tree.structure(env) == jax.tree.structure(
        envs.make(f"brax/{name}", max_steps=None, **FAST)
    )

    @partial(jax.jit, compiler_options=QUICK)
    def run():
        def step(states, action):
            mine, ts = env.step(states[0], action, jax.random.key(0))
            own = game.step(states[1], action)
            return (mine, own), (
                (ts.obs, ts.reward, ts.terminated),
                (own.obs, own.reward, own.done),
            )

        actions = jnp.sin(jnp.arange(6.0))[:, None] * jnp.ones(env.action_space.shape)
        state, first = env.reset(jax.random.key(3))
        own = jax.tree.map(jnp.asarray, state)  # brax's own state, as brax's reset gave it
        return (
            first.obs,
            game.reset(jax.random.key(3)).obs,
            jax.lax.scan(step, (state, own), actions)[1],
        )

    first, own_first, (mine, own) = run()
    np.testing.assert_array_equal(first, own_first)
    for ours, theirs in zip(mine, own, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_time_limit_is_ours_and_fields_are_checked(brax):
    env = envs.make("brax/inverted_pendulum", **FAST)
    assert isinstance(env, TimeLimit) and env.max_steps == 1000
    assert envs.make("brax/inverted_pendulum", max_steps=7, **FAST).max_steps == 7
    with pytest.raises(ValueError, match="backend='bullet' is not one of generalized, positional"):
        envs.make("brax/ant", backend="bullet")
    with pytest.raises(ValueError, match="brax/ant has no field 'gravity'; near"):
        envs.make("brax/ant", gravity=3.0)
    with pytest.raises(ValueError, match="max_steps"):
        envs.make("brax/ant", max_steps=0)
    with pytest.raises(ValueError, match="No environment 'brax/cheetah'; near: brax/halfcheetah"):
        envs.make("brax/cheetah")

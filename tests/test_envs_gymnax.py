"""Every environment of gymnax behind our contract; a few against gymnax's own rollouts."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.bridges import gymnax as bridge
from jaxrl import spaces

gymnax = pytest.importorskip("gymnax")

OFFLINE = sorted(set(bridge.NAMES) - set(bridge.DOWNLOADS))
KEYS, STEPS = 2, 20
QUICK = {"xla_backend_optimization_level": 0}  # compiling is all of the cost


def avals(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def rollout(env, key):
    """STEPS random steps of KEYS environments: the TimeSteps [T, B], is each obs in the space?"""
    inside = jax.vmap(lambda obs: spaces.contains(env.observation_space, obs))

    def one(state, key):
        action_key, step_key = jax.random.split(key)
        action = spaces.sample(env.action_space, action_key)
        return *env.step(state, action, step_key), action

    def step(state, key):
        state, ts, action = jax.vmap(one)(state, jax.random.split(key, KEYS))
        return state, (ts, inside(ts.obs), action)

    reset_key, step_key = jax.random.split(key)
    state, first = jax.vmap(env.reset)(jax.random.split(reset_key, KEYS))
    out = jax.lax.scan(step, state, jax.random.split(step_key, STEPS))[1]
    return first, inside(first.obs), *out


@pytest.fixture(scope="module", params=OFFLINE)
def ran(request):
    """A name, its environment, and its rollout with the environment as the program's argument."""
    env = envs.make(f"gymnax/{request.param}")
    run = jax.jit(rollout, compiler_options=QUICK)
    return request.param, env, run(env, jax.random.key(0))


def test_the_table_lists_what_gymnax_registers():
    assert sorted(bridge.NAMES) == sorted(gymnax.registered_envs)
    assert set(gymnax.registered_envs) <= set(envs.ids())
    assert all(envs.spec(f"gymnax/{name}").source == "gymnax" for name in gymnax.registered_envs)


def test_rollout_lies_in_the_spaces_until_the_episode_ends(ran):
    _, _, (_, first_inside, ts, inside, _) = ran
    over = np.cumsum(ts.done, 0) - ts.done > 0
    assert np.all(first_inside) and np.all(inside | over)


def test_states_and_timesteps_keep_their_types_from_reset_to_step(ran):
    _, env, (first, _, ts, _, action) = ran
    key = jax.random.key(0)
    state, reset = jax.eval_shape(env.reset, key)
    after, stepped = jax.eval_shape(env.step, state, action[0, 0], key)
    assert avals(after) == avals(state)
    assert avals(stepped) == avals(reset)
    assert avals((ts.reward, ts.terminated, ts.truncated)) == (
        ((STEPS, KEYS), jnp.float32, False),
        ((STEPS, KEYS), jnp.bool_, False),
        ((STEPS, KEYS), jnp.bool_, False),
    )
    assert not np.any(first.done) and not np.any(first.reward)


def test_equal_makes_are_one_structure_that_jit_does_not_compile_twice(ran):
    name, env, _ = ran
    assert jax.tree.structure(env) == jax.tree.structure(envs.make(f"gymnax/{name}"))


@pytest.mark.parametrize("name", ["CartPole-v1", "Catch-bsuite", "FourRooms-misc"])
def test_rollout_equals_gymnax_own_up_to_the_first_end(name):
    env = envs.make(f"gymnax/{name}")
    game, params = gymnax.make(name)
    action = spaces.sample(env.action_space, jax.random.key(2))

    def step(state, key):
        step_key, _ = jax.random.split(key)  # gymnax keeps the other for its reset
        state, ts = env.step(state, action, step_key)
        return state, (ts.final_obs, ts.reward, ts.terminated, ts.truncated)

    def own_step(state, key):
        _, state, reward, terminated, truncated, info = game.step(key, state, action, params)
        return state, (info["final_observation"], reward, terminated, truncated)

    @jax.jit
    def run():
        state, first = env.reset(jax.random.key(0))
        obs, own = game.reset(jax.random.key(0), params)
        steps = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 50))[1]
        own_steps = jax.lax.scan(own_step, own, jax.random.split(jax.random.key(1), 50))[1]
        return (first.obs, *steps), (obs, *own_steps)

    ours, theirs = run()
    over = np.cumsum(theirs[3] | theirs[4]) - (theirs[3] | theirs[4]) > 0
    np.testing.assert_array_equal(ours[0], theirs[0])
    for mine, own in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(mine[~over], own[~over], rtol=1e-6)


def test_max_steps_is_the_clock_of_gymnax_and_is_not_put_around_it_again():
    env = envs.make("gymnax/Pendulum-v1", max_steps=3)
    assert isinstance(env, bridge.Gymnax) and env.max_steps == 3

    @jax.jit
    def run(env):
        state, _ = env.reset(jax.random.key(0))
        keys = jax.random.split(jax.random.key(1), 4)
        return jax.lax.scan(lambda s, k: env.step(s, jnp.zeros(1), k), state, keys)[1]

    ts = run(env)
    np.testing.assert_array_equal(ts.truncated, [False, False, True, True])
    assert not np.any(ts.terminated)
    assert not np.any(run(envs.make("gymnax/Pendulum-v1", max_steps=None)).truncated)


def test_params_can_be_vmapped_and_constructor_fields_are_structure():
    env = envs.make("gymnax/Pendulum-v1", g=jnp.array([10.0, 0.0]))
    axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, env)
    state, _ = env.reset(jax.random.key(0))
    step = jax.vmap(lambda e: e.step(state, jnp.zeros(1), jax.random.key(0))[1].obs, (axes,))
    obs = jax.jit(step)(env)
    assert obs[0, 2] != obs[1, 2]
    np.testing.assert_allclose(obs[1, 2], state.theta_dot, rtol=1e-6)  # no gravity, no change
    assert envs.make("gymnax/DeepSea-bsuite", size=5).observation_space.shape == (5, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"masspol": 1.0}, "no field 'masspol'; near: masspole"),
        ({"max_steps_in_episode": 9}, "no field 'max_steps_in_episode'; near: max_steps"),
        ({"masspole": "1"}, "masspole='1' must be a number; try 0.1"),
        ({"max_steps": 0}, "max_steps=0 must be an integer >= 1"),
    ],
)
def test_a_bad_field_is_refused_with_the_rule(fields, message):
    with pytest.raises(ValueError, match=message):
        envs.make("gymnax/CartPole-v1", **fields)


def test_minatar_pixels_are_bits():
    space = envs.make("gymnax/Breakout-MinAtar").observation_space
    assert space.dtype == np.bool_ and space.shape == (10, 10, 4)


def test_a_missing_gymnax_names_what_to_install(monkeypatch):
    monkeypatch.setattr(bridge, "_game", bridge._game.__wrapped__)
    monkeypatch.setitem(sys.modules, "gymnax", None)
    with pytest.raises(
        ImportError, match=r"gymnax/CartPole-v1 needs gymnax: pip install 'jaxrl\[gymnax\]'"
    ):
        envs.make("gymnax/CartPole-v1")


def test_data_that_cannot_be_downloaded_is_said_to_be_the_reason(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(gymnax, "make", no_network)
    monkeypatch.setattr(bridge, "_game", bridge._game.__wrapped__)
    with pytest.raises(OSError, match="MNISTBandit-bsuite could not download its data"):
        envs.make("gymnax/MNISTBandit-bsuite")


def test_mountain_car_continuous_of_gymnax_is_not_stopped_by_the_left_wall_as_ours_is():
    """Gymnasium stops it (test_envs_classic): why all five are native. Fails once gymnax does."""
    name, key = "MountainCarContinuous-v0", jax.random.key(0)
    theirs, ours = envs.make(f"gymnax/{name}"), envs.make(name, max_steps=None)
    state, _ = theirs.reset(key)
    state = state.replace(position=jnp.float32(-1.19), velocity=jnp.float32(-0.03))
    _, ts = theirs.step(state, jnp.zeros(1), key)
    assert ts.obs[0] == np.float32(-1.2) and ts.obs[1] < -0.02
    _, ts = ours.step(jnp.float32([-1.19, -0.03]), jnp.zeros(1), key)
    np.testing.assert_array_equal(ts.obs, np.float32([-1.2, 0.0]))

"""The probe environments do what tests of algorithms and loops count on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs

KEYS = 8


def one_step(id, action):
    """First observations [KEYS, 1] and the TimeSteps of one step from each with `action`."""
    env = envs.make(id)

    @jax.jit
    def run(keys, action):
        state, first = jax.vmap(env.reset)(keys)
        return first.obs, jax.vmap(lambda s, k: env.step(s, action, k)[1])(state, keys)

    keys = jax.random.split(jax.random.key(0), KEYS)
    return jax.tree.map(np.asarray, run(keys, jnp.asarray(action, env.action_space.dtype)))


def play(env, steps):
    """The first TimeStep and `steps` more for action 0, stacked."""

    @jax.jit
    def run(key):
        reset_key, step_key = jax.random.split(key)
        state, first = env.reset(reset_key)
        action = jnp.zeros((), jnp.int32)
        keys = jax.random.split(step_key, steps)
        return first, jax.lax.scan(lambda s, k: env.step(s, action, k), state, keys)[1]

    return jax.tree.map(np.asarray, run(jax.random.key(0)))


@pytest.mark.parametrize(
    ("id", "action", "reward"),
    [
        ("OneStepReward", 0, lambda obs: 1.0 + 0 * obs),
        ("ObsReward", 0, lambda obs: obs),
        ("ActionReward", 0, lambda obs: -1.0 + 0 * obs),
        ("ActionReward", 1, lambda obs: 1.0 + 0 * obs),
        ("ActionObsReward", 0, lambda obs: -obs),
        ("ActionObsReward", 1, lambda obs: obs),
        ("Target", [0.5], lambda obs: -((0.5 - obs) ** 2)),
        ("MultiTarget", [1, 2], lambda obs: (obs > 0) * 1.0),
        ("MultiTarget", [0, 2], lambda obs: 0.5 + 0 * obs),
        ("MultiTarget", [0, 1], lambda obs: (obs < 0) * 0.5),
    ],
)
def test_one_step_probe_pays_its_formula_and_terminates(id, action, reward):
    obs, ts = one_step(f"probe/{id}-v0", action)
    np.testing.assert_allclose(ts.reward, reward(obs[:, 0]))
    assert np.all(ts.terminated) and not np.any(ts.truncated)
    fixed = id in ("OneStepReward", "ActionReward")
    assert set(obs[:, 0].tolist()) == ({1.0} if fixed else {-1.0, 1.0})


def test_two_step_discount_pays_1_at_its_second_step():
    first, ts = play(envs.make("probe/TwoStepDiscount-v0"), 2)
    assert first.obs == 0
    np.testing.assert_array_equal(ts.obs[:, 0], [1, 1])
    np.testing.assert_array_equal(ts.reward, [0, 1])
    np.testing.assert_array_equal(ts.terminated, [False, True])


def test_forever_pays_1_and_is_truncated_at_5_but_never_terminated():
    _, ts = play(envs.make("probe/Forever-v0"), 7)
    np.testing.assert_array_equal(ts.reward, np.ones(7))
    np.testing.assert_array_equal(ts.truncated, np.arange(1, 8) >= 5)
    assert not np.any(ts.terminated)
    np.testing.assert_array_equal(ts.obs, np.ones((7, 1)))


def test_counter_counts_its_steps_and_terminates_at_its_length():
    first, ts = play(envs.make("probe/Counter-v0", episode_length=3), 4)
    assert first.obs == 0
    np.testing.assert_array_equal(ts.obs[:, 0], [1, 2, 3, 4])
    np.testing.assert_array_equal(ts.terminated, [False, False, True, True])


def test_fresh_randomness_is_equal_exactly_when_keys_are():
    env = envs.make("probe/FreshRandomness-v0")
    first, _ = env.reset(jax.random.key(0))  # the state is the observation
    again, other = (env.step(first, jnp.int32(0), jax.random.key(seed))[1].obs for seed in (0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


def test_fresh_randomness_ends_at_the_rate_of_its_field():
    _, ts = play(envs.make("probe/FreshRandomness-v0", end_probability=0.5), 400)
    assert 0.4 < ts.terminated.mean() < 0.6
    assert len(np.unique(ts.obs)) == ts.obs.size


def test_costly_reset_starts_where_that_many_steps_lead():
    cheap, dear = (envs.make("probe/CostlyReset-v0", reset_cost=cost) for cost in (0, 3))
    state, _ = jax.jit(cheap.reset)(jax.random.key(0))
    step = jax.jit(cheap.step)
    for _ in range(3):
        state, _ = step(state, jnp.int32(0), jax.random.key(1))
    _, first = jax.jit(dear.reset)(jax.random.key(0))
    np.testing.assert_allclose(first.obs, state.inner, rtol=1e-3)
    assert 0 < first.obs[0] < 1

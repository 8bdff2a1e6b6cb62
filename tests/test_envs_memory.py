"""MemoryChain against bsuite's rules, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

import envs
from envs.memory.memory_chain import MemoryChain


def play(env, actions):
    """(the first state, all observations, TimeSteps of the steps) of these actions from a reset."""
    key = jax.random.key(0)

    @jit
    def run(actions):
        state, first = env.reset(key)
        step = lambda state, action: env.step(state, action, None)  # noqa: E731
        return state, first, jax.lax.scan(step, state, actions)[1]

    state, first, ts = run(jnp.asarray(actions, jnp.int32))
    return state, np.concatenate([first.obs[None], ts.obs]), ts


def test_the_context_is_shown_first_the_query_last_and_the_answer_is_paid_for():
    env = envs.make("MemoryChain-v0", length=4, num_bits=3)
    state, obs, ts = play(env, [0] * 5)
    np.testing.assert_allclose(obs[:, 0], [1, 1, 0.75, 0.5, 0.25, 0], rtol=1e-6)
    np.testing.assert_array_equal(obs[:, 1], [0, 0, 0, 0, state.query, 0])
    shown = 2 * np.asarray(state.context) - 1
    np.testing.assert_array_equal(obs[:, 2:], [shown, shown, *[[0, 0, 0]] * 4])
    right = state.context[state.query] == 0
    np.testing.assert_array_equal(ts.reward, [0, 0, 0, 0, 1 if right else -1])
    np.testing.assert_array_equal(ts.terminated, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(ts.metrics["success"], [0, 0, 0, 0, right])
    assert not ts.truncated.any()


def test_all_contexts_and_queries_come_and_each_is_answered_by_its_own_bit():
    env = MemoryChain(length=1, num_bits=2)

    @jit
    def run(key):
        state, first = jax.vmap(env.reset)(jax.random.split(key, 200))
        last = state.replace(t=jnp.ones(200, jnp.int32))
        paid = lambda action: jax.vmap(env.step, (0, None, None))(last, action, None)[1].reward  # noqa: E731
        return state, first.obs, paid(0), paid(1)

    state, obs, zero, one = run(jax.random.key(0))
    cases = {(*map(int, context), int(q)) for context, q in zip(*state_of(state), strict=True)}
    assert len(cases) == 8
    np.testing.assert_array_equal(obs[:, 1], state.query)  # length 1: asked where it is shown
    bit = np.asarray(state.context)[np.arange(200), np.asarray(state.query)]
    np.testing.assert_array_equal(one, 2 * bit - 1)
    np.testing.assert_array_equal(zero, -one)


def state_of(state):
    return np.asarray(state.context), np.asarray(state.query)


def test_what_is_seen_when_it_counts_tells_nothing_of_the_context():
    """So that no policy without a memory can be right more often than by chance."""
    env = MemoryChain()

    @jit
    def run(key):
        state, _ = env.reset(key)
        step = lambda state, _: env.step(state, 0, None)  # noqa: E731
        return state.context, jax.lax.scan(step, state, length=21)[1].obs

    context, obs = jax.vmap(run)(jax.random.split(jax.random.key(0), 8))
    assert set(np.asarray(context).ravel()) == {0, 1}
    assert obs.shape == (8, 21, 3) and np.ptp(obs[:, 0], 0).any()
    np.testing.assert_array_equal(obs[1:, 1:], obs[:-1, 1:])


def test_lengths_are_numbers_of_one_program_and_refused_below_1():
    lengths = np.array([1, 5, 20])

    @jit
    def over(length):
        env = MemoryChain(length=length)
        state, _ = env.reset(jax.random.key(0))
        return jax.lax.scan(lambda s, a: env.step(s, a, None), state, jnp.zeros(21, jnp.int32))[1]

    ended = jax.vmap(over)(lengths).terminated
    np.testing.assert_array_equal(np.argmax(ended, -1), lengths)
    with pytest.raises(ValueError, match="length=0 must be a number from 1 to"):
        envs.make("MemoryChain-v0", length=0)

"""Evaluation: whole episodes, by hand, each a function of (key, its index) alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

import envs
from jaxrl.env import Environment, timestep
from jaxrl.evaluate import evaluate
from jaxrl.spaces import Box


def play(env, num_episodes, act=lambda obs, key: jnp.int32(0), seed=0, max_steps=100):
    run = partial(evaluate, act, num_episodes=num_episodes, max_steps=max_steps)
    result = jit(lambda env, key: run(env, key))(env, jax.random.key(seed))
    return jax.tree.map(np.asarray, result)


class Numbers(Environment):
    """The observation is four numbers of a key. A step pays 100 where it, the action and the step
    before share one, so came from one key; the last one, of five on average, pays the first."""

    @property
    def observation_space(self):
        return Box(0.0, 1.0, (4,))

    @property
    def action_space(self):
        return Box(0.0, 1.0, (4,))

    def reset(self, key):
        numbers = jax.random.uniform(key, (4,))
        return (numbers, numbers), timestep(numbers)

    def step(self, state, action, key):
        first, last = state
        numbers = jax.random.uniform(key, (4,))
        shared = jnp.any((numbers == action) | (numbers == last) | (last == action))
        over = numbers[1] < 0.2
        return (first, numbers), timestep(numbers, 100.0 * shared + over * first[0], over)


def draw(obs, key):
    del obs
    return jax.random.uniform(key, (4,))


def test_episodes_are_played_to_their_end_and_no_further():
    got = play(envs.make("probe/Counter-v0", episode_length=7), 3)
    np.testing.assert_array_equal(got.episode_return, [7, 7, 7])
    np.testing.assert_array_equal(got.metrics["episode_length"], [7, 7, 7])
    assert np.all(got.finished)


def test_the_policy_acts_on_what_it_sees():
    # Down the left side to the bottom row, then right: 6 steps of -0.04, but the last pays 1.
    act = lambda obs, key: jnp.where(obs < 12, 2, 1)  # noqa: E731
    got = play(envs.make("GridWorld-v0"), 2, act)
    np.testing.assert_allclose(got.episode_return, [1 - 5 * 0.04] * 2, rtol=1e-5)
    np.testing.assert_array_equal(got.metrics["episode_length"], [6, 6])


def test_the_time_limit_ends_an_episode_and_max_steps_leaves_it_unfinished():
    env = envs.make("probe/Forever-v0", max_steps=5)
    got = play(env, 2)
    np.testing.assert_array_equal(got.metrics["episode_length"], [5, 5])
    assert np.all(got.finished)
    got = play(env, 2, max_steps=3)
    np.testing.assert_array_equal(got.episode_return, [3, 3])
    assert not np.any(got.finished)


@pytest.fixture(scope="module")
def eight():
    return play(Numbers(), 8, draw)


def test_no_key_is_used_for_two_of_reset_action_and_step(eight):
    assert eight.metrics["episode_length"].sum() > 20
    assert np.all(eight.episode_return < 1)
    assert len(np.unique(eight.episode_return)) == 8  # nor one for two episodes' resets


def test_an_episode_does_not_depend_on_how_many_are_played_nor_on_how_long_they_last(eight):
    assert len(np.unique(eight.metrics["episode_length"])) > 3 and np.all(eight.finished)
    for part, whole in zip(*map(jax.tree.leaves, (play(Numbers(), 3, draw), eight)), strict=True):
        np.testing.assert_array_equal(part, whole[:3])


def test_other_keys_play_other_episodes(eight):
    other = play(Numbers(), 8, draw, seed=1)
    assert np.any(other.metrics["episode_length"] != eight.metrics["episode_length"])


class Tank(Environment):
    """Says how much fuel is left: 1 less each step, until none is."""

    @property
    def observation_space(self):
        return Box(0.0, 9.0, (1,))

    @property
    def action_space(self):
        return Box(0.0, 1.0, (1,))

    def reset(self, key):
        fuel = jax.random.randint(key, (), 2, 9).astype(jnp.float32)
        return fuel, timestep(fuel[None], metrics={"fuel": fuel})

    def step(self, state, action, key):
        del action, key
        fuel = state - 1
        return fuel, timestep(fuel[None], terminated=fuel <= 1, metrics={"fuel": fuel})


def test_every_metric_of_an_environment_is_told_as_it_was_at_the_end():
    got = play(Tank(), 4, lambda obs, key: jnp.zeros(1))
    assert set(got.metrics) == {"episode_length", "fuel"}
    np.testing.assert_array_equal(got.metrics["fuel"], [1] * 4)
    assert len(np.unique(got.metrics["episode_length"])) > 1

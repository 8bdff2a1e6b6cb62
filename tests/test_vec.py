"""VecEnv: fresh episodes, one key one use, and numbers that do not depend on num_envs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.env import Environment, timestep
from jaxrl.spaces import Box, Discrete
from jaxrl.vec import VecEnv


class Noise(Environment):
    """Shows nothing but fresh randomness, of its key and of its key's children; `length` steps
    long, less a random number of steps below `spread`."""

    length: int = 2
    spread: int = 1

    @property
    def observation_space(self):
        return Box(0, 2**32 - 1, (5,), np.uint32)

    @property
    def action_space(self):
        return Discrete(1000)

    def reset(self, key):
        obs = self.look(key)
        return (obs[0] % self.spread).astype(jnp.int32), timestep(obs)

    def step(self, state, action, key):
        del action
        return state + 1, timestep(self.look(key), 1.0, state + 1 >= self.length)

    def look(self, key):
        """uint32 [5]: equal to that of a key, in part, exactly if it is that key or its child."""
        children = jax.random.split(jax.random.clone(key), 4)
        keys = jnp.concatenate([key[None], children])
        return jax.vmap(lambda k: jax.random.bits(k, (), jnp.uint32))(keys)


@partial(jax.jit, static_argnames=("num_steps", "refill_every"))
def play(vec, key, num_steps=12, refill_every=None):
    """(first TimeStep [B], the following ones [T, B])."""
    reset_key, scan_key = jax.random.split(key)
    state, first = vec.reset(reset_key)
    action = jnp.zeros(vec.num_envs, jnp.int32)

    def body(state, i):
        step_key, refill_key = jax.random.split(jax.random.fold_in(scan_key, i))
        if refill_every:
            filled = vec.refill(state, refill_key)
            state = jax.tree.map(lambda a, b: jnp.where(i % refill_every == 0, a, b), filled, state)
        return vec.step(state, action, step_key)

    return first, jax.lax.scan(body, state, jnp.arange(num_steps))[1]


def three(length=2, spread=1):
    return VecEnv(Noise(length, spread), 3, pool_size=2)


def test_a_reset_and_a_step_have_one_row_for_each_environment():
    first, ts = play(three(), jax.random.key(0))
    assert first.obs.shape == (3, 5) and ts.obs.shape == (12, 3, 5)
    assert ts.reward.shape == ts.terminated.shape == ts.truncated.shape == (12, 3)
    np.testing.assert_array_equal(ts.metrics["episode_return"][:, 1], [1, 2] * 6)


def test_no_two_observations_share_a_key():
    """Neither within an episode, nor of a reset and a step, nor of two environments."""
    first, ts = play(three(), jax.random.key(0))
    done = np.asarray(ts.done)
    seen = np.concatenate([first.obs, ts.final_obs.reshape(-1, 5), ts.obs[done]])
    assert done.sum() == 18
    assert len(np.unique(seen)) == seen.size


def test_every_episode_starts_from_a_new_state_and_no_pool_runs_out():
    first, ts = play(three(length=1), jax.random.key(0))
    starts = np.concatenate([first.obs[None, :, 0], ts.obs[..., 0]])
    assert np.all(ts.done) and len(np.unique(starts)) == 13 * 3
    assert not np.any(ts.metrics["pool_exhausted"])


def test_no_pool_runs_out_when_episodes_end_at_different_times():
    _, ts = play(three(length=4, spread=4), jax.random.key(0))
    assert len(np.unique(np.sum(ts.done, 0))) > 1 and np.max(np.sum(ts.done, 0)) > 2
    assert not np.any(ts.metrics["pool_exhausted"])


def test_environments_with_other_numbers_share_one_compiled_program():
    play(three(), jax.random.key(0))
    programs = play._cache_size()
    for length in (1, 3, 5):
        _, ts = play(three(length), jax.random.key(0))
        assert np.flatnonzero(ts.done[:, 0])[0] == length - 1
    assert play._cache_size() == programs


def without_auto_refill(num_envs, length):
    vec = VecEnv(Noise(length), num_envs, pool_size=2, auto_refill=False)
    return play(vec, jax.random.key(0), refill_every=4)


def test_without_auto_refill_the_missing_resets_are_counted():
    _, ts = without_auto_refill(3, length=1)
    np.testing.assert_array_equal(ts.metrics["pool_exhausted"][:, 0], [0, 0, 1, 1] * 3)


def test_an_environment_does_not_depend_on_how_many_others_there_are():
    """Bit for bit, over three rollouts of four steps with a refill before each."""
    few, many = without_auto_refill(3, length=2), without_auto_refill(8, length=2)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:3]), few[0], many[0])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, :3]), few[1], many[1])


def test_actions_are_drawn_one_for_each_environment():
    vec = VecEnv(Noise(), 16)
    action = vec.sample_actions(jax.random.key(0))
    assert action.shape == (16,) and len(np.unique(action)) > 10
    assert vec.action_space == Discrete(1000) and vec.observation_space.shape == (5,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VecEnv(Noise(), 0), r"num_envs=0 must be at least 1; try 64\."),
        (lambda: VecEnv(Noise(), 2, pool_size=0), r"pool_size=0 must be at least 1; try 4\."),
    ],
)
def test_a_batch_that_cannot_be_made_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

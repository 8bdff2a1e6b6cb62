"""The wrappers of one environment: clocks, sums, frames and actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from count import Count

from jaxrl.env import Environment, static, timestep
from jaxrl.spaces import Box, Discrete
from jaxrl.wrappers import (
    ClipAction,
    EpisodeStats,
    FrameStack,
    RescaleAction,
    TimeLimit,
    is_continuous,
)


class Echo(Environment):
    """Shows the action it was given."""

    low: float = static(-1.0)
    high: float = static(3.0)

    @property
    def observation_space(self):
        return Box(-np.inf, np.inf, (2,))

    @property
    def action_space(self):
        return Box(self.low, self.high, (2,))

    def reset(self, key):
        del key
        return jnp.zeros(()), timestep(jnp.zeros(2))

    def step(self, state, action, key):
        del key
        return state, timestep(action)


@jax.jit
def reset(env, seed):
    return env.reset(jax.random.key(seed))


@jax.jit
def step(env, state, action):
    return env.step(state, action, jax.random.key(0))


def play(env, num_steps, seed=0):
    """(first TimeStep, the following ones stacked [T], last state) of one environment."""
    state, first = reset(env, seed)
    steps = []
    for _ in range(num_steps):
        state, ts = step(env, state, 0)
        steps.append(ts)
    return first, jax.tree.map(lambda *x: np.stack(x), *steps), state


def test_the_time_limit_truncates_on_its_last_step_and_no_sooner():
    _, ts, _ = play(TimeLimit(Count(length=9), 3), 3)
    np.testing.assert_array_equal(ts.truncated, [False, False, True])
    assert not np.any(ts.terminated)


def test_the_time_limit_leaves_terminated_alone():
    _, ts, _ = play(TimeLimit(Count(length=2), 3), 2)
    np.testing.assert_array_equal(ts.terminated, [False, True])
    assert not np.any(ts.truncated)


def test_a_step_can_be_both_terminated_and_truncated():
    _, ts, _ = play(TimeLimit(Count(length=3), 3), 3)
    assert ts.terminated[2] and ts.truncated[2]
    np.testing.assert_array_equal(ts.done, [False, False, True])


def test_episode_stats_are_the_sums_up_to_and_with_each_step():
    first, ts, _ = play(EpisodeStats(Count(length=3)), 3)
    assert first.metrics["episode_return"] == 0 and first.metrics["episode_length"] == 0
    np.testing.assert_array_equal(ts.metrics["episode_return"], [1, 3, 6])
    np.testing.assert_array_equal(ts.metrics["episode_length"], [1, 2, 3])


def test_frames_are_oldest_first_and_start_as_the_first_observation_repeated():
    first, ts, _ = play(FrameStack(Count(length=9), 3), 3)
    start = first.obs[0, 0]
    assert first.obs.shape == (3, 1) == FrameStack(Count(), 3).observation_space.shape
    np.testing.assert_array_equal(first.obs[:, 0] - start, [0, 0, 0])
    np.testing.assert_array_equal(ts.obs[..., 0] - start, [[0, 0, 1], [0, 1, 2], [1, 2, 3]])


def test_frames_of_observations_that_are_no_box_are_refused():
    class Cell(Count):
        observation_space = Discrete(3)

    with pytest.raises(ValueError, match="FrameStack needs a Box observation space"):
        FrameStack(Cell())


def test_clipped_actions_reach_the_environment_within_its_bounds():
    env = ClipAction(Echo())
    state, _ = reset(env, 0)
    _, ts = step(env, state, jnp.array([-5.0, 0.25]))
    np.testing.assert_array_equal(ts.obs, [-1.0, 0.25])
    assert not env.action_space.bounded


def test_rescaled_actions_map_one_to_the_bounds_and_zero_to_the_middle():
    env = RescaleAction(Echo())
    state, _ = reset(env, 0)
    for action, seen in ((-1.0, -1.0), (0.0, 1.0), (0.5, 2.0), (1.0, 3.0), (7.0, 3.0)):
        _, ts = step(env, state, jnp.full(2, action))
        np.testing.assert_array_equal(ts.obs, [seen, seen])
    assert env.action_space == Box(-1.0, 1.0, (2,))


@pytest.mark.parametrize("env", [Count(), Echo(high=np.inf)])
def test_actions_without_finite_bounds_cannot_be_rescaled(env):
    with pytest.raises(ValueError, match="RescaleAction needs a Box action space with finite"):
        RescaleAction(env)


def test_only_a_box_of_actions_is_continuous():
    assert is_continuous(TimeLimit(Echo(), 3)) and not is_continuous(Count())

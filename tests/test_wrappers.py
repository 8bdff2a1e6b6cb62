"""The wrappers of one environment: clocks, sums, frames and actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from count import Count

from jaxrl.env import Environment, static, timestep
from jaxrl.spaces import Box, Discrete, MultiDiscrete, contains
from jaxrl.wrappers import EpisodeStats, FrameStack, ScaleAction, TimeLimit


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


class Film(Count):
    """Shows its clock as an image, a number, a choice, and a mask of the other parity's action."""

    @property
    def observation_space(self):
        return {
            "image": Box(0, 255, (2, 1, 3), np.uint8),
            "clock": Box(0.0, np.inf, ()),
            "hand": Discrete(12),
            "legal": Box(False, True, (2,), np.bool_),
        }

    def _film(self, ts, t):
        image = jnp.asarray([[[0, 1, 2]], [[3, 4, 5]]], jnp.uint8) + 10 * t.astype(jnp.uint8)
        legal = jnp.arange(2) == t % 2
        obs = {"image": image, "clock": t.astype(jnp.float32), "hand": t, "legal": legal}
        return ts.replace(obs=obs, final_obs=obs)

    def reset(self, key):
        state, ts = super().reset(key)
        return state, self._film(ts, state.t)

    def step(self, state, action, key):
        state, ts = super().step(state, action, key)
        return state, self._film(ts, state.t)


def test_frames_of_images_are_stacked_in_the_channels_and_other_leaves_in_front():
    env = FrameStack(Film(length=9), 2)
    first, ts, _ = play(env, 2)
    space = env.observation_space
    assert space["image"] == Box(0, 255, (2, 1, 6), np.uint8)
    assert space["clock"] == Box(0.0, np.inf, (2,)) and space["hand"] == MultiDiscrete((12, 12))
    assert contains(space, first.obs) and contains(space, jax.tree.map(lambda x: x[1], ts.obs))
    np.testing.assert_array_equal(first.obs["image"][0, 0], [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(ts.obs["image"][1, 1, 0], [13, 14, 15, 23, 24, 25])
    for name in ("clock", "hand"):
        np.testing.assert_array_equal(first.obs[name], [0, 0])
        np.testing.assert_array_equal(ts.obs[name], [[0, 1], [1, 2]])


def test_the_mask_of_legal_actions_is_shown_as_it_is_now():
    first, ts, _ = play(FrameStack(Film(length=9), 3), 2)
    np.testing.assert_array_equal(first.obs["legal"], [True, False])
    np.testing.assert_array_equal(ts.obs["legal"], [[False, True], [True, False]])


def test_frames_of_what_has_no_room_for_another_axis_are_refused_in_one_line():
    class Pair(Count):
        @property
        def observation_space(self):
            return {"pair": MultiDiscrete((3, 3))}

    with pytest.raises(ValueError, match=r"^FrameStack needs observations of Boxes [^\n]*$"):
        FrameStack(Pair())
    with pytest.raises(ValueError, match="num_frames=0 must be at least 1; try 4"):
        FrameStack(Count(), 0)


@pytest.mark.parametrize("squash", [False, True])
def test_scaled_actions_map_one_to_the_bounds_and_zero_to_the_middle(squash):
    env = ScaleAction(Echo(), squash)
    state, _ = reset(env, 0)
    for action, seen in ((-1.0, -1.0), (0.0, 1.0), (0.5, 2.0), (1.0, 3.0), (7.0, 3.0)):
        with np.errstate(divide="ignore"):
            drawn = np.arctanh(min(action, 1.0)) if squash else action
        _, ts = step(env, state, jnp.full(2, drawn, jnp.float32))
        np.testing.assert_allclose(ts.obs, [seen, seen], rtol=1e-6)
    bound = np.inf if squash else 1.0
    assert env.action_space == Box(-bound, bound, (2,))


def test_choices_go_through_as_they_are():
    env = ScaleAction(Count())
    assert env.action_space == Discrete(2)
    state, _ = reset(env, 0)
    assert step(env, state, 1)[1].reward == 1


def test_an_environment_whose_actions_cannot_be_served_is_refused_when_it_is_wrapped():
    with pytest.raises(ValueError, match="squash=True needs actions with finite bounds"):
        ScaleAction(Echo(high=np.inf), squash=True)
    with pytest.raises(ValueError, match="squash=True needs a Box of actions"):
        ScaleAction(Count(), squash=True)

"""Environments that Python steps: processes, what becomes of dead ones, spaces, the rollout."""

import time
from functools import partial

import gymnasium
import jax
import numpy as np
import pytest
import worlds
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Tuple

from jaxrl import envs, spaces
from jaxrl.envs import registry
from jaxrl.host import spaces as host_spaces
from jaxrl.host.actor import Actor
from jaxrl.host.lanes import Lanes
from jaxrl.host.processes import Process
from jaxrl.host.worlds import Outcome
from jaxrl.train import arrays


def processes(make, num_envs=2, num_processes=2, deadline=30.0):
    one = worlds.Path
    gym = one.observation_space, one.action_space
    seen = host_spaces.ours(gym[0], "Path")
    start = partial(Process, make, gym, False)
    return Lanes("Path", start, gym, seen, num_envs, num_processes, deadline)


@pytest.fixture
def opened():
    """A function as `processes`, whose processes end with the test."""
    made = []

    def open(*args, **options):
        made.append(processes(*args, **options))
        return made[-1]

    yield open
    for one in made:
        one.close()


def right(n):
    return np.ones(n, np.int32)


def test_an_episode_that_ends_shows_where_the_action_led_beside_the_next_first(opened):
    two = opened(worlds.Path, num_envs=3)
    obs = two.reset([1, 2, 3])
    np.testing.assert_array_equal(obs, [[0.5, 0.0]] * 3)
    two.step(np.array([1, 0, 1]))
    found = two.step(np.array([1, 0, 0]))
    assert found.terminated.tolist() == [True, False, False]
    np.testing.assert_allclose(found.final_obs, [[1, 2 / 7], [0, 2 / 7], [0.5, 2 / 7]], rtol=1e-6)
    np.testing.assert_allclose(found.obs, [[0.5, 0], [0, 2 / 7], [0.5, 2 / 7]], rtol=1e-6)
    metrics = {"episode_return": 1.0, "episode_length": 2.0, "success": 1.0}
    assert found.ended == [(0, metrics)]
    assert found.reward.tolist() == [1, 0, 0] and found.reward.dtype == np.float32


def test_the_clock_truncates_and_what_terminates_on_its_last_step_is_not_truncated(opened):
    one = opened(partial(worlds.Path, limit=2), num_envs=2, num_processes=1)
    one.reset([0, 0])
    one.step(np.array([1, 0]))
    found = one.step(np.array([1, 0]))
    assert found.terminated.tolist() == [True, False]
    assert found.truncated.tolist() == [False, True]
    assert [index for index, _ in found.ended] == [0, 1]


def test_worker_processes_do_not_import_jax(opened):
    assert opened(worlds.Light).reset([0, 0])[:, 0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("how", ["exit", "raise", "hang"])
def test_a_dead_process_is_started_again_and_the_others_go_on(how, tmp_path, opened):
    make = partial(worlds.Mortal, str(tmp_path), how)
    two = opened(make, deadline=2.0)
    (tmp_path / "died").touch()
    two.reset([0, 1])  # with the mark there nobody dies
    (tmp_path / "died").unlink()
    for _ in range(3):
        assert not two.step(right(2)).lost.any()
    found = two.step(right(2))
    gone = found.lost
    assert gone.any() and two.restarts == gone.sum()
    np.testing.assert_array_equal(found.obs[gone][:, 1], 0)  # a fresh episode
    np.testing.assert_allclose(found.obs[~gone][:, 1], 4 / 9)
    assert not found.ended and not found.terminated.any() and not found.truncated.any()
    assert not two.step(right(2)).lost.any()


def test_a_process_that_dies_again_and_again_is_given_up_with_its_error(tmp_path, opened):
    one = opened(partial(worlds.Mortal, str(tmp_path), "always", 1), 1, 1)
    one.reset([0])
    with pytest.raises(ValueError, match=r"died 4 times in a row .* a broken pipe in the plant"):
        for _ in range(5):
            one.step(right(1))


def test_processes_that_hang_are_ended_with_the_rest(tmp_path, opened):
    one = opened(partial(worlds.Mortal, str(tmp_path), "always hang", 1), 1, 1, deadline=0.5)
    one.reset([0])
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"died 4 times in a row .*took longer than 0.5 s; try"):
        for _ in range(5):
            one.step(right(1))
    one.close()
    assert time.monotonic() - begun < 40


def test_lists_are_observations_too():
    assert envs.make("worlds:Listed").observation_space == spaces.Box(0, 1, (2,))


def test_an_observation_outside_of_its_space_is_refused(opened):
    one = opened(worlds.Leaves, 1, 1)
    one.reset([0])
    with pytest.raises(
        ValueError, match=r"observation\[0\] is 2.25, outside of 0.0 to 1.0"
    ) as said:
        for _ in range(3):
            one.step(np.zeros(1, np.int32) if _ != 1 else right(1))
    assert "\n" not in str(said.value)


def test_an_environment_that_cannot_begin_is_told_in_one_line(opened):
    with pytest.raises(
        ValueError, match=r"Path: its first episode could not begin .*no such level"
    ):
        opened(worlds.NoBeginning, 1, 1).reset([0])


class Scripted:
    """Worlds of one environment whose outcomes are written down: observations count up."""

    num_envs, restarts = 1, 0

    def __init__(self, script):
        self.script, self.count, self.actions = list(script), 0, []

    def reset(self, seeds):
        return np.zeros((1, 1), np.float32)

    def step(self, action, only=None):
        self.actions.append((int(action[0]), None if only is None else bool(only[0])))
        what = self.script.pop(0)
        self.count += 1
        final = np.full((1, 1), self.count, np.float32)
        flags = [np.array([what == name]) for name in ("terminated", "truncated", "lost")]
        over = what in ("terminated", "truncated")
        obs = final + 100 if over or what == "lost" else final
        final = obs if what == "lost" else final
        ended = [(0, {"episode_return": 1.0, "episode_length": 2.0})] if over else []
        reward = np.full(1, 0.0 if what == "lost" else 1.0, np.float32)
        return Outcome(obs, final, reward, *flags, ended)

    def close(self):
        pass


def act(player, memory, fresh, obs, noise, t):
    """Counts in its memory how long an episode is seen; the action is the step."""
    memory = np.where(fresh, 0, memory) + 1
    action = np.full(fresh.shape, t)
    return memory, action, {"log_prob": obs[..., 0]}, action


def rollout(script, num_steps, rollouts=1):
    actor = Actor(Scripted(script), (1, 1), act, num_steps)
    actor.begin([0], np.zeros((1, 1), np.int32))
    played = [actor.play((), ()) for _ in range(rollouts)]
    return actor, played


def flat(x):
    return np.asarray(x).ravel().tolist()


def test_a_rollout_keeps_where_actions_led_and_goes_on_with_the_next_episode():
    actor, [(played, noted)] = rollout(["", "truncated", "", "terminated"], 4)
    steps = played.steps
    assert flat(steps.obs) == [0, 1, 102, 3]
    assert flat(steps.next_obs) == [1, 2, 3, 4]
    assert flat(steps.truncated) == [False, True, False, False]
    assert flat(steps.terminated) == [False, False, False, True]
    assert flat(steps.aux["log_prob"]) == flat(steps.obs)
    assert flat(played.obs) == [104] and flat(actor.memory) == [2]
    assert flat(played.ended.episodes) == [2] and flat(played.ended.truncations) == [1]
    assert flat(played.ended.metrics["episode_return"]) == [2] and noted.lost == 0


def test_a_lost_step_is_played_again_in_a_new_episode_and_never_scored():
    actor, [(played, noted)] = rollout(["", "lost", "", ""], 3)
    steps = played.steps
    assert flat(steps.obs) == [0, 102, 3]  # the step of the loss begins the new episode
    assert flat(steps.next_obs) == [1, 3, 4]
    assert flat(steps.truncated) == [True, False, False], "what came before bootstraps"
    assert flat(steps.reward) == [1, 1, 1] and noted.lost == 1
    assert actor.worlds.actions == [(0, None), (1, None), (1, True), (2, None)]
    assert flat(actor.memory) == [2] and flat(played.ended.episodes) == [0]
    assert not played.cut.any()


def test_an_episode_lost_between_two_rollouts_is_told_to_the_second():
    _, [(first, _), (second, noted)] = rollout(["", "lost", "lost", ""], 1, rollouts=2)
    assert not first.steps.truncated.any() and second.cut.all() and noted.lost == 2
    assert flat(second.steps.obs) == [103]


def test_nothing_is_cut_where_the_lost_episode_had_not_begun():
    _, [_, (second, _)] = rollout(["terminated", "lost", ""], 1, rollouts=2)
    assert not second.cut.any()


SPACES = [
    (Box(-1, np.inf, (2,), np.float64), spaces.Box(-1, np.inf, (2,))),
    (Box(0, 255, (4, 4, 3), np.uint8), spaces.Box(0, 255, (4, 4, 3), np.uint8)),
    (Discrete(3, start=-1), spaces.Discrete(3)),
    (MultiDiscrete([2, 3]), spaces.MultiDiscrete((2, 3))),
    (MultiBinary(4), spaces.Box(False, True, (4,), np.bool_)),
    (
        Dict(a=Discrete(2), b=Box(0, 1, (1,))),
        {"a": spaces.Discrete(2), "b": spaces.Box(0, 1, (1,))},
    ),
    (Tuple([Discrete(2), Discrete(3)]), (spaces.Discrete(2), spaces.Discrete(3))),
]


@pytest.mark.parametrize("gym, ours", SPACES, ids=[str(gym) for gym, _ in SPACES])
def test_samples_of_a_space_lie_in_its_form_here(gym, ours):
    assert host_spaces.ours(gym, "it") == ours
    many = gymnasium.vector.utils.batch_space(gym, 5)
    many.seed(0)
    seen = host_spaces.observed(gym, ours, many.sample())
    assert host_spaces.outside(ours, seen) is None
    jax.tree.map(lambda s, x: x.dtype == s.dtype or pytest.fail("dtype"), ours, seen,
                 is_leaf=spaces.is_space)  # fmt: skip


def test_actions_go_back_into_a_space_that_does_not_start_at_0():
    assert host_spaces.acted(Discrete(3, start=-1), np.array([0, 2])).tolist() == [-1, 1]


def test_a_space_without_a_form_here_is_refused():
    with pytest.raises(ValueError, match=r"it Graph.* has no form here: use Box"):
        host_spaces.ours(Graph(Box(0, 1, (1,)), None), "it")


@pytest.mark.parametrize(
    "id, words",
    [
        ("gymnasium/Nope-v1", "Gymnasium knows no 'Nope-v1'; near: "),
        ("LunarLander-v3", "Gymnasium knows it, try gymnasium/LunarLander-v3; near: "),
        ("worlds:NoBeginning", "first episode could not begin .KeyError: 'no such level'"),
        ("worlds:Late", r"its first step \(ValueError: not enough values.*worlds.py, line"),
        ("worlds:Paid", "a reward is nan; rewards must be finite"),
        ("worlds:Wide", r"observation has the shape \(3,\), not \(2,\) as its space; give both"),
        ("worlds:Nope", "defines no 'Nope'"),
        ("no_such_module:Env", "No module 'no_such_module'"),
    ],
)
def test_an_id_that_nothing_makes_is_told_in_one_line(id, words):
    with pytest.raises(ValueError, match=words) as said:
        envs.make(id)
    assert "\n" not in str(said.value)


def test_a_class_of_gymnasium_is_registered_with_a_limit_of_its_own(monkeypatch):
    monkeypatch.setattr(registry, "_specs", dict(registry._specs))
    envs.register("test/Path-v0", worlds.Path, max_steps=3)
    made = envs.make("test/Path-v0", length=9)
    assert (
        made.observation_space == spaces.Box(0, 1, (2,))
        and not envs.spec("test/Path-v0").is_language
    )
    one = made.world.open(1, arrays.Actors(processes=1))
    one.reset([0])
    flags = [bool(one.step(np.array([i % 2])).truncated[0]) for i in range(3)]
    one.close()
    assert flags == [False, False, True]


def test_a_host_environment_shows_its_spaces_and_refuses_to_be_compiled():
    env = envs.make("worlds:Path", length=9)
    assert env.observation_space == spaces.Box(0, 1, (2,))
    assert env.action_space == spaces.Discrete(2)
    assert envs.make("worlds:path", length=9).action_space == spaces.Discrete(2)
    assert envs.make("gymnasium/CartPole-v1").max_steps == 500
    assert envs.make("gymnasium/CartPole-v1", max_steps=20).max_steps == 20
    state, ts = env.reset(jax.random.key(0))
    with pytest.raises(ValueError, match="worlds:Path is stepped by Python"):
        env.step(state, 0, jax.random.key(0))
    assert ts.obs.shape == (2,)

"""GRPO for arrays: what a branch is worth, where groups start, and who goes on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

import envs
from jaxrl import metrics
from jaxrl.algos import grpo_arrays
from jaxrl.rollout import Transition
from jaxrl.train import command

CFG = grpo_arrays.Config(
    num_envs=6,
    group_size=3,
    num_steps=4,
    total_steps=24 * 3,
    num_epochs=1,
    num_minibatches=1,
    hidden=(4,),
    gamma=0.5,
    divide_by_std=False,
    reset_pool=4,
)


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_a_branch_is_worth_its_discounted_rewards_until_its_end_or_horizon(ending):
    reward = np.float32([[8, 0, 2], [4, 4, 8], [2, 4, 0]])
    done = np.array([[0, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    ends = {"terminated": done, "truncated": np.zeros_like(done)}
    ends |= {} if ending == "terminated" else {"terminated": ends["truncated"], "truncated": done}
    obs = np.arange(9, dtype=np.float32).reshape(3, 3, 1)
    steps = Transition(obs, obs, reward, reward, **ends, next_obs=obs)
    cfg = grpo_arrays.Config(**(vars(CFG) | {"num_envs": 3, "num_steps": 3}))
    rows, log = grpo_arrays.compare(None, steps, cfg, None)
    worth = np.float32([8 + 4 / 2 + 2 / 4, 4 / 2, 2])
    np.testing.assert_allclose(rows.advantage, np.tile(worth - worth.mean(), 3), rtol=1e-6)
    np.testing.assert_array_equal(rows.played, [1, 1, 1, 1, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(rows.obs[:, 0], np.arange(9))
    told = {name: float(metrics.quotient(x)) for name, x in log.items()}
    assert told == pytest.approx(
        {
            "branch_return": worth.mean(),
            "branch_cut": 1 / 3,
            "branch_played": 6 / 9,
            "uniform_groups": 0,
        }
    )


def test_the_loss_is_of_what_was_played_alone():
    rng = np.random.default_rng(0)
    old, advantage = np.float32(rng.normal(size=(2, 4)))
    played = np.array([True, True, False, True])

    class Pi:
        def log_prob(self, action):
            return action

        def entropy(self):
            return jnp.full(4, 2.0)

    class Net:
        def distribution(self, obs):
            return Pi()

    rows = grpo_arrays.Rows(old, old + np.float32([0.0, 0.5, 9.0, -0.5]), old, advantage, played)
    total, parts = grpo_arrays.loss(Net(), rows, CFG)
    ratio = np.exp([0.0, 0.5, -0.5])
    a = advantage[played]
    expected = -np.minimum(ratio * a, np.clip(ratio, 0.8, 1.2) * a) - 0.01 * 2
    np.testing.assert_allclose(metrics.quotient(total), expected.mean(), rtol=1e-5)
    assert total.denominator == 3 and metrics.quotient(parts["clip_fraction"]) == 2 / 3


@pytest.fixture(scope="module")
def counted():
    """(states before and after each of 3 updates, their metrics) in episodes of 10 steps."""
    env = grpo_arrays.wrap(envs.make("probe/Counter-v0", episode_length=10), CFG)

    def compare(obs_stats, steps, cfg, axis):
        rows, log = grpo_arrays_compare(obs_stats, steps, cfg, axis)
        start = steps.obs[0].reshape(2, 3, -1)
        log["apart"] = metrics.value(jnp.max(jnp.abs(start - start[:, :1])))
        action = steps.aux.reshape(4, 2, 3)  # log-probs: of actions, which differ
        log["alike"] = metrics.mean(jnp.all(action == action[..., :1], (0, 2)))
        return rows, log

    grpo_arrays_compare = grpo_arrays.compare
    states = [jit(partial(grpo_arrays.init, cfg=CFG, env=env))(jax.random.key(0))]
    log = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo_arrays, "compare", compare)
        update = jit(partial(grpo_arrays.update, cfg=CFG, env=env))
        for i in range(3):
            state, now = update(states[-1], jax.random.key(i))
            states.append(state)
            log.append({name: float(metrics.quotient(x)) for name, x in now.items()})
    return states, log


def test_branches_of_a_group_start_at_the_same_state_and_draw_their_own_actions(counted):
    for now in counted[1]:
        assert now["apart"] == 0 and now["alike"] == 0


def test_an_environment_goes_on_along_its_first_branch_and_begins_anew_where_that_ends(counted):
    states, log = counted
    assert [s.carry.obs.ravel().tolist() for s in states] == [[0, 0], [4, 4], [8, 8], [2, 2]]
    assert [now["episodes"] for now in log] == [0, 0, 2]  # of 2 environments, not of 6 branches
    assert log[2]["episode_length"] == 10
    assert [now["branch_cut"] for now in log] == [1, 1, 0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group_size": 1}, "group_size=1 must be at least 2; try 8"),
        ({"group_size": 4}, "group_size=4 does not divide num_envs=6; try 3 or 6"),
        ({"clip_eps": 0.0}, "clip_eps=0.0 must be .* above 0"),
        ({"entropy_coef": -1.0}, "entropy_coef=-1.0 must lie in"),
    ],
)
def test_an_option_out_of_range_is_refused_with_a_value_that_works(options, words):
    with pytest.raises(ValueError, match=words):
        grpo_arrays.Config(**(vars(CFG) | options))


@pytest.mark.parametrize(
    ("name", "env", "chosen"),
    [
        ("grpo", "CartPole-v1", "grpo_arrays"),
        ("grpo", "language/GuessTheNumber-easy", "grpo"),
        ("grpo_arrays", "language/GuessTheNumber-easy", "grpo"),
        ("grpo_arrays", "CartPole-v1", "grpo_arrays"),
    ],
)
def test_the_environment_chooses_which_grpo_trains(name, env, chosen, capsys):
    assert command.choose(name, ["--env", env]).name == chosen
    assert ("takes over" in capsys.readouterr().err) == (name != chosen)

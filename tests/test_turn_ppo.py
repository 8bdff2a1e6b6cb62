"""PPO with a critic of turns: what it learns from, and a truncated episode's last observation."""

from dataclasses import replace

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents import Parrot
from quick import jit

from jaxrl.algos import turn_ppo
from jaxrl.lm.learn.iteration import learn
from jaxrl.lm.learn.optimizer import optimizer
from jaxrl.lm.model.params import Critic
from jaxrl.lm.model.shards import Layout
from jaxrl.lm.play.rounds import play

CFG = turn_ppo.Config(**agents.SMALL | {"num_minibatches": 2, "gamma": 0.5, "overlong": "keep"})
prepare = jit(lambda params, episodes, cfg: turn_ppo.prepare(params, None, episodes, cfg, None))
FOR_EVER = Parrot(talk="a", turns=3, truncates=True)  # a short clock cuts the episode off


@pytest.fixture(scope="module")
def params():
    return agents.params(has_critic=True)


@pytest.fixture(scope="module", params=["cut off", "both flags"])
def played(request, params):
    """(how they end, episodes of three turns that pay 1 each)"""
    how = {"truncates": request.param == "cut off", "both": request.param == "both flags"}
    mine = agents.agent(replace(FOR_EVER, **how))

    @jit
    def run(policy):
        key, index = jax.random.key(1), jnp.arange(4, dtype=jnp.int32)
        return play(
            policy, mine.env, mine.chat, mine.limits, key, index, group_size=1, num_lanes=2
        )[0]  # fmt: skip

    record = run(params.policy)
    return request.param, record.replace(reward=jnp.ones_like(record.reward))


def test_a_truncated_episode_bootstraps_from_its_last_observation_a_terminated_one_from_zero(
    played, params
):
    how, episodes = played
    two = Critic(jnp.zeros(8), jnp.float32(2.0))  # 1 / (1 - gamma), everywhere
    rows, _ = prepare(params.replace(critic=two), episodes, replace(CFG, gae_lambda=1.0))
    targets = [
        np.asarray(t)[np.asarray(o)] for t, o in zip(rows.value_target, rows.opens, strict=True)
    ]
    expected = [2.0, 2.0, 2.0] if how == "cut off" else [1.75, 1.5, 1.0]
    for target in targets:
        np.testing.assert_allclose(target, expected, atol=1e-5)
    assert np.asarray(episodes.truncated).all() == (how == "cut off")
    ends = np.asarray(episodes.token)[np.arange(4), np.asarray(episodes.length) - 1]
    reads_the_last = ends == 258  # the assistant's sign, after the last observation
    assert reads_the_last.all() == (how == "cut off")


def test_each_response_has_one_value_and_its_tokens_share_an_advantage(played, params):
    _, episodes = played
    reward = jnp.arange(12.0).reshape(4, 3) % 5
    critic = Critic(jnp.linspace(-1, 1, 8), jnp.float32(0.0))
    rows, known = prepare(params.replace(critic=critic), episodes.replace(reward=reward), CFG)
    assert np.asarray(rows.opens).sum() == np.asarray(episodes.played).sum() == 12
    turn, mask = np.asarray(episodes.turn[:, 1:]), np.asarray(rows.mask)
    for row in range(4):
        for t in range(3):
            mine = np.asarray(rows.advantage[row])[mask[row] & (turn[row] == t)]
            assert len(mine) and np.ptp(mine) == 0
    weighed = np.asarray(rows.advantage)[np.asarray(rows.opens)]
    assert abs(weighed.mean()) < 1e-5 and abs(weighed.std() - 1) < 1e-4
    assert np.isfinite(known["explained_variance"].numerator)
    np.testing.assert_allclose(
        np.asarray(rows.log_prob)[mask], np.asarray(rows.sampled_log_prob)[mask], atol=1e-5
    )


def test_the_first_step_of_an_iteration_has_ratio_one_and_the_critic_learns(played, params):
    _, episodes = played
    rows, _ = prepare(params, episodes, CFG)

    @jit
    def first_step(params, rows):
        how = {"cfg": CFG, "layout": Layout(None, None)}
        return learn(turn_ppo.loss, params, optimizer(CFG).init(params), rows, None, **how)

    after, _, metrics = first_step(params, rows)
    assert float(metrics["ratio_error"].numerator) < 1e-5
    assert float(metrics["clip_fraction"].numerator) == 0
    assert float(jnp.abs(after.critic.weight).sum()) > 0  # the critic moved
    assert not np.array_equal(after.policy.embed[...], params.policy.embed[...])


def test_options_of_the_critic_are_checked():
    for options, words in [
        ({"gae_lambda": 1.5}, "gae_lambda=1.5 must lie in"),
        ({"num_minibatches": 3}, "num_minibatches=3 does not divide num_prompts=256"),
        ({"sft_coef": 0.1, "sft_episodes": 24}, "does not divide sft_episodes=24"),
        ({"sft_coef": 0.0}, "sft_coef=0.0 must be a finite number above 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            turn_ppo.Config(**options)
    assert turn_ppo.Config(sft_coef=0.1).sft_coef == 0.1

"""PPO on probe environments whose values and best policies are known on paper."""

from functools import partial

import jax
import numpy as np
import pytest
from one_of import one_of
from quick import jit

import envs
from envs.probe import value
from jaxrl.algos import ppo
from jaxrl.metrics import quotient
from jaxrl.spaces import Discrete
from jaxrl.wrappers import TimeLimit

GAMMA = 0.9
OBS = np.float32([[-1.0], [0.0], [1.0]])
PROBES = (
    value.OneStepReward(),
    value.ObsReward(),
    value.ActionReward(),
    value.ActionObsReward(),
    value.TwoStepDiscount(),
    value.Forever(),
)


OneOf = one_of(PROBES, Discrete(2))


def config(**options):
    return ppo.Config(
        **{
            "num_envs": 8,
            "num_steps": 8,
            "total_steps": 64 * 120,
            "num_epochs": 2,
            "num_minibatches": 2,
            "learning_rate": 0.02,
            "hidden": (16,),
            "gamma": GAMMA,
            "reset_pool": 8,
        }
        | options
    )


def train(env, key, cfg):
    """The last state after all of `cfg.total_steps`."""
    env = ppo.wrap(env, cfg)
    init_key, key = jax.random.split(key)
    state = ppo.init(init_key, cfg=cfg, env=env)
    keys = jax.random.split(key, cfg.num_iterations)
    return jax.lax.scan(partial(ppo.update, cfg=cfg, env=env), state, keys)


@pytest.fixture(scope="module")
def probes():
    """{probe: (values [3], probability of action 1 [3])} at observations -1, 0 and 1."""

    def learn(inputs):
        index, key = inputs
        state, _ = train(TimeLimit(OneOf(index), 5), key, config())
        pi = state.policy.distribution(OBS)
        return state.policy.value(OBS), jax.nn.softmax(pi.logits)[:, 1]

    inputs = np.arange(len(PROBES)), jax.random.split(jax.random.key(0), len(PROBES))
    values, chosen = (np.asarray(x) for x in jit(partial(jax.lax.map, learn))(inputs))
    return {type(probe).__name__: (values[i], chosen[i]) for i, probe in enumerate(PROBES)}


def test_the_value_of_a_reward_before_the_end_is_the_reward(probes):
    np.testing.assert_allclose(probes["OneStepReward"][0][2], 1.0, atol=0.05)


def test_the_value_follows_the_observation(probes):
    np.testing.assert_allclose(probes["ObsReward"][0][[0, 2]], [-1.0, 1.0], atol=0.05)


def test_a_reward_one_step_later_is_worth_gamma(probes):
    np.testing.assert_allclose(probes["TwoStepDiscount"][0][1:], [GAMMA, 1.0], atol=0.05)


def test_the_action_that_pays_is_taken(probes):
    assert probes["ActionReward"][1][2] > 0.95


def test_the_action_that_pays_at_this_observation_is_taken(probes):
    assert probes["ActionObsReward"][1][0] < 0.05 and probes["ActionObsReward"][1][2] > 0.95


def test_a_reward_for_ever_is_worth_1_over_1_minus_gamma_however_short_the_clock(probes):
    np.testing.assert_allclose(probes["Forever"][0][2], 1 / (1 - GAMMA), rtol=0.05)


@pytest.mark.parametrize("squash", [False, True])
def test_a_continuous_action_copies_its_observation(squash):
    """Target's bounds are -2 and 2, so the network has to say half of it."""
    cfg = config(squash=squash, entropy_coef=0.0)

    @jit
    def learn(key):
        state, metrics = train(envs.make("probe/Target-v0"), key, cfg)
        mode = ppo.trained_policy(state, cfg=cfg, env=envs.make("probe/Target-v0"))(OBS)
        return mode, quotient(metrics["episode_return"])

    mode, episode_return = (np.asarray(x) for x in learn(jax.random.key(0)))
    np.testing.assert_allclose(mode[[0, 2], 0], [-1.0, 1.0], atol=0.15)
    assert episode_return[-1] > -0.2 > episode_return[0]


def test_each_of_several_choices_is_learnt():
    @jit
    def learn(key):
        state, _ = train(envs.make("probe/MultiTarget-v0"), key, config())
        return state.policy.distribution(OBS).mode()

    mode = learn(jax.random.key(0))
    np.testing.assert_array_equal(mode[0], [0, 0])
    np.testing.assert_array_equal(mode[2], [1, 2])

"""PPO with a mask of legal actions: player, learner and evaluation keep to the same one."""

from functools import partial

import jax
import numpy as np
import pytest
from quick import jit

import envs
from jaxrl.algos import ppo
from jaxrl.evaluate import evaluate
from jaxrl.metrics import quotient


@pytest.fixture(scope="module", params=["mlp", "gru"])
def learnt(request):
    """(means of each iteration's metrics, the episodes of an evaluation) of PPO behind doors."""
    cfg = ppo.Config(
        num_envs=8,
        num_steps=16,
        total_steps=128 * 40,
        num_epochs=2,
        num_minibatches=2,
        learning_rate=0.02,
        hidden=(16,),
        network=request.param,
    )
    raw = envs.make("probe/Doors-v0", doors=4, open_doors=2)
    env = ppo.wrap(raw, cfg)

    @jit
    def run(key):
        init_key, key, evaluation_key = jax.random.split(key, 3)
        state = ppo.init(init_key, cfg=cfg, env=env)
        keys = jax.random.split(key, cfg.num_iterations)
        state, log = jax.lax.scan(partial(ppo.update, cfg=cfg, env=env), state, keys)
        policy = ppo.trained_policy(state, cfg=cfg, env=raw)
        return log, evaluate(policy.step, raw, evaluation_key, 32, memory=policy.begin())

    log, played = run(jax.random.key(0))
    return {name: np.asarray(jax.vmap(quotient)(x)) for name, x in log.items()}, played


def test_an_illegal_action_is_never_played_from_the_first_step_on(learnt):
    log, played = learnt
    np.testing.assert_array_equal(log["truncated_share"], 1.0)  # none was terminated
    np.testing.assert_array_equal(log["episode_length"], 16.0)
    np.testing.assert_array_equal(played.metrics["episode_length"], 16.0)
    assert np.max(log["first_ratio_error"]) < 1e-5  # under the mask of the rollout
    assert np.log(2) * 0.9 < log["entropy"][0] <= np.log(2) + 1e-6  # of two legal ones of four


def test_the_best_of_the_legal_actions_is_learnt(learnt):
    log, played = learnt
    assert log["episode_return"][0] < 10 and np.mean(played.episode_return) > 14


def test_without_the_mask_the_first_episodes_are_over_at_once():
    env = envs.make("probe/Doors-v0", masked=False)
    assert "legal" not in env.observation_space
    act = lambda obs, key: jax.random.randint(key, (), 0, 16)  # noqa: E731
    played = jit(lambda key: evaluate(act, env, key, 64))(jax.random.key(0))
    length = played.metrics["episode_length"]
    assert np.mean(length) < 2  # 4 / 3 on average
    np.testing.assert_array_equal(played.episode_return < length, True)

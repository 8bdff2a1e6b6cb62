"""Every option of the algorithms for language agents, on one small record of episodes."""

from dataclasses import replace
from typing import Any

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from jaxrl import sgd
from jaxrl.algos import grpo, reinforce, sft, turn_ppo
from jaxrl.lm.learn import batch as batches
from jaxrl.lm.learn.imitation import imitation_loss
from jaxrl.lm.learn.report import played_metrics
from jaxrl.lm.model.params import Params, zero_critic
from jaxrl.lm.play.rounds import Work
from jaxrl.metrics import HIDDEN, quotient

REWARD = np.array([[0, 1], [0, 0], [1, 1], [0, 0.5]])  # two groups of two, of two turns
OPTIONS: list[tuple[Any, dict[str, Any]]] = [
    *[(grpo, {"surrogate": name}) for name in ("clip", "gspo", "cispo")],
    *[(grpo, {"mean": name, "num_epochs": 2}) for name in ("sequence", "constant")],
    *[(grpo, {"kl": name, "kl_coef": 0.1}) for name in ("k1", "k2", "k3")],
    (grpo, {"best": 1}),
    (grpo, {"divide_by_std": False, "overlong": "penalise", "remat": True}),
    *[(reinforce, {"advantage": name}) for name in ("rebn", "returns", "rloo")],
    (reinforce, {"sample_std": True, "overlong": "mask", "entropy_coef": 0.01}),
    (turn_ppo, {}),
    (turn_ppo, {"overlong": "mask", "unread": "mask"}),
]
IDS = [f"{algorithm.__name__.split('.')[-1]}-{options}" for algorithm, options in OPTIONS]


def config(algorithm: Any, options: dict[str, Any]) -> Any:
    size = 2 if "best" in options else 4
    sizes = agents.SMALL | {"num_prompts": 2, "group_size": 2, "micro_batch": size}
    steps = {"num_minibatches": 1, "num_epochs": 1} if algorithm is turn_ppo else {}
    return algorithm.Config(**sizes | steps | options)


@pytest.fixture(scope="module")
def record():
    cut = np.zeros(REWARD.shape, bool)
    cut[3, 1] = True
    return agents.episodes(REWARD, cut=jnp.asarray(cut))


@pytest.mark.parametrize(("field", "part"), [("reward", "reward"), ("log_prob", "action")])
def test_what_was_not_finite_in_the_episodes_is_counted_and_not_logged(record, field, part):
    work = Work(jnp.float32(1), jnp.float32(1))
    x = getattr(record, field).at[1, 0].set(jnp.nan)
    found = played_metrics(record.replace(**{field: x}), work, record.action[:, 1:])
    counts = {part: float(found[HIDDEN + part].numerator) for part in ("action", "reward")}
    assert counts == {name: float(name == part) for name in counts}


WHOLE = [
    (grpo, {"kl": "k3", "num_epochs": 2, "remat": True}),
    (reinforce, {}),
    (turn_ppo, {}),
]


@pytest.mark.parametrize(("algorithm", "options"), WHOLE, ids=["grpo", "reinforce", "turn_ppo"])
def test_a_model_gets_a_finite_gradient_and_its_entropy_is_that_of_its_vocabulary(
    algorithm, options, record
):
    cfg = config(algorithm, {"micro_batch": 2} | options)
    params = agents.params(cfg.has_critic)
    reference = agents.params(cfg.has_critic, seed=1) if cfg.keeps_reference else None

    @jit
    def learned(params, reference, record, cfg):
        rows, known = algorithm.prepare(params, reference, record, cfg, None)
        grads, metrics = sgd.gradient(
            lambda p, r: algorithm.loss(p, r, cfg), params, rows, cfg.micro_batch
        )
        return rows, grads, known | metrics

    rows, grads, metrics = jax.device_get(learned(params, reference, record, cfg))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((rows, grads, metrics)))
    assert min(np.abs(x).max() for x in jax.tree.leaves(grads.policy)) > 0
    assert metrics["entropy"].denominator == rows.mask.sum() > 0
    assert abs(float(quotient(metrics["entropy"])) - np.log(260)) < 0.1


@pytest.fixture
def no_model(monkeypatch):
    """A policy is then the log-probs that it gives: an array [N, C-1]."""
    monkeypatch.setattr(
        batches,
        "after_prompts",
        lambda policy, rows, cfg, critic: batches.Prediction(
            policy, -policy, critic and critic(policy[..., None])
        ),
    )
    monkeypatch.setattr(batches, "hidden_states", lambda policy, token, remat: policy[..., None])
    monkeypatch.setattr(
        batches, "token_log_prob", lambda policy, hidden, target, chunk, at: (policy, -policy)
    )


def slope_of(loss: Any, log_prob: jax.Array) -> np.ndarray:
    """The gradient of a loss's numerator along each log-prob."""
    return np.asarray(jax.grad(lambda x: loss(x)[0].numerator)(log_prob))


def likely(record: Any, prompt: float, policy: float) -> jax.Array:
    """Log-probs [N, C-1]: of the environment's tokens, and about that of the policy's."""
    action = record.action[:, 1:]
    return jnp.where(action, policy - jnp.linspace(0, 0.1, action.shape[1]), prompt)


@pytest.mark.parametrize(("algorithm", "options"), OPTIONS, ids=IDS)
def test_tokens_outside_the_mask_have_gradient_0_however_unlikely_they_are(
    algorithm, options, record, no_model
):
    """A prompt's token may be 88 nats below the reference, and e to that power infinite."""
    cfg = config(algorithm, options)
    critic = zero_critic(1) if cfg.has_critic else None
    log_prob = likely(record, -200.0, -2.0)
    reference = Params(likely(record, 0.0, -1.5)) if cfg.keeps_reference else None
    index = jnp.asarray([1, 2] if "best" in options else range(4), jnp.int32)

    @jit
    def learned(log_prob, reference, record):
        rows, known = algorithm.prepare(Params(log_prob, critic), reference, record, cfg, None)

        def loss(x):
            value, metrics = algorithm.loss(Params(x, critic), rows, cfg)
            return value.numerator, metrics | known

        return rows, *jax.grad(loss, has_aux=True)(log_prob[index])

    rows, slope, metrics = jax.device_get(learned(log_prob, reference, record))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((rows, slope, metrics)))
    assert not slope[~rows.mask].any() and np.abs(slope[rows.mask]).max() > 1e-3
    assert not rows.advantage[~rows.mask].any()


@pytest.mark.parametrize("on", ["actions", "all"])
def test_imitation_learns_what_was_said_in_full_and_read_in_full(on, record, no_model):
    cfg = sft.Config(**{k: agents.SMALL[k] for k in ("micro_batch", "sft_episodes")}, sft_on=on)
    log_prob = likely(record, -200.0, -2.0)
    inside = np.arange(1, record.token.shape[1]) < np.asarray(record.length)[:, None]
    action = np.asarray(record.action)[:, 1:]
    cut = np.asarray(record.turn)[3, 1:] == 1
    expected = inside & (action if on == "actions" else True)
    expected[3] &= ~(action[3] & cut)
    slope = slope_of(lambda x: imitation_loss(Params(x), record, cfg), log_prob)
    np.testing.assert_array_equal(slope, -expected.astype(np.float32))
    masked = replace(cfg, unread="mask")
    unread = record.replace(unread=jnp.asarray([False, True, False, False]))
    slope = slope_of(lambda x: imitation_loss(Params(x), unread, masked), log_prob)
    assert not slope[1].any() and slope[0].any()


def test_an_episode_that_was_not_read_is_learned_from_unless_masked(record):
    unread = record.replace(unread=jnp.asarray([True, False, False, False]))
    for algorithm in (grpo, reinforce):
        for choice, learned in (("stop", True), ("mask", False)):
            cfg = config(algorithm, {"unread": choice})
            rows, _ = algorithm.prepare(None, None, unread, cfg, None)
            assert bool(rows.mask[0].any()) == learned and rows.mask[1].any()


def test_a_group_is_uniform_by_the_reward_that_is_learned_from(record):
    """The second group's returns are equal, but one of its responses was cut."""
    cut = jnp.zeros(REWARD.shape, bool).at[3, 1].set(True)
    equal = record.replace(reward=jnp.asarray([[0, 1], [0, 0], [1, 0], [0, 1.0]]), cut=cut)
    for overlong, uniform in (("keep", 1), ("penalise", 0)):
        cfg = config(grpo, {"overlong": overlong})
        _, metrics = grpo.prepare(None, None, equal, cfg, None)
        assert metrics["uniform_groups"] == (uniform, 2)

"""PPO against a reward model: rewards and advantages of tokens, and who learns when."""

from dataclasses import replace
from functools import partial
from typing import Any

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import jit

from jaxrl import advantages
from jaxrl.algos import grpo, reward_model, token_ppo
from jaxrl.lm import learn
from jaxrl.lm.learn.agent import load_judge
from jaxrl.lm.learn.judge import paid_by, scores
from jaxrl.lm.model.params import Critic, Params
from jaxrl.lm.model.transformer import Transformer
from jaxrl.metrics import quotient

SMALL: dict[str, Any] = agents.SMALL | {"micro_batch": 4, "num_minibatches": 1}
CFG = token_ppo.Config(**SMALL, overlong="keep", kl_coef=0.5)
REWARD = np.array([[0, 1], [0, -2], [0, 0.5], [0, 3]], np.float32)
JUDGE_SIZE = replace(agents.MODEL, width=16, head_dim=16, context=agents.agent().limits.context)


def judge(seed: int = 7) -> Params:
    trunk = Transformer(JUDGE_SIZE, nnx.Rngs(params=jax.random.key(seed)))
    weight = np.random.default_rng(seed).normal(size=16).astype(np.float32)
    return Params(trunk, Critic(jnp.asarray(weight), jnp.float32(0.25)))


MASK = np.array(
    [[0, 1, 1, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0, 0]], bool
)
TURN = np.array([[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1]])


def test_a_tokens_reward_is_its_kl_and_the_turns_reward_at_the_last_of_the_turn():
    kl = np.random.default_rng(1).normal(size=MASK.shape).astype(np.float32)
    reward = np.array([[1, 5], [2, -7], [3, 100]], np.float32)  # the last has no second turn
    got = advantages.token_reward(
        jnp.asarray(reward), jnp.asarray(kl), jnp.asarray(TURN), jnp.asarray(MASK), 0.5
    )
    paid = np.zeros(MASK.shape)
    paid[0, 2], paid[0, 7], paid[1, 3], paid[1, 6], paid[2, 0] = 1, 5, 2, -7, 3
    np.testing.assert_allclose(got, paid - 0.5 * np.where(MASK, kl, 0), rtol=1e-6)
    total = reward.sum(1) - [0, 0, 100] - 0.5 * np.where(MASK, kl, 0).sum(1)
    np.testing.assert_allclose(np.sum(got, 1), total, rtol=1e-5)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.0), (0.9, 0.7)])
def test_advantages_of_tokens_are_those_of_the_sampled_tokens_alone_side_by_side(gamma, lam):
    reward, value = np.random.default_rng(2).normal(size=(2, *MASK.shape)).astype(np.float32)
    given = jnp.asarray(reward), jnp.asarray(value), jnp.asarray(MASK)
    got = advantages.token_gae(*given, gamma, lam)
    for row, mask in enumerate(MASK):
        r, v = reward[row, mask], np.append(value[row, mask], 0.0)
        trace, expected = 0.0, np.zeros(len(r))
        for t in range(len(r) - 1, -1, -1):
            trace = r[t] + gamma * v[t + 1] - v[t] + gamma * lam * trace
            expected[t] = trace
        np.testing.assert_allclose(np.asarray(got)[row, mask], expected, rtol=2e-5, atol=1e-6)
        if gamma == lam == 1.0:  # then the return to go, less the value
            np.testing.assert_allclose(expected, np.cumsum(r[::-1])[::-1] - v[:-1], rtol=1e-5)
    assert not np.any(np.asarray(got)[~MASK])


def test_estimates_of_the_kl_have_its_mean_and_its_gradient_where_they_should():
    """Over all tokens of a small vocabulary, by the probabilities themselves."""
    with jax.enable_x64(True):
        logit, ref = jnp.asarray(np.random.default_rng(3).normal(size=(2, 6)))
        ref = jax.nn.log_softmax(ref)

        def log_p(x):
            return jax.nn.log_softmax(x)

        def kl(x):
            return jnp.sum(jnp.exp(log_p(x)) * (log_p(x) - ref))

        def of_samples(estimate, x):  # the mean of its gradients, as a loss of samples
            weight = jax.lax.stop_gradient(jnp.exp(log_p(x)))
            return jnp.sum(weight * estimate(log_p(x), ref))

        for name in ("k1", "k3"):
            estimate = token_ppo.ESTIMATES[name]
            np.testing.assert_allclose(of_samples(estimate, logit), kl(logit), rtol=1e-10)
        slope = jax.grad(kl)(logit)
        step = 1e-6 * jnp.eye(6)
        rise = jax.vmap(lambda d: (kl(logit + d) - kl(logit - d)) / 2e-6)(step)
        np.testing.assert_allclose(slope, rise, atol=1e-8)
        of = {n: jax.grad(partial(of_samples, f))(logit) for n, f in token_ppo.ESTIMATES.items()}
        np.testing.assert_allclose(of["k2"], slope, atol=1e-12)
        np.testing.assert_allclose(of["k1"], 0, atol=1e-12)
        assert np.abs(of["k3"] - slope).max() > 1e-2


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_a_kl_in_the_reward_is_bounded_and_0_where_the_policy_is_its_reference(name):
    cfg = replace(CFG, kl=name)
    ours, refs = jnp.asarray([[-200.0, -1.0, -3.0], [0.0, -1.0, -2.5]])
    far = token_ppo.bounded_kl(ours, refs, cfg)
    assert np.abs(far).max() <= 10 and far[1] == 0
    expected = {"k1": -0.5, "k2": 0.125, "k3": np.expm1(0.5) - 0.5}[name]
    np.testing.assert_allclose(far[2], expected, rtol=1e-5)


@pytest.fixture(scope="module")
def prepared():
    """(batch, metrics, loss, its metrics, params, reference, episodes)"""
    params = agents.params().replace(critic=judge(3))
    reference = agents.params(seed=1)
    episodes = agents.episodes(REWARD)

    @jit
    def run(params, reference, episodes):
        batch, known = token_ppo.prepare(params, reference, episodes, CFG, None)
        return batch, known, *token_ppo.loss(params, batch, CFG)

    return *run(params, reference, episodes), params, reference, episodes


def test_a_batch_is_that_of_numpy_from_the_models_log_probs_and_values(prepared):
    batch, known, total, metrics, params, reference, episodes = prepared
    mask, turn = np.asarray(episodes.action[:, 1:]), np.asarray(episodes.turn[:, 1:])

    @jit
    def read(policy):
        return learn.predict(policy, episodes.token, jnp.asarray(mask), CFG).log_prob

    ours, refs = np.asarray(read(params.policy)), np.asarray(read(reference.policy))
    np.testing.assert_allclose(batch.log_prob, ours, atol=1e-5)
    ratio = np.where(mask, ours - refs, 0)
    np.testing.assert_allclose(quotient(known["episode_kl"]), ratio.sum(1).mean(), rtol=1e-4)
    value = np.asarray(batch.value)
    paid = -0.5 * ratio
    for row in range(4):
        for t in range(2):
            paid[row, np.flatnonzero(mask[row] & (turn[row] == t))[-1]] += REWARD[row, t]
    given = jnp.asarray(paid), jnp.asarray(value), jnp.asarray(mask)
    raw = np.asarray(advantages.token_gae(*given, 1.0, 0.95))
    np.testing.assert_allclose(batch.value_target, np.where(mask, raw + value, 0), atol=1e-4)
    white = (raw[mask] - raw[mask].mean()) / raw[mask].std()
    np.testing.assert_allclose(np.asarray(batch.advantage)[mask], white, atol=1e-4)
    assert quotient(metrics["ratio_error"]) == 0 and quotient(metrics["clip_fraction"]) == 0
    error = 0.5 * np.square(value[mask] - np.asarray(batch.value_target)[mask])
    np.testing.assert_allclose(total.numerator, (error - white).sum(), rtol=1e-3)
    assert total.denominator == mask.sum()


def test_the_critic_begins_as_the_reward_model_and_reads_before_each_token(prepared):
    """What it expects before the token after the last one is the reward model's score."""
    batch, episodes, critic = prepared[0], prepared[6], prepared[4].critic
    at = 5  # a place after the prompt
    cut = episodes.replace(length=jnp.full(4, at + 1, jnp.int32))
    found = jit(lambda j, e: scores(j, e, CFG, 1))(critic, cut)
    np.testing.assert_allclose(np.asarray(batch.value)[:, at], found, rtol=1e-4)


def test_a_score_is_the_reward_models_own_and_the_reward_of_the_last_turn_alone():
    cfg = reward_model.Config(num_prompts=2, num_lanes=4, micro_batch=4)
    record, judged = agents.episodes(REWARD), judge()
    token = record.token.at[1::2, : record.first].set(record.token[::2, : record.first])
    played = jnp.asarray([[True, True], [True, False], [True, True], [True, True]])
    record = record.replace(token=token, played=played, length=jnp.asarray([11, 8, 14, 9]))
    score = jit(lambda j, e: scores(j, e, CFG, 2))(judged, record)
    alone = jit(lambda j, e: scores(j, e, CFG, 1))(judged, record)
    np.testing.assert_allclose(score, alone, rtol=1e-4, atol=1e-5)
    pairs, _ = learn.pairs_of(None, None, None, record, cfg, None)
    expected = jit(partial(reward_model.reward_of, cfg=cfg))(judged, pairs)
    np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-5)
    paid = paid_by(jnp.asarray([0.5, 1e6, -3.0, -1e6]), record)
    assert paid.reward.tolist() == [[0, 0.5], [10, 0], [0, -3], [0, -10]]


def started(cfg, **options):
    """(update, state [no K], agent) of an agent that this judge judges."""
    mine = agents.agent(agents.Parrot(turns=1), judge=JUDGE_SIZE, **options)
    state = token_ppo.init(jax.random.key(0), cfg=cfg, agent=mine)
    stacked = load_judge(jax.tree.map(lambda x: x[None], state), jax.tree.map(np.asarray, judge()))
    return jax.tree.map(lambda x: x[0], stacked), mine


def test_the_critic_learns_alone_at_first_and_the_judge_and_the_reference_never():
    cfg = token_ppo.Config(**SMALL, critic_alone=1, learning_rate=0.01, weight_decay=0.1)
    state, mine = started(cfg)
    jax.tree.map(np.testing.assert_array_equal, state.params.critic, judge())
    update = jit(partial(token_ppo.update, agent=mine, cfg=cfg))
    states, logs = [jax.tree.map(np.asarray, state)], []
    for i in range(2):
        state, log = update(state, jax.random.key(i))
        states.append(jax.tree.map(np.asarray, state))
        logs.append({name: float(quotient(x)) for name, x in log.items()})

    def moved(a, b, part):
        pairs = zip(jax.tree.leaves(part(a)), jax.tree.leaves(part(b)), strict=True)
        return max(float(np.abs(x - y).max()) for x, y in pairs)

    first, second, third = states
    assert moved(first, second, lambda s: s.params.policy) == 0
    assert moved(second, third, lambda s: s.params.policy) > 1e-3
    assert moved(first, second, lambda s: s.params.critic.policy) > 1e-5
    assert moved(first, second, lambda s: s.params.critic.critic) > 1e-5
    for part in (lambda s: s.judge, lambda s: s.reference):
        assert moved(first, third, part) == 0
    assert logs[0]["episode_kl"] == 0 == logs[0]["kl_to_reference"] == logs[0]["learning_rate"]
    assert {"score", "episode_return", "explained_variance", "value_loss"} <= logs[0].keys()


def test_groups_are_compared_by_the_reward_models_scores_where_one_judges():
    sizes: dict[str, Any] = {"num_prompts": 32, "num_lanes": 64, "total_episodes": 64 * 40}
    cfg = grpo.Config(**agents.SMALL | sizes, group_size=2, learning_rate=0.03)
    mine = agents.agent(agents.Parrot(turns=1, response_bytes=1), judge=JUDGE_SIZE)
    program, of = agents.program(grpo, cfg, mine, max_count=40)
    state = load_judge(program.init(program.place(of)), jax.tree.map(np.asarray, judge()))
    _, log = program.run(state, of, 40)
    score = [agents.means(log, i)["score"] for i in range(40)]
    assert np.mean(score[-5:]) > np.mean(score[:5]) + 1.0, score

"""PPO's update and its parts: ratios, clips, schedules, statistics, and what its options do."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit
from small_ppo import BASE, RATE, config, small_policy

import envs
from jaxrl import distributions, on_policy, sgd
from jaxrl.algos import ppo
from jaxrl.metrics import Sums, quotient
from jaxrl.normalize import RunningStats
from jaxrl.resets import fill_all
from jaxrl.rollout import Decision, Transition, begin, rollout
from jaxrl.spaces import Box, Discrete
from jaxrl.wrappers import EpisodeStats, TimeLimit


def start(cfg, **fields):
    """(a fresh state, `update` as a program) on FreshRandomness."""
    env = ppo.wrap(envs.make("probe/FreshRandomness-v0", **fields), cfg)
    state = jit(partial(ppo.init, cfg=cfg, env=env))(jax.random.key(0))
    return state, jit(partial(ppo.update, cfg=cfg, env=env))


def differences(a, b):
    """Every absolute difference between two trees' numbers, as one array."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return np.concatenate([np.abs(np.asarray(x) - np.asarray(y)).ravel() for x, y in pairs])


def epochs_and_order(step, carry, rows, order, extra):
    """`sgd.epochs` with one more metric, a number that tells orders apart."""
    carry, learning = sgd.epochs(step, carry, rows, order, extra)
    digest = jnp.sum(order.ravel() ** 2 * jnp.arange(order.size)).astype(jnp.float32)
    count = order.shape[0] * order.shape[1]
    return carry, learning | {"order": Sums(jnp.full(count, digest), jnp.ones(count))}


def means(metrics):
    """name -> mean of an update's Sums."""
    return {name: quotient(sums) for name, sums in metrics.items()}


def keys():
    return [jax.random.key(100 + i) for i in range(4)]


@pytest.fixture(scope="module")
def base():
    """(states before and after each of 4 updates, their metrics, the program) of BASE."""
    state, update = start(BASE)
    states, log = [state], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo, "sgd", SimpleNamespace(**vars(sgd) | {"epochs": epochs_and_order}))
        for key in keys():
            with jax.transfer_guard("disallow"):
                state, metrics = update(state, key)
            states.append(state)
            log.append(metrics)
    return states, log, update


def test_the_first_minibatch_of_every_update_has_ratio_1_and_clips_nothing(base):
    for metrics in map(means, base[1]):  # its only minibatch is the first
        assert metrics["first_ratio_error"] < 1e-6
        assert metrics["clip_fraction"] == 0
        assert metrics["approx_kl"] < 1e-6


def test_observations_are_counted_once_and_only_after_the_loss_has_seen_them(base):
    states, _, _ = base
    assert [float(s.obs_stats.count) for s in states] == [0, 32, 64, 96, 128]
    np.testing.assert_allclose(states[-1].obs_stats.mean, [0.5] * 4, atol=0.15)
    assert np.min(differences(states[0].obs_stats.mean, states[1].obs_stats.mean)) > 0.1


def test_updates_move_both_networks_and_count_themselves(base):
    states, _, _ = base
    assert [int(s.iteration) for s in states] == [0, 1, 2, 3, 4]
    for before, after in pairwise(states):
        assert np.max(differences(before.policy.actor, after.policy.actor)) > RATE / 2
        assert np.max(differences(before.policy.critic, after.policy.critic)) > RATE / 2


def test_every_update_plays_on_with_new_randomness(base):
    obs = np.stack([state.carry.obs for state in base[0]])
    assert len(np.unique(obs)) == obs.size


def test_every_update_shuffles_its_rows_anew(base):
    orders = [float(metrics["order"].numerator) for metrics in base[1]]
    in_time_order = float(np.sum(np.arange(32) ** 3))
    assert len({*orders, in_time_order}) == 5


def test_the_program_is_traced_once_for_all_updates(base):
    assert base[2]._cache_size() == 1


def test_every_metric_is_two_finite_float32_scalars(base):
    for sums in base[1]:
        for name, pair in sums.items():
            assert isinstance(pair, Sums), name
            for part in pair:
                assert part.shape == () and part.dtype == jnp.float32, name
                assert np.isfinite(part), name
        # One reward of 1 per step, so returns are lengths; nothing truncates.
        metrics = means(sums)
        assert metrics["episode_return"] == metrics["episode_length"] > 1
        assert metrics["truncated_share"] == 0


@pytest.fixture(scope="module")
def played(base):
    """The first update's (carry, transitions, ended) on the host, and its key for `learn`."""
    env = ppo.wrap(envs.make("probe/FreshRandomness-v0"), BASE)

    @jit
    def run(state, key):
        pool_key, rollout_key, learn_key = jax.random.split(key, 3)
        index = jnp.arange(4)
        pool = fill_all(env, pool_key, index, max(2, BASE.num_steps // 8))
        act = partial(on_policy.act, state.policy, state.obs_stats)
        draw = partial(distributions.noise, env.action_space)
        carry, _, steps, ended = rollout(
            env, state.carry, pool, act, draw, rollout_key, index, BASE.num_steps
        )
        return (carry, steps, ended), learn_key

    rolled, learn_key = run(base[0][0], keys()[0])
    return *jax.device_get(rolled), learn_key


def test_learn_after_a_rollout_is_update_bit_for_bit(base, played):
    """The cut at which environments on the host enter."""
    (before, after, *_), log, _ = base
    state, metrics = jit(partial(ppo.learn, cfg=BASE))(before, *played)
    jax.tree.map(np.testing.assert_array_equal, state, after)
    for name, sums in metrics.items():
        assert sums == log[0][name], name


def test_a_gradient_in_four_pieces_is_the_gradient(base, played):
    states, log, _ = base
    state, metrics = jit(partial(ppo.learn, cfg=config(accumulate=4)))(states[0], *played)
    for name, value in means(metrics).items():
        expected = quotient(log[0][name])
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6, err_msg=name)
    assert np.max(differences(state.opt_state, states[1].opt_state)) < 1e-6
    assert np.max(differences(state.policy, states[1].policy)) < 1e-6


def test_the_state_keeps_no_pool_of_resets(base):
    state, cfg = base[0][0], config(reset_pool=7)
    env = ppo.wrap(envs.make("probe/FreshRandomness-v0"), cfg)
    with_seven = jax.eval_shape(partial(ppo.init, cfg=cfg, env=env), jax.random.key(0))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert not [path for path in paths if "pool" in path or "used" in path]
    same = jax.tree.map(lambda x, y: x.shape == y.shape, state, with_seven)
    assert all(jax.tree.leaves(same))


def test_choices_among_the_observations_can_be_left_to_the_normaliser():
    env = ppo.wrap(envs.make("GridWorld-v0"), BASE)  # it observes a Discrete
    state = jax.eval_shape(partial(ppo.init, cfg=BASE, env=env), jax.random.key(0))
    after, _ = jax.eval_shape(partial(ppo.update, cfg=BASE, env=env), state, jax.random.key(0))
    assert after.obs_stats is None and after.carry.obs.dtype == jnp.int32


@pytest.fixture(scope="module")
def stopped():
    """One update of 8 minibatches under a tiny target_kl, where every step ends an episode and the
    pool holds one reset: (state before, state after, metrics)."""
    cfg = config(target_kl=1e-9, reset_pool=1, num_epochs=2, num_minibatches=4)
    before, update = start(cfg, end_probability=1.0)
    after, metrics = update(before, jax.random.key(0))
    return before, after, means(metrics)


def test_minibatches_after_the_target_kl_are_skipped_and_change_nothing(stopped):
    before, after, metrics = stopped
    assert metrics["minibatches_skipped"] == 7 / 8
    counts = [x for x in jax.tree.leaves(after.opt_state) if x.dtype == jnp.int32]
    assert counts and all(count == 1 for count in counts)
    moved = differences(before.policy, after.policy)  # Adam's first step moves by the rate
    np.testing.assert_allclose(moved.max(), RATE, rtol=0.01)


def test_resets_that_the_pool_lacked_are_in_the_metrics(stopped):
    metrics = stopped[2]
    assert metrics["episodes"] == 32 and metrics["pool_exhausted"] == 4 * 7
    assert metrics["episode_return"] == metrics["episode_length"] == 1


class StubCritic(flax.struct.PyTreeNode):
    def value(self, obs):
        return obs[..., 0]


def prepared(env, cfg):
    """(transitions, rows) of one rollout, with the observation as its own value."""
    env = EpisodeStats(env)

    @jit
    def run(key):
        begin_key, pool_key, key = jax.random.split(key, 3)
        index = jnp.arange(2)
        carry, pool = begin(env, begin_key, index), fill_all(env, pool_key, index, 8)
        act = lambda memory, obs, noise: (memory, Decision(noise, noise))  # noqa: E731
        draw = lambda key, shape: jnp.zeros(shape, jnp.int32)  # noqa: E731
        _, _, steps, _ = rollout(env, carry, pool, act, draw, key, index, 7)
        state = SimpleNamespace(policy=StubCritic(), obs_stats=None)
        return steps, ppo.prepare(state, steps, cfg)

    return jax.tree.map(np.asarray, run(jax.random.key(0)))


@pytest.mark.parametrize(
    ("length", "limit", "end"),
    [
        (100, 3, 1 + 0.5 * 3 - 2),  # truncated at observation 3, whose value is 3
        (3, 100, 1 - 2),  # terminated there: worth nothing
        (3, 3, 1 - 2),  # both: terminated
    ],
)
def test_a_stub_critic_is_asked_about_where_the_action_led_and_not_the_next_episode(
    length, limit, end
):
    env = TimeLimit(envs.make("probe/Counter-v0", episode_length=length), limit)
    _, rows = prepared(env, config(gamma=0.5, gae_lambda=0.0))
    advantage = np.repeat([1 + 0.5 - 0, 1 + 0.5 * 2 - 1, end, 1.5, 1, end, 1.5], 2)
    np.testing.assert_array_equal(rows.advantage, advantage)
    np.testing.assert_array_equal(rows.value, np.repeat([0, 1, 2, 0, 1, 2, 0], 2))
    np.testing.assert_array_equal(rows.target, rows.advantage + rows.value)


def test_rows_go_through_the_environments_of_a_step_before_the_next_step():
    steps, rows = prepared(envs.make("probe/FreshRandomness-v0"), BASE)
    np.testing.assert_array_equal(rows.obs[5 * 2 + 1], steps.obs[5, 1])
    np.testing.assert_array_equal(rows.value, steps.obs[..., 0].ravel())


def test_rewards_are_scaled_by_the_spread_of_returns_that_end_with_their_episode():
    reward = np.float32([[4.0, 0.0], [2.0, 8.0], [6.0, 2.0]])
    done = np.array([[False, False], [True, False], [False, True]])
    running = np.float32([[5, 1], [4.5, 8.5], [6, 6.25]])  # gamma 0.5, from 2 in both
    for terminated, truncated in ((done, done & False), (done & False, done)):
        steps = Transition(None, None, None, reward, terminated, truncated, None)
        state = ppo.State(None, None, None, None, RunningStats.init(), jnp.full(2, 2.0), 0)
        state, scaled = ppo.scale_rewards(state, steps, config(gamma=0.5), None)
        np.testing.assert_allclose(scaled.reward, reward / running.std(), rtol=1e-5)
        np.testing.assert_allclose(state.reward_stats.mean, running.mean(), rtol=1e-6)
        np.testing.assert_array_equal(state.discounted, [6, 0])


@pytest.mark.parametrize("how", ["minibatch", "batch", "none"])
def test_advantages_are_normalised_over_what_the_option_says(how):
    advantage = np.float32([1, 2, 3, 4, 10, 20])
    order = np.array([[[0, 5], [1, 4], [2, 3]]], np.int32)
    mean, std = ppo.advantage_moments(advantage, order, config(advantage_norm=how), None)
    if how == "minibatch":
        expected = [10.5, 6, 3.5], [9.5, 4, 0.5]
    else:
        whole = advantage if how == "batch" else np.float32([-1, 1])
        expected = [whole.mean()] * 3, [whole.std()] * 3
    np.testing.assert_allclose(mean, expected[0], rtol=1e-6)
    np.testing.assert_allclose(std, expected[1], rtol=1e-6)


@pytest.mark.parametrize("value_clip", [None, 0.5])
def test_the_loss_is_the_weighted_sum_of_its_parts_and_its_metrics_are_theirs(value_clip):
    policy, rng = small_policy(Discrete(3)), np.random.default_rng(1)
    obs = np.float32(rng.normal(size=(20, 2)))
    action = rng.integers(0, 3, 20).astype(np.int32)
    old, advantage, target, old_value = np.float32(rng.normal(size=(4, 20)))
    batch = ppo.Batch(obs, action, old - 1, old_value, advantage, target)
    cfg = config(value_clip=value_clip, value_coef=0.7, entropy_coef=0.3, clip_eps=0.25)
    total, metrics = jit(partial(ppo.loss, cfg=cfg))(policy, batch)
    metrics = means(metrics | {"loss": total})

    pi, value = jit(lambda p: (p.distribution(obs), p.value(obs)))(policy)
    log_p = np.asarray(jax.nn.log_softmax(pi.logits), np.float64)
    ratio = np.exp(log_p[np.arange(20), action] - batch.log_prob)
    surrogate = np.minimum(ratio * advantage, np.clip(ratio, 0.75, 1.25) * advantage)
    error = (np.asarray(value) - target) ** 2
    if value_clip:
        near = old_value + np.clip(value - old_value, -value_clip, value_clip)
        error = np.maximum(error, (near - target) ** 2)
    entropy = -(np.exp(log_p) * log_p).sum(-1).mean()
    expected = {
        "policy_loss": -surrogate.mean(),
        "value_loss": error.mean() / 2,
        "entropy": entropy,
        "loss": -surrogate.mean() + 0.7 * error.mean() / 2 - 0.3 * entropy,
        "approx_kl": (ratio - 1 - np.log(ratio)).mean(),
        "clip_fraction": (np.abs(ratio - 1) > 0.25).mean(),
    }
    for name, want in expected.items():
        np.testing.assert_allclose(metrics[name], want, rtol=1e-4, err_msg=name)
    assert total.denominator == 20 and 0 < metrics["clip_fraction"] < 1


@pytest.mark.parametrize("squash", [False, True])
def test_the_environment_squashes_the_action_and_the_loss_sees_the_one_before(squash):
    policy = small_policy(Box(-1.0, 1.0, (3,)), squash)
    obs, noise = (np.float32(np.random.default_rng(1).normal(size=(7, n))) for n in (2, 3))
    run = jit(lambda p, obs, noise: (on_policy.act(p, None, (), obs, noise), p.distribution(obs)))
    (memory, decision), pi = run(policy, obs, noise)
    action, log_prob = decision.action, decision.aux
    assert memory == ()
    np.testing.assert_allclose(action, pi.mean + np.exp(pi.log_std) * noise, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(log_prob, jit(lambda pi, a: pi.log_prob(a))(pi, action), rtol=1e-4)


def test_once_stopped_even_a_minibatch_without_divergence_is_skipped():
    policy = small_policy(Discrete(3))
    obs, one = np.ones((4, 2), np.float32), np.ones(4, np.float32)
    cfg = config(target_kl=10.0)

    @jit
    def run(policy, live):
        log_prob = policy.distribution(obs).log_prob(jnp.zeros(4, jnp.int32))
        batch = ppo.Batch(obs, jnp.zeros(4, jnp.int32), log_prob, one, one, one)
        carry, moments = (policy, ppo.optimizer(cfg).init(policy), live), (0.0, 1.0)
        return carry, ppo.minibatch_step(carry, (batch, moments), rate=RATE, cfg=cfg, axis=None)

    for live in (True, False):
        before, (after, metrics) = run(policy, np.asarray(live))
        assert quotient(metrics["approx_kl"]) < 1e-6 and bool(after[2]) == live
        assert (np.max(differences(before[:2], after[:2])) > RATE / 2) == live

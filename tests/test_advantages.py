"""Advantages of language agents: by hand, against plain loops in float64, and over devices."""

import beartype
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import TypeCheckError, jaxtyped
from quick import jit

from jaxrl import advantages, returns

checked = jaxtyped(typechecker=beartype.beartype)  # the signatures' shapes hold, in and out
group_advantage = jit(checked(advantages.group_advantage), static_argnums=(1, 2))
rloo_advantage = jit(checked(advantages.rloo_advantage), static_argnums=1)
best_of_groups = jit(checked(advantages.best_of_groups), static_argnums=(1, 2, 3))
uniform_groups = jit(checked(advantages.uniform_groups), static_argnums=1)
whiten = jit(checked(advantages.whiten), static_argnums=(2, 3))
turn_return = jit(checked(advantages.turn_return), static_argnums=2)
rebn_advantage = jit(checked(advantages.rebn_advantage), static_argnums=(2, 3, 4))
turn_gae = jit(checked(advantages.turn_gae), static_argnums=(5, 6))
kl_in_reward = jit(checked(advantages.kl_in_reward), static_argnums=5)
to_tokens = jit(checked(advantages.to_tokens))

N, U, S = 8, 5, 12
GAMMA, LAM = 0.9, 0.8


def array(*numbers):
    return np.asarray(numbers, np.float32)


def random_turns(seed=0):
    """reward, value [N, U], the mask of the turns played and how many those are, 1 to U."""
    rng = np.random.default_rng(seed)
    reward, value = rng.normal(size=(2, N, U)).astype(np.float32)
    played = np.array([1, 2, 3, 4, 5, 5, 1, 3])
    mask = np.arange(U) < played[:, None]
    return reward, value, mask, played


def spoilt(x, mask):
    """What nobody played holds anything."""
    return np.where(mask, x, np.nan).astype(np.float32)


def random_tokens(seed=0):
    """turn [N, S] of each token and the mask of those that were sampled; -1 where there is none."""
    rng = np.random.default_rng(seed)
    turn = np.sort(rng.integers(0, U, (N, S)), 1).astype(np.int32)
    mask = rng.random((N, S)) < 0.6
    return np.where(mask, turn, -1).astype(np.int32), mask


def test_the_best_of_each_group_keep_the_advantage_over_all_of_it():
    returns = array(0, 2, 1, 5, 5, 5, 3, 3, 9)
    index, relative = best_of_groups(returns, 3, 1, False)
    assert index.tolist() == [1, 3, 8]
    np.testing.assert_allclose(relative, [1, 0, 4])
    index, relative = best_of_groups(returns, 3, 2, True)
    assert index.tolist() == [1, 2, 3, 4, 8, 6]
    np.testing.assert_allclose(relative, group_advantage(returns, 3, True)[index])


def test_the_group_advantage_compares_with_the_own_group_only():
    got = group_advantage(array(1, 3, 10, 20), 2, False)
    np.testing.assert_allclose(got, [-1, 1, -5, 5])
    np.testing.assert_allclose(group_advantage(array(1, 3, 10, 20), 2, True), [-1, 1, -1, 1], 1e-5)


def test_the_group_advantage_divides_by_the_population_std():
    got = group_advantage(array(0, 0, 0, 1), 4, True)
    std = np.sqrt(3) / 4  # the sample std is 1/2
    np.testing.assert_allclose(got, (array(0, 0, 0, 1) - 0.25) / std, rtol=1e-5)


def test_the_group_advantage_equals_a_plain_loop():
    episode_return = np.random.default_rng(0).normal(5.0, 2.0, 24).astype(np.float32)
    groups = [episode_return[i : i + 8].astype(float) for i in range(0, 24, 8)]
    for divide in (True, False):
        expected = [(g - g.mean()) / (g.std() + 1e-6 if divide else 1) for g in groups]
        got = group_advantage(episode_return, 8, divide)
        np.testing.assert_allclose(got, np.concatenate(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("everyone", [0.1, 0.7, -3.3, 1e4])
def test_where_all_returns_are_equal_every_advantage_is_0_and_not_rounding_blown_up(everyone):
    same = np.full(7, everyone, np.float32)
    for got in (
        group_advantage(same, 7, True),
        group_advantage(same, 7, False),
        rloo_advantage(same, 7),
        whiten(same, np.ones(7, bool)),
    ):
        np.testing.assert_array_equal(got, np.zeros(7))


def test_rloo_takes_the_mean_of_the_others_as_baseline():
    episode_return = np.random.default_rng(1).normal(size=12).astype(np.float32)
    expected = []
    for i, own in enumerate(episode_return):
        start = i - i % 4
        others = [episode_return[j] for j in range(start, start + 4) if j != i]
        expected.append(own - np.mean(others))
    np.testing.assert_allclose(rloo_advantage(episode_return, 4), expected, rtol=1e-4, atol=1e-6)


def test_uniform_groups_are_counted_and_so_are_all_groups():
    episode_return = array(1, 1, 1, 1, 0, 1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.3)
    uniform, groups = uniform_groups(episode_return, 3)
    assert (uniform, groups) == (1, 4)
    assert uniform_groups(episode_return, 2)[0] == 4


@pytest.mark.parametrize("size", [0, 1, 5])
@pytest.mark.parametrize("of_groups", ["group_advantage", "rloo_advantage", "uniform_groups"])
def test_a_group_that_cannot_be_compared_is_refused_with_its_size(of_groups, size):
    with pytest.raises(ValueError, match=f"group_size={size} must be at least 2 and divide .* 12"):
        getattr(advantages, of_groups)(jnp.zeros(12), size)


def test_whitening_is_over_the_entries_of_the_mask_and_gives_0_elsewhere():
    rng = np.random.default_rng(2)
    x, mask = rng.normal(3.0, 2.0, (N, U)).astype(np.float32), rng.random((N, U)) < 0.6
    for sample_std in (False, True):
        kept = x[mask].astype(float)
        expected = np.zeros((N, U))
        expected[mask] = (kept - kept.mean()) / kept.std(ddof=int(sample_std))
        got = whiten(spoilt(x, mask), mask, None, sample_std)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_whitening_keeps_small_differences_between_large_numbers():
    x = array(*(1000 + np.arange(8) / 64))
    expected = (x - x.mean(dtype=float)) / x.std(dtype=float)
    np.testing.assert_allclose(whiten(x, np.ones(8, bool)), expected, rtol=1e-4)


def test_whitening_nothing_gives_zeros():
    np.testing.assert_array_equal(whiten(np.ones((N, U), np.float32), np.zeros((N, U), bool)), 0)


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(jax.devices()[:4]), ("data",))


@pytest.mark.parametrize("sample_std", [False, True])
def test_batch_normalised_returns_on_four_devices_are_those_of_one(mesh, sample_std):
    reward, _, mask, _ = random_turns(3)
    reward += np.arange(N, dtype=np.float32)[:, None]  # what a shard sees is not the whole
    mask[6:] = False  # and one of them sees nothing at all

    def shard(reward, mask):
        return advantages.rebn_advantage(reward, mask, GAMMA, "data", sample_std)

    on_mesh = jax.shard_map(shard, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    whole = rebn_advantage(reward, mask, GAMMA, None, sample_std)
    np.testing.assert_allclose(jit(on_mesh)(reward, mask), whole, rtol=1e-4, atol=1e-5)
    assert np.abs(whole[:2]).max() > 0.5


def test_the_return_of_a_turn_discounts_by_turns_from_that_turn_on():
    reward, mask = array([1, 2, 4, 8], [1, 2, 4, 8]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    expected = [[1 + 1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8], [1 + 1, 2, 0, 0]]
    np.testing.assert_array_equal(turn_return(spoilt(reward, mask), mask, 0.5), expected)


def test_batch_normalised_returns_equal_plain_loops():
    reward, _, mask, played = random_turns(4)
    returns_to_go = np.zeros((N, U))
    for n in range(N):
        for u in range(played[n]):
            rest = reward[n, u : played[n]].astype(float)
            returns_to_go[n, u] = rest @ GAMMA ** np.arange(len(rest))
    kept = returns_to_go[mask]
    expected = np.where(mask, (returns_to_go - kept.mean()) / kept.std(), 0)
    got = rebn_advantage(spoilt(reward, mask), mask, GAMMA, None, False)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def gae_by_loops(reward, value, played, truncated, last_value):
    advantage = np.zeros((N, U))
    for n in range(N):
        following, next_value = 0.0, last_value[n] if truncated[n] else 0.0
        for u in reversed(range(played[n])):
            delta = reward[n, u] + GAMMA * next_value - value[n, u]
            following = delta + GAMMA * LAM * following
            advantage[n, u], next_value = following, value[n, u]
    return advantage


def test_turn_gae_equals_a_plain_loop_for_terminated_and_truncated_episodes():
    reward, value, mask, played = random_turns(5)
    last_value, truncated = np.arange(1, N + 1, dtype=np.float32), np.arange(N) % 2 == 0
    inputs = spoilt(reward, mask), spoilt(value, mask), mask, truncated, last_value
    expected = gae_by_loops(reward, value, played, truncated, last_value)
    np.testing.assert_allclose(turn_gae(*inputs, GAMMA, LAM), expected, rtol=1e-4, atol=1e-5)


def test_turn_gae_is_the_gae_of_steps_with_the_turns_played_one_after_another():
    reward, value, mask, played = random_turns(6)
    last_value, truncated = np.arange(1, N + 1, dtype=np.float32), np.arange(N) % 2 == 0
    end = np.arange(U) == played[:, None] - 1
    next_value = np.where(end, last_value[:, None], np.roll(value, -1, 1))
    flags = end & ~truncated[:, None], end & truncated[:, None]
    steps = [x[mask][:, None] for x in (reward, value, next_value.astype(np.float32), *flags)]
    expected = np.zeros((N, U), np.float32)
    expected[mask] = returns.gae(*steps, GAMMA, LAM)[:, 0]  # the flags keep episodes apart
    got = turn_gae(reward, value, mask, truncated, last_value, GAMMA, LAM)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_an_episode_that_terminated_bootstraps_from_0_and_a_truncated_one_from_the_last_value():
    ones, mask = np.ones((2, 3), np.float32), np.array([[True, True, False]] * 2)
    got = turn_gae(ones, 2 * ones, mask, np.array([False, True]), array(8, 8), 0.5, 0.5)
    # the last delta is 1 - 2 or 1 + 0.5 * 8 - 2, the first 1 + 0.5 * 2 - 2, the decay 0.25
    np.testing.assert_array_equal(got, [[-0.25, -1, 0], [0.75, 3, 0]])


def test_kl_in_the_reward_charges_a_turn_for_its_own_sampled_tokens():
    rng = np.random.default_rng(7)
    reward = random_turns(7)[0]
    log_prob, ref = rng.normal(size=(2, N, S)).astype(np.float32)
    turn, mask = random_tokens(7)
    expected = reward.astype(float)
    for n, s in np.argwhere(mask):
        expected[n, turn[n, s]] -= 0.3 * (log_prob[n, s] - ref[n, s])
    got = kl_in_reward(reward, spoilt(log_prob, mask), spoilt(ref, mask), turn, mask, 0.3)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_kl_in_the_reward_is_no_way_for_a_gradient():
    turn, mask = random_tokens(8)
    reward, ref = jnp.zeros((N, U)), jnp.zeros((N, S))

    def total(log_prob):
        return jnp.sum(advantages.kl_in_reward(reward, log_prob, ref, turn, mask, 0.3))

    slope = jit(jax.value_and_grad(total))(ref + 1)
    np.testing.assert_allclose(slope[0], -0.3 * mask.sum(), rtol=1e-5)
    np.testing.assert_array_equal(slope[1], 0)


def test_every_sampled_token_gets_the_advantage_of_its_turn_and_others_0():
    advantage, (turn, mask) = random_turns(9)[0], random_tokens(9)
    got = np.asarray(to_tokens(advantage, turn, mask))
    expected = [[advantage[n, turn[n, s]] * mask[n, s] for s in range(S)] for n in range(N)]
    np.testing.assert_array_equal(got, expected)


def test_advantages_refuse_inputs_of_other_shapes_or_kinds():
    reward, value, mask, _ = random_turns()
    turn, tokens = random_tokens()
    with pytest.raises(TypeCheckError):
        turn_return(reward, mask.astype(np.float32), GAMMA)
    with pytest.raises(TypeCheckError):
        turn_gae(reward, value, mask, mask, value[:, 0], GAMMA, LAM)
    with pytest.raises(TypeCheckError):
        kl_in_reward(reward, value, value, turn, tokens, 0.1)
    with pytest.raises(TypeCheckError):
        to_tokens(reward, turn[:, :1], tokens)

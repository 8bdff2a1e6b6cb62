"""The rollout: one key for one thing, each environment by itself, episodes added up by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

import envs
from jaxrl.env import Environment, timestep
from jaxrl.metrics import HIDDEN, hidden
from jaxrl.resets import fill_all
from jaxrl.rollout import Decision, Ended, Transition, begin, first_broken, rollout
from jaxrl.spaces import Box, Discrete
from jaxrl.wrappers import EpisodeStats, TimeLimit

T, B = 7, 8


def draw_noise(key, shape):
    """[T, 8]: for each step, four numbers of the key and four of its child, by split or fold_in."""
    children = jax.random.split(jax.random.clone(key), shape)
    own = jax.random.uniform(key, (*shape, 4))
    return jnp.concatenate([own, jax.vmap(lambda k: jax.random.uniform(k, (4,)))(children)], -1)


def act(memory, obs, noise):
    """Takes action 1 and keeps the noise."""
    return memory, Decision(jnp.ones(obs.shape[0], jnp.int32), noise)


start = jit(begin)


@partial(jit, static_argnums=4)
def advance(env, carry, key, index, pool_size):
    """A rollout with a full pool of its own."""
    pool_key, key = jax.random.split(key)
    pool = fill_all(env, pool_key, index, pool_size)
    return rollout(env, carry, pool, act, draw_noise, key, index, T)


def play(env, first=0, num_envs=B, pool_size=T):
    """(first observations, what two rollouts one after the other return)."""
    env = EpisodeStats(env)
    index = np.arange(first, first + num_envs, dtype=np.int32)
    begin_key, *keys = jax.random.split(jax.random.key(0), 3)
    carry = start(env, begin_key, index)
    obs, results = carry.obs, []
    for key in keys:
        results.append(advance(env, carry, key, index, pool_size))
        carry = results[-1][0]
    results = [(carry.obs, steps, sums_of(ended)) for carry, _, steps, ended in results]
    return jax.tree.map(np.asarray, (obs, results))


def sums_of(ended):
    """name -> [B] of everything that was counted."""
    counts = ("episodes", "truncations", "pool_exhausted")
    return ended.metrics | {name: getattr(ended, name) for name in counts}


def counter(episode_length, max_steps):
    return TimeLimit(envs.make("probe/Counter-v0", episode_length=episode_length), max_steps)


@pytest.fixture(scope="module")
def fresh():
    """Two rollouts of FreshRandomness, whose every observation is the randomness of its key."""
    return play(envs.make("probe/FreshRandomness-v0"))


@pytest.fixture(scope="module")
def sums_and_steps():
    """By (episode_length, max_steps): two rollouts of 2 Counters with a pool of 2 resets."""
    cases = [(3, 100), (100, 2), (3, 3), (1, 100)]
    return {case: play(counter(*case), num_envs=2, pool_size=2)[1] for case in cases}


def test_no_key_is_used_for_two_things(fresh):
    first, results = fresh
    seen, resets = [first], 0
    for last, steps, _ in results:
        done = steps.terminated | steps.truncated
        after = np.concatenate([steps.obs[1:], last[None]])
        seen += [steps.next_obs, after[done], steps.aux]
        resets += done.sum()
    rows = np.concatenate([x.reshape(-1, 4) for x in seen])
    assert resets > 10 and len(rows) == B + 2 * T * B * (1 + 2) + resets
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert len(np.unique(rows)) > 0.99 * rows.size  # nor is any number at two places


def test_the_policy_sees_where_the_last_action_led_or_a_new_episode(fresh):
    first, results = fresh
    for last, steps, _ in results:
        np.testing.assert_array_equal(steps.obs[0], first)
        done = steps.terminated | steps.truncated
        after = np.concatenate([steps.obs[1:], last[None]])
        np.testing.assert_array_equal(after[~done], steps.next_obs[~done])
        assert not np.any(after[done] == steps.next_obs[done])
        first = last


@pytest.mark.parametrize("start", [0, 4])
def test_three_environments_play_as_they_do_among_eight(fresh, start):
    _, some = play(envs.make("probe/FreshRandomness-v0"), start, 3)
    for (_, few, few_sums), (_, many, many_sums) in zip(some, fresh[1], strict=True):
        for part, whole in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
            np.testing.assert_array_equal(part, whole[:, start : start + 3])
        for name, total in few_sums.items():
            np.testing.assert_array_equal(total, many_sums[name][start : start + 3])


def test_steps_come_in_the_order_of_time_with_the_end_of_each_episode_kept(sums_and_steps):
    obs, next_obs = [], []
    for _, steps, _ in sums_and_steps[3, 100]:
        obs += steps.obs[:, 1, 0].tolist()
        next_obs += steps.next_obs[:, 1, 0].tolist()
    np.testing.assert_array_equal(obs, [0, 1, 2] * 4 + [0, 1])  # on through the second rollout
    np.testing.assert_array_equal(next_obs, [1, 2, 3] * 4 + [1, 2])


def test_the_flags_say_why_an_episode_ended(sums_and_steps):
    third, second = np.arange(1, T + 1) % 3 == 0, np.arange(1, T + 1) % 2 == 0
    for case, terminated, truncated in (
        ((3, 100), third, third & False),
        ((100, 2), second & False, second),
        ((3, 3), third, third),
    ):
        steps = sums_and_steps[case][0][1]
        np.testing.assert_array_equal(steps.terminated[:, 0], terminated)
        np.testing.assert_array_equal(steps.truncated[:, 0], truncated)


@pytest.mark.parametrize(
    ("case", "episodes", "steps", "truncations"),
    [
        ((3, 100), (2, 2), (6, 6), (0, 0)),
        ((100, 2), (3, 4), (6, 8), (3, 4)),  # the seventh step's episode ends in the second rollout
        ((3, 3), (2, 2), (6, 6), (0, 0)),  # where both flags are set, it terminated
        ((1, 100), (7, 7), (7, 7), (0, 0)),
    ],
)
def test_sums_are_those_of_the_episodes_that_ended(
    sums_and_steps, case, episodes, steps, truncations
):
    for i, (_, _, sums) in enumerate(sums_and_steps[case]):
        np.testing.assert_array_equal(sums["episodes"], [episodes[i]] * 2)
        np.testing.assert_array_equal(sums["episode_length"], [steps[i]] * 2)
        np.testing.assert_array_equal(sums["episode_return"], [steps[i]] * 2)
        np.testing.assert_array_equal(sums["truncations"], [truncations[i]] * 2)


def test_resets_that_the_pool_lacked_are_counted_anew_in_each_rollout(sums_and_steps):
    for _, _, sums in sums_and_steps[1, 100]:  # 7 episodes end, 2 resets are in the pool
        np.testing.assert_array_equal(sums["pool_exhausted"], [5, 5])
    for _, _, sums in sums_and_steps[3, 100]:
        np.testing.assert_array_equal(sums["pool_exhausted"], [0, 0])


def test_the_environment_gets_the_action_and_the_learner_is_told_it():
    _, results = play(envs.make("probe/ActionReward-v0"), num_envs=2)
    for _, steps, _ in results:
        np.testing.assert_array_equal(steps.reward, np.ones((T, 2)))  # what action 1 pays
        np.testing.assert_array_equal(steps.action, np.ones((T, 2)))


class Clock(Environment):
    """Shows its own step; an episode lasts `length` of them and pays what the action was."""

    length: int = 3

    @property
    def observation_space(self):
        return Box(0.0, np.inf, (1,))

    @property
    def action_space(self):
        return Discrete(2)

    def reset(self, key):
        t = jnp.zeros((), jnp.int32)
        # A number of the key that no two resets share.
        return (jax.random.bits(key), t), timestep(jnp.zeros(1), metrics={"fuel": jnp.nan})

    def step(self, state, action, key):
        del key
        born, t = state[0], state[1] + 1
        fuel = jnp.where(t == self.length, 7.0, jnp.nan)
        obs = t.astype(jnp.float32)[None]
        return (born, t), timestep(obs, action, t >= self.length, metrics={"fuel": fuel})


def remember(memory, obs, noise):
    """Memory counts the policy's own steps, and a key in it is passed on as it is."""
    del noise
    memory = {"steps": memory["steps"] + 1, "seen": memory["seen"] + obs[:, 0]}
    action = jnp.zeros(obs.shape[0], jnp.int32)
    return memory, Decision(action, memory)


@pytest.fixture(scope="module")
def with_memory():
    """(carry, transitions, ended) of T steps of two Clocks, with a memory that counts."""
    env, index = Clock(), np.arange(2, dtype=np.int32)

    @jit
    def run(key):
        begin_key, pool_key, key = jax.random.split(key, 3)
        memory = {"steps": jnp.zeros(2, jnp.int32), "seen": jnp.zeros(2)}
        carry = begin(env, begin_key, index, memory)
        pool = fill_all(env, pool_key, index, T)
        draw = lambda key, shape: jnp.zeros(shape)  # noqa: E731
        carry, _, steps, ended = rollout(env, carry, pool, remember, draw, key, index, T)
        return carry, steps, ended

    return jax.tree.map(np.asarray, run(jax.random.key(0)))


def test_memory_passes_from_step_to_step_and_is_zero_where_an_episode_begins(with_memory):
    carry, steps, _ = with_memory
    np.testing.assert_array_equal(steps.aux["steps"][:, 0], [1, 2, 3] * 2 + [1])
    np.testing.assert_array_equal(steps.aux["seen"][:, 1], [0, 1, 3] * 2 + [0])
    np.testing.assert_array_equal(carry.memory["steps"], [1, 1])  # on to the next rollout


def test_a_metric_counts_where_an_episode_ends_and_may_be_anything_before(with_memory):
    ended = with_memory[2]
    np.testing.assert_array_equal(ended.metrics["fuel"], [14, 14])
    means = ended.means(lambda sums: sums)
    shown = {name for name in means if not hidden(name)}
    assert shown == {"fuel", "truncated_share", "episodes", "pool_exhausted"}
    assert means["fuel"] == (28, 4) and means["truncated_share"] == (0, 4)
    assert means["episodes"] == (4, 1)


def test_where_no_episode_ends_its_metrics_are_unknown_and_their_number_is_0():
    env = EpisodeStats(counter(100, 100))
    index = np.arange(2, dtype=np.int32)
    _, _, _, ended = advance(env, start(env, jax.random.key(0), index), jax.random.key(1), index, 2)
    means = ended.means(lambda sums: sums)
    assert means["episode_return"].denominator == 0 and means["episodes"] == (0, 1)


@pytest.fixture(scope="module")
def three_in_a_row():
    """(born of the pool [B, 4], born of the episodes after each of three rollouts of T = 1,
    the pool's count after each)."""
    env, index = Clock(length=1), np.arange(2, dtype=np.int32)

    @jit
    def run(key):
        begin_key, pool_key, *keys = jax.random.split(key, 5)
        carry, pool = begin(env, begin_key, index), fill_all(env, pool_key, index, 4)
        kept, born, used = pool.state[0], [], []
        for key in keys:
            carry, pool, _, _ = rollout(env, carry, pool, act, draw_noise, key, index, 1)
            born.append(carry.env_state[0])
            used.append(pool.used)
        return kept, jnp.stack(born), jnp.stack(used)

    return jax.tree.map(np.asarray, run(jax.random.key(0)))


def test_one_pool_serves_several_rollouts_in_a_row_each_with_the_next_reset(three_in_a_row):
    kept, born, used = three_in_a_row
    np.testing.assert_array_equal(used, [[1, 1], [2, 2], [3, 3]])
    np.testing.assert_array_equal(born.T, kept[:, :3])
    assert len(np.unique(born)) == born.size


PARTS = ("observation", "action", "reward")


def broken_at(*where: tuple[str, int]) -> list[float]:
    """How often each of PARTS is the first to be broken, in two environments of three steps.

    `where` has fields of a Transition and steps, of environment 1.
    """
    shape = (3, 2)
    fields = {"obs": np.zeros((*shape, 2), np.float32), "reward": np.zeros(shape, np.float32)}
    fields |= {"next_obs": fields["obs"].copy(), "aux": np.zeros(shape, np.float32)}
    for name, t in where:
        fields[name][t, 1] = np.inf if name == "reward" else np.nan
    still, image = np.zeros(shape, bool), np.zeros((*shape, 4), np.uint8)
    obs = {"image": image, "x": fields.pop("obs")}
    steps = Transition(
        obs=obs, action=np.zeros(shape, np.int32), terminated=still, truncated=still, **fields
    )
    zero = jnp.zeros(2)
    broken = ~np.isfinite(steps.reward)
    unpaid = np.where(broken.any(0), broken.argmax(0), 3)
    means = Ended({}, zero, zero, zero, first_broken(steps, unpaid)).means(lambda sums: sums)
    return [float(means[HIDDEN + part].numerator) for part in PARTS]


@pytest.mark.parametrize(
    ("where", "first"),
    [
        ([], [0, 0, 0]),
        ([("obs", 1), ("aux", 1), ("reward", 1)], [1, 0, 0]),
        ([("aux", 1), ("reward", 1), ("next_obs", 1), ("obs", 2)], [0, 1, 0]),
        ([("reward", 0), ("obs", 1), ("aux", 1)], [0, 0, 1]),
        ([("next_obs", 2)], [1, 0, 0]),  # where the last action led
        ([("next_obs", 1), ("reward", 1)], [1, 0, 0]),
        ([("reward", 2)], [0, 0, 1]),
    ],
)
def test_of_what_is_not_finite_the_first_in_time_and_cause_is_counted(where, first):
    assert broken_at(*where) == first

"""Fresh resets kept ready: an episode begins in the step that ends another, until none is left."""

from dataclasses import replace
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from count import Count
from quick import jit

from jaxrl import memory, resets
from jaxrl.algos import dqn, grpo_arrays, ppo, pqn, sac
from jaxrl.env import static
from jaxrl.wrappers import EpisodeStats, FrameStack, TimeLimit


@partial(jit, static_argnums=(1, 2))
def play(env, num_steps, pool_size=4):
    """(first TimeStep, the following ones [T], pool before, pool after) of one environment."""
    reset_key, pool_key, step_key = jax.random.split(jax.random.key(0), 3)
    state, first = env.reset(reset_key)
    full = resets.fill(env, pool_key, pool_size)

    def body(carry, key):
        state, ts, pool = resets.step(env, carry[0], jnp.zeros((), jnp.int32), key, carry[1])
        return (state, pool), ts

    (_, pool), ts = jax.lax.scan(body, (state, full), jax.random.split(step_key, num_steps))
    return first, ts, full, pool


def test_a_step_shows_the_next_episode_in_obs_and_where_the_action_led_in_final_obs():
    first, ts, _, _ = play(Count(length=3), 4)
    start = first.obs[0]
    np.testing.assert_array_equal(ts.final_obs[:3, 0], start + np.array([1, 2, 3]))
    np.testing.assert_array_equal(ts.obs[:2], ts.final_obs[:2])
    assert ts.terminated[2] and ts.obs[2, 0] != start and ts.obs[2, 0] % 100 == 0
    assert ts.obs[3, 0] == ts.obs[2, 0] + 1
    np.testing.assert_array_equal(ts.obs[3], ts.final_obs[3])


def test_episodes_start_from_the_pool_in_its_order_and_it_counts_them():
    _, ts, full, pool = play(Count(length=1), 3)
    np.testing.assert_array_equal(ts.obs, full.obs[:3])
    assert (int(full.used), int(pool.used), pool.size) == (0, 3, 4)
    jax.tree.map(np.testing.assert_array_equal, pool.replace(used=0), full.replace(used=0))


def test_an_exhausted_pool_is_reported_and_gives_its_oldest_reset_again():
    _, ts, _, _ = play(Count(length=1), 5, 2)
    np.testing.assert_array_equal(ts.metrics["pool_exhausted"], [0, 0, 1, 1, 1])
    start = np.asarray(ts.obs)[:, 0]
    assert start[0] != start[1]
    np.testing.assert_array_equal(start, start[[0, 1, 0, 1, 0]])


def test_the_time_limit_of_a_new_episode_starts_from_zero():
    _, ts, _, _ = play(TimeLimit(Count(length=9), 2), 6)
    np.testing.assert_array_equal(ts.truncated, [False, True] * 3)


def test_episode_stats_report_the_whole_episode_on_its_last_step_and_then_start_over():
    _, ts, _, _ = play(EpisodeStats(Count(length=2)), 5)
    np.testing.assert_array_equal(ts.metrics["episode_return"], [1, 3, 1, 3, 1])
    np.testing.assert_array_equal(ts.metrics["episode_length"], [1, 2, 1, 2, 1])


def test_no_frame_of_the_last_episode_is_seen_in_the_next():
    first, ts, _, _ = play(FrameStack(Count(length=2), 3), 3)
    frames = np.asarray(ts.obs).reshape(3, 3)
    led = np.asarray(ts.final_obs).reshape(3, 3)
    np.testing.assert_array_equal(led[1] - np.asarray(first.obs).ravel()[0], [0, 1, 2])
    np.testing.assert_array_equal(frames[1:] - frames[1, 0], [[0, 0, 0], [0, 0, 1]])


@pytest.fixture(scope="module")
def pools():
    """Pools of environments 0 .. 7, of 2 .. 4 of them, and of all with another key."""
    fill = partial(jit(resets.fill_all, static_argnums=3), Count())
    key = jax.random.key(0)
    return (
        fill(key, np.arange(8), 3),
        fill(key, np.arange(2, 5), 3),
        fill(jax.random.key(1), np.arange(8), 3),
    )


def test_no_reset_is_in_two_places_of_the_pools(pools):
    obs = np.concatenate([pools[0].obs.ravel(), pools[2].obs.ravel()])
    assert obs.size == 2 * 8 * 3 and len(np.unique(obs)) == obs.size
    np.testing.assert_array_equal(pools[0].used, np.zeros(8))
    assert pools[0].size == 3


def test_a_pool_is_a_function_of_key_and_global_index_alone(pools):
    jax.tree.map(lambda few, all: np.testing.assert_array_equal(few, all[2:5]), *pools[1::-1])


class Ledger(flax.struct.PyTreeNode):
    count: Any
    page: jax.Array  # float32 [rows]: what makes it large


class Large(Count):
    """Count, with a state of `rows` numbers more."""

    rows: int = static(1000)

    def reset(self, key):
        count, ts = super().reset(key)
        return Ledger(count, jnp.full(self.rows, ts.obs[0])), ts

    def step(self, state, action, key):
        count, ts = super().step(state.count, action, key)
        return Ledger(count, state.page), ts


def test_a_pool_of_large_states_is_no_larger_than_its_bound_unless_asked_for():
    cfg = ppo.Config(num_envs=64, num_steps=128)
    mib = Large(rows=2**18 - 3)  # with the count's two numbers and the observation
    assert memory.of_environment(mib)[0] == 2**20
    assert resets.pool_size(cfg, Large(rows=9)) == 16
    assert resets.pool_size(cfg, mib) == 16
    assert resets.pool_size(replace(cfg, num_envs=128), mib) == 8
    assert resets.pool_size(replace(cfg, num_envs=2048), mib) == 1
    assert resets.pool_size(replace(cfg, num_envs=2048, reset_pool=5), mib) == 5


TINY: dict[str, Any] = {"total_steps": 2**12, "num_envs": 8, "hidden": (4,)}


@pytest.mark.parametrize(
    ("algorithm", "cfg"),
    [
        (ppo, ppo.Config(**TINY)),
        (pqn, pqn.Config(**TINY)),
        (dqn, dqn.Config(**TINY, num_steps=128)),
        (sac, sac.Config(**TINY, num_steps=128)),
        (grpo_arrays, grpo_arrays.Config(**TINY, group_size=4)),
    ],
)
def test_an_update_fills_the_bounded_pool(algorithm, cfg, monkeypatch):
    env = algorithm.wrap(Large(), cfg)
    wanted = resets.pool_size(cfg, env)
    monkeypatch.setattr(resets, "POOL_BYTES", 8 * 3 * memory.of_environment(env)[0])
    key = jax.random.key(0)
    state = jax.eval_shape(partial(algorithm.init, cfg=cfg, env=env), key)
    text = str(jax.make_jaxpr(partial(algorithm.update, cfg=cfg, env=env))(state, key))
    assert wanted > 3 and f"f32[8,{wanted},1000]" not in text and "f32[8,3,1000]" in text

"""pgx's games behind our contract, against pgx's own play; how others play: test_opponents.py."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.bridges import pgx as bridge
from jaxrl.evaluate import evaluate
from jaxrl.opponents import Random
from jaxrl.spaces import LEGAL, contains
from jaxrl.wrappers import TimeLimit

QUICK = {"xla_backend_optimization_level": 0}
SAMPLE = ("tic_tac_toe", "connect_four", "kuhn_poker", "backgammon", "minatar-breakout")


def test_a_missing_pgx_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pgx", None)
    bridge._game.cache_clear()
    with pytest.raises(ImportError, match=r"pgx/chess needs pgx: pip install 'jaxrl\[pgx\]'"):
        envs.make("pgx/chess", opponent="random")
    assert {f"pgx/{name}" for name in (*bridge.GAMES, *bridge.ALONE)} <= set(envs.ids())


@pytest.fixture(scope="module")
def pgx():
    module = pytest.importorskip("pgx", reason="pip install 'jaxrl[pgx]'")
    # pgx gives a key to both branches of a `lax.cond`: in a vmap the check counts that as two uses.
    with jax.debug_key_reuse(False):
        yield module


def make(name, **fields):
    return envs.make(f"pgx/{name}", **bridge_fields(name), **fields)


def bridge_fields(name):
    return dict([bridge.NEEDS[name].split("=")]) if name in bridge.NEEDS else {}


def test_the_table_lists_what_pgx_makes(pgx):
    assert set(pgx.available_envs()) == set(bridge.ids())
    for name in (*SAMPLE, "2048", "hex", "othello", "sparrow_mahjong", "minatar-freeway"):
        assert (bridge._game(name).num_players == 1) == (name in bridge.ALONE)


@pytest.mark.parametrize("name", SAMPLE)
def test_games_end_inside_their_spaces_with_legal_moves_alone(pgx, name):
    """And what the environment says of a state is what pgx says of it."""
    env = make(name)
    raw = env.env if isinstance(env, TimeLimit) else env
    inside = partial(contains, env.observation_space)

    def reset(key):
        state, ts = raw.reset(key)
        return state, ts, (inside(ts.obs), jnp.asarray(True))

    def step(carry, key):
        (state, before), (act_key, env_key) = carry, jax.random.split(key)
        action = Random()(before.obs, act_key)
        legal = before.obs[LEGAL][action] & (state.game.current_player == state.seat)
        after, ts = raw.step(state, action, env_key)
        own = after.game.terminated == ts.terminated
        ok = inside(ts.obs) & own & jnp.any(ts.obs[LEGAL])
        done = before.done
        state, ts = jax.tree.map(lambda x, y: jnp.where(done, x, y), (state, before), (after, ts))
        return (state, ts), ((ok & legal) | done, ts.reward * ~done)

    @partial(jax.jit, compiler_options=QUICK)
    @jax.vmap
    def run(key):
        reset_key, play_key = jax.random.split(key)
        state, ts, first = reset(reset_key)
        (_, last), (ok, reward) = jax.lax.scan(step, (state, ts), jax.random.split(play_key, 100))
        return first, ok, reward, last

    first, ok, reward, last = run(jax.random.split(jax.random.key(0), 32))
    assert np.all(first) and np.all(ok)
    if name not in bridge.ALONE:
        ended = np.asarray(last.terminated)
        total = np.sum(reward, 1)[ended]
        np.testing.assert_array_equal(total > 0, np.asarray(last.metrics["success"])[ended] == 1)
        np.testing.assert_array_equal(total == 0, np.asarray(last.metrics["draw"])[ended] == 1)


def test_a_game_is_that_of_pgx_move_by_move(pgx):
    """With an opponent that always takes the first legal column."""

    class First(Random):
        def __call__(self, obs, key):
            return jnp.argmax(obs[LEGAL]).astype(jnp.int32)

    env, own = envs.make("pgx/connect_four", opponent=First()), pgx.make("connect_four")
    reset, step, own_step = jax.jit(env.reset), jax.jit(env.step), jax.jit(own.step)
    for seed in range(4):
        state, ts = reset(jax.random.key(seed))
        mirror = own.init(jax.random.split(jax.random.key(seed), 3)[0])
        if mirror.current_player != state.seat:
            mirror = own_step(mirror, jnp.int32(0))
        while not ts.done:
            np.testing.assert_array_equal(ts.obs["observation"], mirror.observation)
            np.testing.assert_array_equal(ts.obs[LEGAL], mirror.legal_action_mask)
            action = jnp.int32(6 - jnp.argmax(ts.obs[LEGAL][::-1]))
            state, ts = step(state, action, jax.random.key(0))
            mirror = own_step(mirror, action)
            if not mirror.terminated:
                mirror = own_step(mirror, jnp.argmax(mirror.legal_action_mask))
        assert mirror.terminated and ts.reward == mirror.rewards[state.seat]
        assert np.all(ts.obs[LEGAL])


def test_games_without_an_end_of_their_own_have_a_limit(pgx):
    assert make("backgammon").max_steps == 1000
    assert make("minatar-freeway").max_steps == 2500
    assert not isinstance(make("tic_tac_toe"), TimeLimit)
    assert make("tic_tac_toe", max_steps=3).max_steps == 3
    assert not isinstance(make("backgammon", max_steps=None), TimeLimit)
    assert make("tic_tac_toe") == make("tic_tac_toe"), "so that jit does not compile again"


def test_a_truncated_game_goes_on_in_its_value(pgx):
    env = make("tic_tac_toe", max_steps=1)
    played = evaluate(Random(), env, jax.random.key(0), 16)
    assert np.all(played.metrics["episode_length"] == 1)
    assert not np.any(played.metrics["success"])

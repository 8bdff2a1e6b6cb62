"""JAXtari's games behind our contract: Pong with sprites of our own against the suite's rollout."""

import sys
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.bridges import jaxatari as bridge
from jaxrl.wrappers import TimeLimit

QUICK = {"xla_backend_optimization_level": 0}


def avals(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def test_what_is_missing_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxtari", None)
    wanted = r"jaxatari/pong needs jaxtari: pip install 'jaxrl\[jaxatari\]'"
    with pytest.raises(ImportError, match=wanted):
        envs.make("jaxatari/pong")
    assert {f"jaxatari/{name}" for name in bridge.NAMES} <= set(envs.ids())
    assert "jaxtari.install_sprites" in envs.spec("jaxatari/pong").downloads


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"frame_skip": 0}, "jaxatari/pong: frame_skip=0 must be at least 1; try 4."),
        ({"noop_max": -1}, "jaxatari/pong: noop_max=-1 must be at least 0; try 30."),
        ({"sticky_actions": 1.5}, r"sticky_actions=1.5 must lie in \[0, 1\]; try 0.25."),
        ({"lives": 3}, "jaxatari/pong has no field 'lives'; near"),
        ({"max_steps": -5}, "max_steps"),
    ],
)
def test_fields_are_checked_without_the_suite(fields, words):
    with pytest.raises(ValueError, match=words):
        envs.make("jaxatari/pong", **fields)


@flax.struct.dataclass
class Frames:
    t: jax.Array


class Game:
    """As the suite's wrapper: over on frame 6, it pays t on frame t and plays on when over."""

    def reset(self, key):
        return {"t": jnp.zeros(()), "two": jnp.ones(2, jnp.int32)}, Frames(jnp.zeros(()))

    def step(self, state, action):
        t = state.t + 1
        life_lost, truncated = jnp.ones((), bool), jnp.zeros((), bool)
        seen = {"t": t, "two": jnp.ones(2, jnp.int32)}
        return seen, Frames(t), t, life_lost, truncated, {"env_done": t >= 6}


def test_frames_add_up_and_none_is_played_after_the_end_of_the_game():
    env = bridge.Jaxatari(Game(), 3, 4)
    state, ts = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(ts.obs, [0, 1, 1])
    state, ts = env.step(state, jnp.zeros((), jnp.int32), jax.random.key(0))
    assert (float(ts.reward), bool(ts.terminated)) == (1 + 2 + 3 + 4, False)  # a life is no end
    state, ts = env.step(state, jnp.zeros((), jnp.int32), jax.random.key(0))
    assert (float(ts.reward), bool(ts.terminated), float(state.t)) == (5 + 6, True, 6)
    np.testing.assert_array_equal(ts.obs, [6, 1, 1])


SPRITES = {"background": (210, 160), "player": (16, 4), "enemy": (16, 4), "ball": (4, 2)}
DIGITS = [f"{who}_score_{i}" for who in ("player", "enemy") for i in range(10)]


@pytest.fixture(scope="module")
def pong(tmp_path_factory):
    """Pong drawn with rectangles, where the suite looks for a user's own sprites."""
    pytest.importorskip("jaxtari", reason="pip install 'jaxrl[jaxatari]'")
    home = tmp_path_factory.mktemp("data")
    folder = home / "jaxtari" / "sprites" / "pong"
    folder.mkdir(parents=True)
    (home / "jaxtari" / ".alternative_sprites_installed").touch()
    for i, (name, size) in enumerate((SPRITES | dict.fromkeys(DIGITS, (20, 12))).items()):
        sprite = np.full((*size, 4), 255, np.uint8)
        sprite[..., :3] = (236, 236, 236) if i > 3 else (40 * i, 90, 30)
        np.save(folder / f"{name}.npy", sprite)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(home))
        bridge._game.cache_clear()
        yield home
    bridge._game.cache_clear()


def test_without_sprites_one_line_says_how_to_get_them(pong, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(
        OSError, match=r"needs its sprites: python -m jaxtari.install_sprites \(non"
    ):
        envs.make("jaxatari/breakout")
    monkeypatch.setenv("XDG_DATA_HOME", str(pong))
    with pytest.raises(OSError, match=r"needs its sprites: .*breakout.*npy"):
        envs.make("jaxatari/breakout")


def test_the_table_lists_what_the_suite_registers(pong):
    assert sorted(bridge._suite("pong").list_available_games()) == list(bridge.NAMES)


def test_types_stay_and_a_rollout_is_that_of_the_suite(pong):
    env = envs.make("jaxatari/pong", max_steps=None, num_frames=1, frame_skip=1)
    game = env.game
    reset = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct((), jnp.int32)
    assert avals(jax.eval_shape(env.step, reset[0], action, jax.random.key(0))) == avals(reset)
    assert env.observation_space.shape == reset[1].obs.shape == (26,)

    @partial(jax.jit, compiler_options=QUICK)
    def run():
        def step(states, action):
            mine, ts = env.step(states[0], action, jax.random.key(0))
            obs, own, reward, _, _, info = game.step(states[1], action)
            seen = (jnp.stack([obs.ball.x, obs.ball.y]), reward, info["env_done"])
            return (mine, own), ((ts.obs[jnp.array([16, 17])], ts.reward, ts.terminated), seen)

        state, _ = env.reset(jax.random.key(3))
        _, own = game.reset(jax.random.key_data(jax.random.key(3)))
        own = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), own, state)
        return jax.lax.scan(step, (state, own), jnp.arange(600) % 6)[1]

    mine, own = run()
    for ours, theirs in zip(mine, own, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(np.unique(mine[0], axis=0)) > 20 and np.any(mine[1] != 0)


def test_pictures_and_stacks_and_the_time_limit(pong):
    env = envs.make("jaxatari/pong")
    assert isinstance(env, TimeLimit) and env.max_steps == 27_000
    assert env.observation_space.shape == (4, 26) and env.action_space.n == 6
    assert envs.make("jaxatari/pong", frame_skip=7).max_steps == 15_429
    seen = envs.make("jaxatari/pong", pixels=True, max_steps=9)
    assert seen.observation_space.shape == (84, 84, 4) and seen.max_steps == 9
    _, ts = jax.jit(seen.reset, compiler_options=QUICK)(jax.random.key(0))
    assert ts.obs.dtype == np.uint8 and len(np.unique(ts.obs)) > 2

"""MuJoCo Playground's environments behind our contract, against the suite's own rollouts."""

import sys
from functools import partial
from types import SimpleNamespace

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.bridges import playground as bridge
from jaxrl.wrappers import TimeLimit

NAMES = ("CartpoleBalance",)
QUICK = {"xla_backend_optimization_level": 0}


def avals(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def test_a_missing_playground_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    wanted = r"playground/CheetahRun needs playground: pip install 'jaxrl\[playground\]'"
    with pytest.raises(ImportError, match=wanted):
        envs.make("playground/CheetahRun")
    assert {f"playground/{name}" for name in bridge.NAMES} <= set(envs.ids())
    assert envs.spec("playground/Go1Getup").downloads == "mujoco_menagerie with git"
    assert not envs.spec("playground/CheetahRun").downloads


@flax.struct.dataclass
class Lamp:
    """A state as the suite's: lit for `left` steps more, then not a number."""

    left: jax.Array
    obs: dict
    reward: jax.Array
    done: jax.Array
    info: dict
    metrics: dict


class Game:
    """As the suite's environments: it shows a critic more, and mutates the state it is given."""

    action_size = 1

    def reset(self, key):
        obs = {"state": jnp.ones(2), "privileged_state": jnp.ones(5)}
        zero = jnp.zeros(())
        return Lamp(jnp.float32(3), obs, zero, zero, {"key": key, "steps": zero}, {"lit": zero})

    def step(self, state, action):
        state.info["steps"] += 1
        state.metrics["lit"] = state.left
        left = state.left - 1
        shown = jnp.where(left > 0, left, jnp.nan)
        obs = {"state": shown * jnp.ones(2), "privileged_state": jnp.ones(5)}
        reward, done = state.left + action[0], (left <= 0).astype(float)
        return state.replace(left=left, obs=obs, reward=reward, done=done)


@pytest.mark.parametrize(("repeat", "rewards", "dones"), [(1, [3, 2, 1], 3), (2, [5, 1], 2)])
def test_actions_repeat_to_the_end_of_an_episode_and_no_state_is_touched(repeat, rewards, dones):
    env = bridge.Playground(game=Game(), size=2, action_repeat=repeat)
    state, ts = env.reset(jax.random.key(0))
    assert jnp.issubdtype(state.info["key"].dtype, jnp.unsignedinteger)
    assert ts.obs.shape == env.observation_space.shape == (2,)
    for i, reward in enumerate(rewards):
        before = (dict(state.info), dict(state.metrics))
        after, ts = env.step(state, jnp.zeros(1), jax.random.key(1))
        assert (state.info, state.metrics) == before
        state = after
        assert float(ts.reward) == reward and bool(ts.terminated) == (i + 1 == dones)
        assert not ts.truncated and np.all(np.isfinite(ts.final_obs))


def test_the_numbers_of_a_config_are_fields_by_their_path():
    scales = {"pose": 1.0, "names": ("a",)}
    config = {"ctrl_dt": 0.01, "impl": "warp", "episode_length": 9, "scales": scales, "n": None}
    known = dict(bridge._numbers(config))
    assert known.keys() == {"ctrl_dt", "scales.pose"}
    assert all(field.structural and field.kind is float for field in known.values())


def test_a_download_that_fails_is_one_line(monkeypatch):
    def load(name, config_overrides):
        raise bridge.subprocess.CalledProcessError(128, ["git", "clone"])

    monkeypatch.setattr(bridge, "_suite", lambda name: SimpleNamespace(load=load))
    with pytest.raises(OSError, match=r"playground/Go1Getup could not download mujoco_menagerie"):
        bridge._game("Go1Getup")


@pytest.fixture(scope="module")
def playground():
    return pytest.importorskip("mujoco_playground", reason="pip install 'jaxrl[playground]'")


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """The suite imports brax, which warns."""
    import warnings

    with warnings.catch_warnings(action="ignore"):
        yield


def test_the_table_lists_what_the_suite_registers(playground):
    assert sorted(playground.registry.ALL_ENVS) == sorted(bridge.NAMES)
    assert set(playground.dm_control_suite.ALL_ENVS) == set(bridge.CONTROL)


@pytest.mark.parametrize("name", NAMES)
def test_types_stay_and_a_rollout_is_that_of_the_suite(playground, name):
    env = envs.make(f"playground/{name}", max_steps=None)
    game = env.game
    reset = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct(env.action_space.shape, jnp.float32)
    assert avals(jax.eval_shape(env.step, reset[0], action, jax.random.key(0))) == avals(reset)
    again = envs.make(f"playground/{name}", max_steps=None)
    assert jax.tree.structure(env) == jax.tree.structure(again)

    @partial(jax.jit, compiler_options=QUICK)
    def run():
        def step(states, action):
            mine, ts = env.step(states[0], action, jax.random.key(0))
            own = game.step(states[1], action)
            seen = (own.obs, own.reward, own.done)
            return (mine, own), ((ts.obs, ts.reward, ts.terminated), seen)

        actions = jnp.sin(jnp.arange(6.0))[:, None] * jnp.ones(env.action_space.shape)
        state, first = env.reset(jax.random.key(3))
        own = game.reset(jax.random.key_data(jax.random.key(3)))
        start = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), own, state)
        return first.obs, own.obs, jax.lax.scan(step, (state, start), actions)[1]

    first, own_first, (mine, own) = run()
    np.testing.assert_array_equal(first, own_first)
    for ours, theirs in zip(mine, own, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_time_limit_is_ours_and_fields_are_checked(playground):
    env = envs.make("playground/CartpoleBalance")
    assert isinstance(env, TimeLimit) and env.max_steps == 1000
    repeated = envs.make("playground/CartpoleBalance", action_repeat=3, ctrl_dt=0.02)
    assert repeated.max_steps == 334 and repeated.env.action_repeat == 3
    assert repeated.env.game.n_substeps == 2
    assert envs.make("playground/CartpoleBalance", max_steps=7).max_steps == 7
    with pytest.raises(ValueError, match="playground/CartpoleBalance has no field 'gravity'; near"):
        envs.make("playground/CartpoleBalance", gravity=3.0)
    with pytest.raises(ValueError, match="max_steps"):
        envs.make("playground/CartpoleBalance", max_steps=-1)
    with pytest.raises(ValueError, match="action_repeat=0 must be at least 1; try 1"):
        envs.make("playground/CartpoleBalance", action_repeat=0)
    with pytest.raises(ValueError, match="No environment 'playground/Cheetah'; near: playground"):
        envs.make("playground/Cheetah")

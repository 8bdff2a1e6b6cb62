"""Every native environment keeps the contract, also in double precision and with arrays."""

import jax
import jax.numpy as jnp
import pytest

import envs
from envs.registry import TABLE
from jaxrl import check, spaces
from jaxrl.check import check_env

# gem/ says what language/ says, and a game of random level what those of one level say.
DISTINCT = [i for i in sorted(TABLE) if i[:4] != "gem/" and not i.endswith(("-easy", "-hard"))]
SPOKEN = [i for i in sorted(TABLE) if envs.spec(i).is_language and i[:4] != "gem/"]
# (id, fields): each as it is by default, and what is spoken to in words too.
CASES = [(i, {}) for i in sorted(TABLE)] + [(i, {"prompt": "instruct"}) for i in SPOKEN]


def avals(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@pytest.mark.parametrize(("id", "fields"), CASES)
def test_environment_keeps_the_contract(id, fields):
    """All that `check_env` finds by tracing: nothing is compiled."""
    env = envs.make(id, **fields)
    with jax.debug_key_reuse(False):
        check.check_structure(env, seed=0)
    ts = jax.eval_shape(env.step, *example(env))[1]
    assert all(aval == ((), jnp.float32, False) for aval in avals(ts.metrics).values())
    assert hash(jax.tree.structure(env)) == hash(jax.tree.structure(envs.make(id, **fields)))


def example(env):
    """The avals of a state, an action and a key."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.eval_shape(lambda k: spaces.sample(env.action_space, k), key)
    return jax.eval_shape(env.reset, key)[0], action, key


@pytest.mark.parametrize(("id", "fields"), CASES)
def test_double_precision_changes_no_dtype(id, fields):
    env = envs.make(id, **fields)
    single = traced(env)
    with jax.enable_x64(True):
        double = traced(env)
    assert double == single


def traced(env):
    state, action, key = example(env)
    out = jax.eval_shape(env.reset, key), jax.eval_shape(env.step, state, action, key)
    players = [getattr(env, name, None) for name in ("expert", "random_player")]
    said = [jax.eval_shape(player, state, key) for player in players if player]
    return avals((action, *out, *said))


def test_observations_lie_in_their_spaces_along_episodes():
    def inside(env, key):
        def step(state, key):
            action_key, step_key = jax.random.split(key)
            action = spaces.sample(env.action_space, action_key)
            state, ts = env.step(state, action, step_key)
            return state, (spaces.contains(env.observation_space, ts.obs), ts.done)

        reset_key, key = jax.random.split(key)
        state, ts = env.reset(reset_key)
        inside, done = jax.lax.scan(step, state, jax.random.split(key, 5))[1]
        over = jnp.cumsum(done) - done > 0
        return jnp.all(inside | over) & spaces.contains(env.observation_space, ts.obs)

    @jax.jit
    def run(key):
        keys = jax.random.split(key, len(DISTINCT))
        return {id: inside(envs.make(id), keys[i]) for i, id in enumerate(DISTINCT)}

    result = run(jax.random.key(3))
    assert len(result) > 20 and all(result.values()), result


CHEAP = ["CartPole-v1", "GridWorld-v0", "probe/FreshRandomness-v0"]


@pytest.mark.parametrize(
    "id", [i if i in CHEAP else pytest.param(i, marks=pytest.mark.slow) for i in DISTINCT]
)
def test_check_env_passes(id, monkeypatch):
    """All of it; in the default suite a few, as compiling is the price."""
    monkeypatch.setattr(check.cost, "measure", lambda env, *_, **__: id)
    assert check_env(envs.make(id), num_steps=10, num_envs=2, verbose=False) == id

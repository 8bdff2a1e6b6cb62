"""The classic control environments against Gymnasium's, step by step from Gymnasium's states."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.classic.pendulum import PendulumState
from jaxrl.wrappers import TimeLimitState

IDS = [
    "Acrobot-v1",
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
]
RESET_BOUNDS = {
    "Acrobot-v1": ([-0.1] * 4, [0.1] * 4),
    "CartPole-v1": ([-0.05] * 4, [0.05] * 4),
    "MountainCar-v0": ([-0.6, 0.0], [-0.4, 0.0]),
    "MountainCarContinuous-v0": ([-0.6, 0.0], [-0.4, 0.0]),
    "Pendulum-v1": ([-np.pi, -1.0], [np.pi, 1.0]),
}
ANYWHERE = {  # (radius, centre) of states all over the space: walls, goals and limits
    "Acrobot-v1": ([np.pi, np.pi, 6.0, 9.0], 0.0),  # faster, float32 itself is 1e-4 off
    "CartPole-v1": ([2.4, 4.0, 0.209, 4.0], 0.0),
    "MountainCar-v0": ([0.9, 0.07], [-0.3, 0.0]),
    "MountainCarContinuous-v0": ([0.9, 0.07], [-0.3, 0.0]),
    "Pendulum-v1": ([np.pi, 8.0], 0.0),
}
NEVER_ENDS = {"CartPole-v1": {"x_limit": 1e9, "theta_limit": 1e9}}


def to_state(id, state):
    """Gymnasium's float64 states [N, ...] as ours."""
    if id == "Pendulum-v1":
        theta = (state[:, 0] + np.pi) % (2 * np.pi) - np.pi
        return PendulumState(jnp.float32(theta), jnp.float32(state[:, 1]))
    return jnp.float32(state)


def gymnasium_steps(id, steps, anywhere=False):
    """Random steps of Gymnasium's environment: (state, t, action), (obs, reward, flags).

    `anywhere`: each from a state of its own, drawn over the whole space.
    """
    env = gymnasium.make(id, disable_env_checker=True)
    env.reset(seed=0)
    env.action_space.seed(1)
    rng = np.random.default_rng(2)
    before, after, t = [], [], 0
    for _ in range(steps):
        if anywhere:
            radius, center = ANYWHERE[id]
            env.unwrapped.state = rng.uniform(-1, 1, len(radius)) * radius + center
        state = np.array(env.unwrapped.state, np.float64)
        action = env.action_space.sample()
        if isinstance(env.action_space, gymnasium.spaces.Box):
            action = 1.5 * action  # some beyond the bounds
        obs, reward, terminated, truncated, _ = env.step(action)
        before.append((state, t, action))
        after.append((obs, reward, terminated, truncated))
        t += 1
        if terminated or truncated:
            env.reset()
            t = 0
    return ([np.stack(x) for x in zip(*rows, strict=True)] for rows in (before, after))


@pytest.mark.parametrize("id", IDS)
def test_a_thousand_steps_along_and_across_episodes_equal_those_of_gymnasium(id):
    env = envs.make(id)
    step = jax.jit(jax.vmap(lambda s, a: env.step(s, a, jax.random.key(0))))
    for anywhere in (False, True):
        (state, t, action), expected = gymnasium_steps(id, 1000, anywhere)
        obs, reward, terminated, truncated = expected
        states = TimeLimitState(to_state(id, state), jnp.int32(t))
        _, ts = step(states, jnp.asarray(action, env.action_space.dtype))
        np.testing.assert_allclose(ts.obs, obs, rtol=0, atol=1e-5)
        np.testing.assert_allclose(ts.reward, reward, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(ts.terminated, terminated)
        np.testing.assert_array_equal(ts.truncated, truncated)
        assert np.any(terminated) or (id == "Pendulum-v1" if anywhere else np.any(truncated))


@pytest.mark.parametrize("id", IDS)
def test_an_episode_is_truncated_exactly_at_the_limit_of_gymnasium(id):
    limit = gymnasium.spec(id).max_episode_steps
    env = envs.make(id, **NEVER_ENDS.get(id, {}))
    assert env.max_steps == limit

    @jax.jit
    def episode(key):
        state, _ = env.reset(key)
        action = jnp.ones(env.action_space.shape, env.action_space.dtype) * 0
        return jax.lax.scan(lambda s, _: env.step(s, action, key), state, None, limit)[1]

    ts = episode(jax.random.key(0))
    assert not np.any(ts.terminated)
    np.testing.assert_array_equal(ts.truncated, np.arange(1, limit + 1) == limit)


@pytest.mark.parametrize("id", IDS)
def test_spaces_equal_those_of_gymnasium(id):
    ours, theirs = envs.make(id), gymnasium.make(id)
    for space, expected in [
        (ours.observation_space, theirs.observation_space),
        (ours.action_space, theirs.action_space),
    ]:
        assert space.shape == expected.shape
        if isinstance(expected, gymnasium.spaces.Discrete):
            assert space.n == expected.n
        else:
            assert space.dtype == expected.dtype
            np.testing.assert_array_equal(space.low, expected.low)
            np.testing.assert_array_equal(space.high, expected.high)


@pytest.mark.parametrize("id", IDS)
def test_first_states_fill_the_range_of_gymnasium(id):
    low, high = (np.asarray(bound) for bound in RESET_BOUNDS[id])
    state, ts = jax.jit(jax.vmap(envs.make(id).reset))(jax.random.split(jax.random.key(0), 1000))
    state = np.stack(jax.tree.leaves(state.inner), -1).reshape(1000, -1)
    assert np.all((state >= low - 1e-6) & (state <= high + 1e-6))
    np.testing.assert_allclose(state.min(0), low, atol=0.02 * np.max(high - low))
    np.testing.assert_allclose(state.max(0), high, atol=0.02 * np.max(high - low))
    assert not np.any(ts.reward) and not np.any(ts.done)


def test_physics_can_be_vmapped_and_traced():
    gravity = jnp.array([9.8, 1.6])
    env = envs.make("CartPole-v1", gravity=gravity)
    axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, env)
    state = TimeLimitState(jnp.array([0.0, 0.0, 0.1, 0.0]), jnp.int32(0))
    step = jax.vmap(lambda e, s: e.step(s, jnp.int32(1), jax.random.key(0)), (axes, None))
    _, ts = jax.jit(step)(env, state)
    for row, value in enumerate([9.8, 1.6]):
        _, alone = envs.make("CartPole-v1", gravity=value).step(
            state, jnp.int32(1), jax.random.key(0)
        )
        np.testing.assert_allclose(ts.obs[row], alone.obs, rtol=1e-6)
    assert ts.obs[0, 3] > ts.obs[1, 3]  # heavier falls faster

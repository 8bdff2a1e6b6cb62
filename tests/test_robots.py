"""Factors on the models of brax's and MuJoCo Playground's robots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import envs
from jaxrl.physics import Draw, Randomise, numbers
from jaxrl.train import physics
from jaxrl.train.ppo import Args

pytestmark = [  # of the suites' own code
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning"),
]
IDS = {"brax": "brax/inverted_pendulum", "mujoco_playground": "playground/CartpoleBalance"}


@jax.jit
def play(env, state):
    """Observations of 6 steps with one action."""

    def step(state, key):
        state, ts = env.step(state, jnp.full(env.action_space.shape, 0.3), key)
        return state, ts.obs

    return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 6))[1]


@pytest.mark.parametrize("package", IDS)
def test_masses_and_forces_of_one_factor_move_as_before_and_each_alone_does_not(package):
    pytest.importorskip(package, reason=f"{package} is not installed")
    plain = envs.make(IDS[package], max_steps=None)
    state = jax.jit(plain.reset)(jax.random.key(0))[0]
    before = play(plain, state)

    def other(**factors):
        return play(envs.make(IDS[package], max_steps=None, **factors), state)

    np.testing.assert_allclose(
        other(mass=2.0, damping=2.0, motor_strength=2.0), before, rtol=1e-3, atol=1e-4
    )
    alone = other(mass=2.0, damping=1.0, motor_strength=1.0)
    assert np.abs(alone - before).max() > 0.01
    assert np.abs(other(gravity=3.0) - before).max() > 1e-3


def test_a_robots_factors_are_drawn_and_read():
    pytest.importorskip("brax", reason="brax is not installed")
    args = Args(env=IDS["brax"], randomise=("mass=uniform:0.5:2", "gravity=uniform:0.5:2"))
    env = physics.make(args, {"max_steps": None})
    assert isinstance(env, Randomise) and env.draws[0] == Draw((0.5, 2.0), "uniform")
    state = jax.jit(env.reset)(jax.random.key(3))[0]
    mass, gravity = state.drawn
    own = envs.make(IDS["brax"], max_steps=None).replace(mass=mass, gravity=gravity)
    assert set(numbers(own)) == {"mass", "friction", "damping", "motor_strength", "gravity"}
    np.testing.assert_array_equal(play(env, state), play(own, state.inner))


def test_a_factor_out_of_range_is_refused_in_one_line():
    pytest.importorskip("brax", reason="brax is not installed")
    with pytest.raises(ValueError, match=r"mass=0\.0 must be a number from 0\.001 to 1000"):
        envs.make("brax/inverted_pendulum", mass=0)
    with pytest.raises(ValueError, match="mass='x' must be a number or None"):
        envs.make("brax/inverted_pendulum", mass="x")
    args = Args(env="brax/inverted_pendulum", randomise=("mass=uniform:0.5:2",), curriculum="0.5")
    with pytest.raises(ValueError, match="mass is off"):
        physics.make(args, {})

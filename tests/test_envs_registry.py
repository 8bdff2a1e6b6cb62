"""`envs.make` and what is around it: ids, fields, time limits, errors, the listing."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.__main__ import row
from envs.classic.cartpole import CartPole
from jaxrl import spaces
from jaxrl.env import Environment, timestep
from jaxrl.wrappers import TimeLimit


def test_make_puts_the_time_limit_of_the_table_around_the_environment():
    env = envs.make("CartPole-v1")
    assert isinstance(env, TimeLimit) and env.max_steps == 500
    assert envs.make("CartPole-v1", max_steps=7).max_steps == 7
    assert isinstance(envs.make("CartPole-v1", max_steps=None), CartPole)


def test_make_sets_fields_and_turns_integers_into_floats_where_the_field_is_one():
    env = envs.make("CartPole-v1", gravity=3).env
    assert env.gravity == 3.0 and isinstance(env.gravity, float)
    assert env == CartPole(gravity=3.0)


def test_a_field_may_be_an_array_of_numbers_or_traced():
    env = envs.make("CartPole-v1", gravity=jnp.array([9.8, 3.7]))
    assert env.env.gravity.shape == (2,)
    np.testing.assert_allclose(
        jax.jit(lambda g: envs.make("CartPole-v1", gravity=g).env.gravity)(2.5), 2.5
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gravty": 9.8}, "no field 'gravty'; near: gravity; its fields: gravity, mass_cart"),
        ({"gravity": "9.8"}, "gravity='9.8' must be a number; try 9.8"),
        ({"gravity": None}, "gravity=None must be a number; try 9.8"),
        ({"gravity": True}, "gravity=True must be a number"),
        ({"gravity": float("nan")}, "gravity=nan is not a number; try 9.8"),
        ({"gravity": np.array([1.0, np.nan])}, "is not a number; try 9.8"),
        ({"x_limit": np.ones(2)}, "x_limit is structure: not an array but a number; try 2.4"),
        ({"max_steps": 0}, "max_steps=0 must be an integer >= 1 or None"),
        ({"max_steps": 1.5}, "max_steps=1.5 must be an integer >= 1 or None"),
    ],
)
def test_make_refuses_a_bad_field_and_names_the_rule(fields, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")) as error:
        envs.make("CartPole-v1", **fields)
    assert "CartPole-v1" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("id", "near"),
    [
        ("Cartpole-v2", "CartPole-v1"),
        ("pendulum", "Pendulum-v1"),
        ("Catch", "Catch-bsuite"),
        ("GridWord-v0", "GridWorld-v0"),
        ("zzz", "none"),
    ],
)
def test_an_unknown_id_names_the_near_ones_and_the_listing_in_one_line(id, near):
    with pytest.raises(ValueError) as error:
        envs.make(id)
    message = str(error.value)
    assert repr(id) in message and near in message and "python -m envs" in message
    assert "\n" not in message


class Light(Environment):
    """An environment with one field, for `register`."""

    brightness: float = 0.5

    @property
    def observation_space(self):
        return spaces.Box(0.0, 1.0, ())

    @property
    def action_space(self):
        return spaces.Discrete(2)

    def reset(self, key):
        del key  # one way to start
        return (), timestep(jnp.float32(self.brightness))

    def step(self, state, action, key):
        del action, key  # one way on
        return state, timestep(jnp.float32(self.brightness), 1.0)


@pytest.fixture
def registered():
    from envs import registry

    before = dict(registry._specs)
    yield envs.register
    registry._specs.clear()
    registry._specs.update(before)


def test_register_adds_a_class_and_make_checks_its_fields(registered):
    registered("test/Light-v0", Light, max_steps=3)
    assert "test/Light-v0" in envs.ids() and envs.ids() == sorted(envs.ids())
    env = envs.make("test/Light-v0", brightness=1)
    assert env.max_steps == 3 and env.env == Light(1.0)
    with pytest.raises(ValueError, match="no field 'bright'; near: brightness"):
        envs.make("test/Light-v0", bright=1)


def test_register_accepts_a_function_that_returns_an_environment(registered):
    def night(stars: int = 3):
        return Light(brightness=stars / 10)

    registered("test/Night-v0", night)
    assert envs.make("test/Night-v0", stars=2) == Light(0.2)
    with pytest.raises(ValueError, match=r"stars=0\.5 must be an integer"):
        envs.make("test/Night-v0", stars=0.5)


def test_register_refuses_a_taken_id_and_a_bad_limit(registered):
    with pytest.raises(ValueError, match="'CartPole-v1' is taken"):
        registered("CartPole-v1", Light)
    with pytest.raises(ValueError, match="max_steps=-1 must be an integer >= 1"):
        registered("test/Light-v0", Light, max_steps=-1)
    assert "test/Light-v0" not in envs.ids()


def test_make_vec_steps_environments_that_restart_by_themselves():
    env = envs.make_vec("probe/Counter-v0", 3, episode_length=2)
    state, ts = env.reset(jax.random.key(0))
    seen = [ts.obs[:, 0]]
    for i in range(3):
        state, ts = env.step(state, jnp.zeros(3, jnp.int32), jax.random.key(i + 1))
        seen.append(ts.obs[:, 0])
    np.testing.assert_array_equal(np.stack(seen), [[0] * 3, [1] * 3, [0] * 3, [1] * 3])


def test_listing_says_spaces_limit_and_source():
    assert row(envs.spec("CartPole-v1")) == (
        "CartPole-v1", "Box[4]", "Discrete(2)", "500", "native",
    )  # fmt: skip
    assert row(envs.spec("probe/MultiTarget-v0"))[1:4] == ("Box[1]", "MultiDiscrete(2, 3)", "-")
    assert row(envs.spec("gymnax/MNISTBandit-bsuite"))[1] == "downloads MNIST"


def test_importing_and_making_native_environments_imports_no_suite_and_starts_no_device():
    code = (
        "import sys, envs, jax\n"
        "envs.make('CartPole-v1'), envs.ids()\n"
        "assert not {'gymnax', 'gymnasium', 'brax'} & set(sys.modules)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_examples_of_the_documentation_run(registered):
    page = Path(__file__).parents[1] / "docs" / "environments.md"
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(block, names)
    assert names["ts"].obs.shape == (8, 2) and "Thermostat-v0" in envs.ids()

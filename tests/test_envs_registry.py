"""`envs.make` and what is around it: ids, fields, time limits, errors, the listing."""

import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

import envs
from envs import __main__ as listing
from envs.__main__ import row
from envs.bridges import BRIDGES, PLAIN, bridge
from envs.classic.cartpole import CartPole
from envs.registry import TABLE
from jaxrl import check, spaces
from jaxrl.env import Environment, timestep
from jaxrl.text import to_str
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


def test_register_refuses_what_is_no_environment_with_the_way_out(registered):
    for bad, words in (
        (dict, "dict is no jaxrl.Environment; derive the class"),
        (Light(), r"Light\(...\) is an instance; give its class, Light, or a partial"),
        (3, "3 is no environment; give an Environment class, or a function"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            registered("test/Bad-v0", bad)
        assert "\n" not in str(error.value)
    registered("test/Bad-v0", lambda: 3)
    with pytest.raises(ValueError, match="its function returned a int, no Environment"):
        envs.make("test/Bad-v0")


@pytest.mark.parametrize("id", ["gymnax/Mine-v0", "Breakout-MinAtar", "mine:Light", ""])
def test_register_refuses_an_id_that_means_or_would_mean_something_else(registered, id):
    with pytest.raises(ValueError, match=r"is taken by|must not begin with|must be a name"):
        registered(id, Light)


def test_a_partial_of_a_class_has_its_structure_and_its_optional_numbers(registered):
    registered("test/Dim-v0", functools.partial(CartPole, gravity=1.0))
    assert envs.make("test/Dim-v0").gravity == 1.0
    with pytest.raises(ValueError, match="x_limit is structure: not an array but a number"):
        envs.make("test/Dim-v0", x_limit=np.ones(2))
    game = "language/GuessTheNumber-easy"
    with pytest.raises(ValueError, match="turns is structure: not an array but an integer"):
        envs.make(game, turns=np.ones(2, int))
    assert envs.make(game).information is None
    assert envs.make(game, information=None).information is None
    assert isinstance(envs.make(game, information=1).information, float)
    with pytest.raises(ValueError, match="information='1' must be a number or None"):
        envs.make(game, information="1")


def test_a_function_without_a_default_asks_for_a_value(registered):
    registered("test/Needs-v0", lambda stars: Light(stars))
    with pytest.raises(ValueError, match="test/Needs-v0 needs a value for stars"):
        envs.make("test/Needs-v0")


MODULE = """
import functools
import envs
from jaxrl import Environment, spaces, timestep
from jaxrl.language import LanguageEnvironment

class Lamp(Environment):
    brightness: float = 0.5

class Talk(LanguageEnvironment):
    pass

def night(stars: int = 3):
    return Lamp(stars / 10)

number = 3
envs.register("mine/Lamp-v0", Lamp, max_steps=7)
"""


@pytest.fixture
def my_module(registered, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_module.py").write_text(MODULE.replace("spaces, ", ""))
    (tmp_path / "my_broken_module.py").write_text("import no_such_package")
    yield tmp_path
    sys.modules.pop("my_module", None)


def test_an_id_may_name_the_module_that_registers_or_defines_it(my_module):
    assert envs.make("my_module:mine/Lamp-v0").max_steps == 7
    assert type(envs.make("my_module:Lamp", brightness=1)).__name__ == "Lamp"
    assert envs.make("my_module:night", stars=2).brightness == 0.2
    assert envs.make("my_module:CartPole-v1").max_steps == 500
    assert envs.spec("my_module:Talk").is_language and not envs.spec("my_module:night").is_language


def test_what_is_wrong_with_a_module_or_its_id_is_said_in_one_line(my_module):
    for id, words in (
        ("my_modul:Lamp", rf"No module 'my_modul' in {my_module} or where Python looks"),
        ("my_module.inner:Lamp", "No module 'my_module.inner' in"),
        ("my_module:Lam", "registers and defines no 'Lam'; near: Lamp, mine/Lamp-v0; its env"),
        ("my_module:number", "3 is no environment"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            envs.make(id)
        assert "\n" not in str(error.value)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        envs.make("my_broken_module:Lamp")


def test_a_spec_says_whether_its_environment_is_spoken_to(registered, monkeypatch):
    registered("test/Night-v0", lambda: Light())
    registered("test/Talk-v0", lambda: envs.make("reasoning/countdown"))
    assert envs.spec("test/Talk-v0").is_language and not envs.spec("test/Night-v0").is_language
    monkeypatch.setattr("jaxrl.envs.registry.make", None)  # nothing is made where the class tells
    kinds = ("gem", "language", "reasoning", "tools")
    spoken = {id for id in envs.ids() if id in TABLE and envs.spec(id).is_language}
    assert spoken == {id for id in TABLE if id.split("/")[0] in kinds}
    assert not envs.spec("Breakout-MinAtar").is_language


def test_a_time_limit_around_texts_is_refused():
    with pytest.raises(ValueError, match="max_steps=3 is not for texts"):
        envs.make("language/Mastermind-easy", max_steps=3)


def test_native_ids_leave_the_names_of_suites_alone():
    assert not TABLE.keys() & PLAIN.keys()
    assert not {id.split("/")[0] for id in TABLE} & BRIDGES.keys()
    assert len(PLAIN) == 21 and set(PLAIN.values()) <= {
        f"{suite}/{name}" for suite in BRIDGES for name in bridge(suite).ids()
    }
    assert envs.spec("gymnax/CartPole-v1").source == "gymnax"
    assert envs.spec("CartPole-v1").source == "native"


def test_ids_list_every_suite_and_no_environment_twice():
    assert envs.ids() == sorted(set(envs.ids()))
    assert set(TABLE) | set(PLAIN) | {"gymnax/CartPole-v1"} <= set(envs.ids())
    assert "gymnax/Breakout-MinAtar" not in envs.ids()
    assert envs.spec("gymnax/Breakout-MinAtar").source == "gymnax"


def test_make_vec_steps_environments_that_restart_by_themselves():
    env = envs.make_vec("probe/Counter-v0", 3, episode_length=2)
    state, ts = jit(env.reset)(jax.random.key(0))
    step = jit(env.step)
    seen = [ts.obs[:, 0]]
    for i in range(3):
        state, ts = step(state, jnp.zeros(3, jnp.int32), jax.random.key(i + 1))
        seen.append(ts.obs[:, 0])
    np.testing.assert_array_equal(np.stack(seen), [[0] * 3, [1] * 3, [0] * 3, [1] * 3])


def test_listing_says_spaces_limit_and_source():
    assert row(envs.spec("CartPole-v1")) == (
        "CartPole-v1", "Box[4]", "Discrete(2)", "500", "native",
    )  # fmt: skip
    assert row(envs.spec("probe/MultiTarget-v0"))[1:4] == ("Box[1]", "MultiDiscrete(2, 3)", "-")
    assert row(envs.spec("gymnax/MNISTBandit-bsuite"))[1] == "downloads MNIST"


def test_the_page_of_the_suites_has_what_can_be_made_and_says_why_the_rest_is_not(
    monkeypatch, capsys
):
    few = {"gymnax": ("CartPole-v1", "MNISTBandit-bsuite"), "brax": ("ant", "hopper")}
    monkeypatch.setattr(listing, "BRIDGES", few)
    monkeypatch.setitem(sys.modules, "brax", None)
    for suite, names in few.items():
        monkeypatch.setattr(listing.bridge(suite), "NAMES", names)
    listing.page()
    said = capsys.readouterr().out
    assert f"\n## gymnax\n\n{bridge('gymnax').MENDS}\n" in said
    assert "| `gymnax/CartPole-v1` | Box[4] | Discrete(2) | 500 | 36 |\n" in said
    assert "\nNot made for this page: downloads MNIST\n`MNISTBandit-bsuite`\n" in said
    why = "page: brax is not installed: pip install 'jaxrl[brax]'"
    assert why in said and "\n`ant`\n`hopper`\n" in said


@pytest.mark.parametrize("suite", BRIDGES)
def test_a_bridge_says_in_a_line_what_it_mends(suite):
    assert re.fullmatch(r"\S.{20,}\.", bridge(suite).MENDS)


def run_python(code: str) -> str:
    """What it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_and_making_native_environments_imports_no_suite_and_starts_no_device():
    said = run_python(
        "import sys, envs, jax\n"
        "envs.make('CartPole-v1'), envs.spec('CartPole-v1')\n"
        "print([name for name in sys.modules if name.startswith('jaxrl.envs.bridges.')])\n"
        "print(len(envs.ids()) > 50, sorted({'gymnax', 'gymnasium', 'brax'} & set(sys.modules)))\n"
        "from jax._src import xla_bridge\n"
        "print(list(xla_bridge._backends))\n"
    )
    assert said == "[]\nTrue []\n[]\n"


def test_the_listing_works_without_gymnax_and_ends_quietly_when_nobody_reads_on():
    said = run_python(
        "import os, sys\n"
        "sys.modules['gymnax'] = None\n"
        "from jaxrl.envs.__main__ import main, row\n"
        "from jaxrl import envs\n"
        "print(row(envs.spec('Catch-bsuite'))[1], flush=True)\n"
        "read, write = os.pipe()\n"
        "os.close(read)\n"
        "os.dup2(write, 1)\n"
        "main([])\n"
    )
    assert "pip install 'jaxrl[gymnax]'" in said and said.count("\n") == 1


def test_the_examples_of_the_documentation_run(registered):
    page = Path(__file__).parents[1] / "docs" / "environments.md"
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(block, names)
    assert names["ts"].obs.shape == (8, 2) and "Thermostat-v0" in envs.ids()
    nim = envs.make("mine/Nim-v0", stones=5)
    with jax.debug_key_reuse(False):
        check.check_structure(nim, seed=0)

    @jit
    def play(key):
        state, ts = nim.reset(key)
        said, obs = [], [ts.obs]
        for step_key in jax.random.split(key, 2):
            said.append(nim.expert(state, step_key))
            state, ts = nim.step(state, said[-1], step_key)
            obs.append(ts.obs)
        return said, obs, ts

    with jax.debug_key_reuse(False):
        said, obs, ts = play(jax.random.key(0))
    assert [to_str(text) for text in obs][::2] == [r"5 stones, take 1-3: \boxed{N}", "won"]
    assert to_str(said[0]) == r"\boxed{1}" and ts.terminated and ts.reward == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", "module 'broken' cannot be imported: ZeroDivisionError: division by zero ("),
        ("raise SystemExit(0)", "module 'broken' cannot be imported: SystemExit: 0 ("),
        ("def Odd(): return [][0]", "broken:Odd cannot be made: IndexError: list index out of"),
        ("def Odd(): return {}['k']", "broken:Odd cannot be made: KeyError: 'k' ("),
    ],
)
def test_what_a_users_own_code_raises_is_told_with_its_place(tmp_path, monkeypatch, code, words):
    (tmp_path / "broken.py").write_text(code + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(ValueError) as error:
        envs.make("broken:Odd")
    assert str(error.value).startswith(words) and ", line " in str(error.value)
    sys.modules.pop("broken", None)

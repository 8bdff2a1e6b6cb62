"""`check_env`: for every check an environment that breaks it, and ones that keep all."""

import random
from dataclasses import replace

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walk import Walk, WalkState, refuse

from jaxrl.check import check_env, cost
from jaxrl.env import Environment, static, timestep
from jaxrl.spaces import Box, Discrete, MultiDiscrete
from jaxrl.wrappers import EpisodeStats, TimeLimit


@pytest.fixture(scope="module")
def card():
    return check_env(Walk(), num_steps=30, num_envs=4)


def test_an_environment_that_keeps_the_contract_gets_a_card(card):
    assert (card.env, card.batch_size, card.state_bytes, card.obs_bytes) == ("Walk", 1024, 8, 8)
    assert card.step_ns > 0 and card.reset_ns > 0 and card.compile_s > 0
    assert not card.deterministic_reset
    assert 10 < card.step_ops < 100


def test_the_card_prints_its_costs_as_a_table(card):
    lines = str(card).splitlines()
    assert lines[0] == f"Walk on {jax.default_backend()}, per environment of 1024"
    assert [line.split()[0] for line in lines[1:]] == ["step", "reset", "state", "obs", "compile"]
    assert f"{card.step_ops} ops" in lines[1] and lines[3].endswith("8 bytes")


class Tables(Environment):
    """Observations and actions in dicts and tuples, of every kind of space; one start state."""

    @property
    def observation_space(self):
        board = Box(False, True, (2,), np.bool_)
        return {"board": board, "turn": (Discrete(40), MultiDiscrete((2, 3)))}

    @property
    def action_space(self):
        return {"force": Box(-1.0, 1.0, (2,)), "hop": Discrete(2)}

    def reset(self, key):
        del key  # every episode starts at 0
        return {"t": jnp.zeros((), jnp.int32)}, self.look(jnp.zeros((), jnp.int32))

    def step(self, state, action, key):
        del key  # the dynamics are deterministic
        t = state["t"] + action["hop"] + 1
        return {"t": t}, self.look(t, jnp.sum(action["force"]), t >= 30)

    def look(self, t, reward=0.0, terminated=False):
        turn = (t, jnp.stack([t % 2, t % 3]))
        return timestep({"board": jnp.stack([t > 3, t > 5]), "turn": turn}, reward, terminated)


def test_pytrees_of_spaces_pass_and_a_deterministic_reset_is_noted_on_the_card(monkeypatch, card):
    monkeypatch.setattr(cost, "measure", lambda env, *_, **notes: replace(card, **notes))
    found = check_env(Tables(), num_steps=40, num_envs=2, verbose=False)
    assert found.deterministic_reset and "deterministic reset" in str(found)


def test_the_supported_wrappers_keep_the_contract(monkeypatch, capsys):
    monkeypatch.setattr(cost, "measure", lambda env, *_, **__: cost.describe(env))
    check_env(EpisodeStats(TimeLimit(Walk(), 5)), num_steps=30, num_envs=2)
    assert capsys.readouterr().out == "EpisodeStats(TimeLimit(Walk))\n"


class Stateless(Environment):
    """Its state is nothing: what it shows is drawn anew."""

    scale: float = 1.0
    bonus: float | None = None  # paid for action 1

    @property
    def observation_space(self):
        return Box(-float("inf"), float("inf"), (2,))

    @property
    def action_space(self):
        return Discrete(2)

    def reset(self, key):
        return (), timestep(self.scale * jax.random.normal(key, (2,), jnp.float32))

    def step(self, state, action, key):
        reward = 0.0 if self.bonus is None else self.bonus * action
        obs = self.scale * jax.random.normal(key, (2,), jnp.float32)
        return state, timestep(obs, reward, obs[0] > 1)


def test_an_empty_state_and_a_number_that_is_off_keep_the_contract(monkeypatch):
    for env in (Stateless(), Stateless(bonus=0.5)):
        with monkeypatch.context() as patch:
            patch.setattr(cost, "measure", lambda env, *_, **__: cost.describe(env))
            assert check_env(env, num_steps=20, num_envs=2, verbose=False) == "Stateless"


def test_a_number_of_steps_below_one_is_refused():
    with pytest.raises(ValueError, match=r"num_steps=0 must be at least 1; try 8\."):
        check_env(Walk(), num_steps=0)


# Fields and spaces.


def test_a_class_instead_of_an_instance_is_refused():
    refuse(Walk, "check_is_environment", ["is not an Environment", "Walk() and not Walk"])


def test_an_attribute_that_is_no_field_is_refused():
    class Stores(Walk):
        def __post_init__(self):
            object.__setattr__(self, "area", self.limit**2)

    refuse(Stores(), "check_is_environment", ["Stores.area is set but not declared", "property"])


def test_a_field_that_is_text_is_refused_unless_static():
    class Named(Walk):
        level: str = "easy"

    refuse(Named(), "check_is_pytree", ["Named.level='easy' is not a number", "static(default)"])


def test_a_static_field_that_cannot_be_hashed_is_refused():
    class Listed(Walk):
        sizes: list = static(None)

    refuse(TimeLimit(Listed(sizes=[1])), "check_is_pytree", ["Listed.sizes is static", "tuple"])


def test_a_field_replaced_when_the_environment_is_put_together_is_refused():
    class Shifts(Walk):
        def __post_init__(self):
            object.__setattr__(self, "stride", self.stride + 1)

    refuse(Shifts(), "check_is_pytree", ["changes when it is made again", "property"])


def test_a_check_of_a_number_that_fails_inside_jit_is_refused():
    class Strict(Walk):
        def __post_init__(self):
            if self.stride < 0:
                raise ValueError("stride")

    refuse(Strict(), "check_can_be_traced", ["if self.stride < 0", "`jaxrl.env.check_numbers`"])


def test_a_number_that_is_static_without_a_space_that_needs_it_is_refused():
    class Frozen(Walk):
        friction: float = static(0.5)

    refuse(
        TimeLimit(Frozen()),
        "check_numbers_are_leaves",
        ["Frozen.friction=0.5", "write `friction: float = 0.5`"],
    )


def test_a_space_that_is_no_space_is_refused():
    class Counts(Walk):
        action_space = 3

    refuse(Counts(), "check_spaces", ["Counts.action_space holds 3", "returns a Discrete"])


def test_a_space_that_depends_on_a_number_field_is_refused():
    class Bounded(Walk):
        @property
        def action_space(self):
            return Box(-self.stride, self.stride, (1,))

    refuse(Bounded(), "check_spaces", ["Bounded.action_space", "static(default)"])


# Traced programs.


def test_a_dtype_that_depends_on_a_field_being_an_array_is_refused():
    class Rounds(Walk):
        hop: int = 1

        def look(self, state, reward=0.0, terminated=False):
            ts = super().look(state, reward, terminated)
            return ts.replace(metrics={"hop": self.hop * jnp.int8(1)})

    refuse(
        Rounds(),
        "check_numbers_may_be_arrays",
        ["Rounds.reset: timestep.metrics['hop'] is int8[]", "and int32[] where they are arrays"],
    )


def test_a_python_if_on_a_traced_value_is_refused_with_its_line():
    class Branches(Walk):
        def step(self, state, action, key):
            if state.x > 0:
                action = 0
            return super().step(state, action, key)

    refuse(Branches(), "trace", ["Branches.step", "`if state.x > 0:`", "jnp.where"])


def test_a_step_that_returns_no_timestep_is_refused():
    class Gym(Walk):
        def step(self, state, action, key):
            state, ts = super().step(state, action, key)
            return ts.obs, ts.reward, ts.done

    refuse(Gym(), "trace", ["Gym.step returns a tuple", "(state, TimeStep)"])


def test_random_numbers_of_python_are_refused():
    class Dice(Walk):
        def step(self, state, action, key):
            state, ts = super().step(state, action, key)
            return state, ts.replace(reward=ts.reward + random.random())

    refuse(Dice(), "check_traces_agree", ["Dice.step gives another program", "from `key`"])


def test_a_step_that_prints_is_refused():
    class Prints(Walk):
        def step(self, state, action, key):
            jax.debug.print("x {}", state.x)
            return super().step(state, action, key)

    refuse(Prints(), "check_no_callbacks", ["Prints.step calls back to Python", "metrics"])


def test_a_callback_inside_a_loop_is_refused():
    class Calls(Walk):
        def reset(self, key):
            def ask(_, x):
                return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), jnp.float32), x)

            state, ts = super().reset(key)
            return state.replace(x=jax.lax.fori_loop(0, 3, ask, state.x)), ts

    refuse(Calls(), "check_no_callbacks", ["Calls.reset", "pure_callback"])


def test_a_reset_with_a_key_of_its_own_is_refused():
    class Seeded(Walk):
        def reset(self, key):
            return super().reset(jax.random.key(0))

    refuse(Seeded(), "check_has_no_key", ["Seeded.reset has a key of its own", "`key` it is"])


def test_a_key_kept_outside_is_refused():
    kept = jax.random.key(0)

    class Kept(Walk):
        def step(self, state, action, key):
            return super().step(state, action, jax.random.fold_in(kept, state.t))

    refuse(Kept(), "check_has_no_key", ["Kept.step has a key of its own"])


class KeyedState(flax.struct.PyTreeNode):
    inner: WalkState
    noise: jax.Array


@pytest.mark.parametrize("store", [lambda key: key, jax.random.key_data], ids=["typed", "raw"])
def test_a_key_in_the_state_is_refused(store):
    class Keeps(Walk):
        def reset(self, key):
            reset_key, kept_key = jax.random.split(key)
            state, ts = super().reset(reset_key)
            return KeyedState(state, store(kept_key)), ts

        def step(self, state, action, key):
            inner, ts = super().step(state.inner, action, key)
            return KeyedState(inner, state.noise), ts

    refuse(Keeps(), "check_no_key_in_state", ["Keeps.reset keeps a key", "state.noise"])


@pytest.mark.parametrize("name", ["reset", "step"])
def test_a_key_used_twice_is_refused(name):
    class Reuses(Walk):
        def look(self, state, reward=0.0, terminated=False):
            return super().look(state, reward, terminated)

    def twice(self, *args):
        state, ts = getattr(Walk, name)(self, *args)
        return state, ts.replace(reward=ts.reward * 0 * jax.random.uniform(args[-1]))

    setattr(Reuses, name, twice)
    refuse(Reuses(), "check_keys_are_used_once", [f"Reuses.{name} uses a key twice", "split(key)"])

"""Fields of every native environment: a value is refused by name, or an episode stands it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

import envs
from envs.language.guess_the_number import GuessTheNumber
from envs.language.mastermind import Mastermind
from envs.language.tower_of_hanoi import TowerofHanoi
from envs.reasoning.chain_sum import ChainSum
from envs.reasoning.countdown import Countdown
from envs.registry import TABLE
from jaxrl import spaces
from jaxrl.language import LanguageEnvironment

STRANGE = (0, -1, 10**9, 2**40, 1e30, float("nan"), float("inf"), -float("inf"))
# One id of each class, that of the table's first; a level is the class with other fields.
IDS = {type(envs.make(id, max_steps=None)): id for id in sorted(TABLE, reverse=True)}


def numeric_fields(cls):
    """Names of the fields that are numbers; of one that is off by default too."""
    kinds = (int, float, int | None, float | None)
    return [field.name for field in dataclasses.fields(cls) if field.type in kinds]


@jit
def episode(env, key):
    """TimeSteps of a reset and of 4 steps, with states."""
    reset_key, key = jax.random.split(key)

    def step(state, key):
        action_key, step_key = jax.random.split(key)
        if isinstance(env, LanguageEnvironment):
            action = env.random_player(state, action_key)
        else:
            action = spaces.sample(env.action_space, action_key)
        state, ts = env.step(state, action, step_key)
        return state, (state, ts, spaces.contains(env.observation_space, ts.obs))

    state, first = env.reset(reset_key)
    return first, jax.lax.scan(step, state, jax.random.split(key, 4))[1]


def is_finite(tree):
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return all(np.all(np.isfinite(x)) for x in floats)


@pytest.mark.parametrize("cls", IDS, ids=lambda cls: cls.__name__)
def test_a_strange_number_is_refused_by_its_name_or_an_episode_stands_it(cls):
    refused = set()
    for name in numeric_fields(cls):
        for value in STRANGE:
            try:
                env = envs.make(IDS[cls], max_steps=None, **{name: value})
            except ValueError as error:
                assert f"{name}={value}" in str(error), error
                assert "\n" not in str(error) and "try" in str(error)
                refused.add((name, str(value)))
                continue
            first, (state, ts, _) = episode(env, jax.random.key(0))
            assert is_finite((first, state, ts)), f"{name}={value}"
    never = {(name, value) for name in numeric_fields(cls) for value in ("nan", "inf", "-inf")}
    assert never <= refused


def test_a_field_is_checked_in_arrays_too_and_lets_what_is_traced_pass():
    assert envs.make("Pendulum-v1", mass=np.array([0.5, 2.0])).env.mass.shape == (2,)
    for bad in (np.array([1.0, 0.0]), jnp.array([1.0, jnp.inf])):
        with pytest.raises(ValueError, match=r"^mass=\[.*\] must be a number from 0.001 to 1000"):
            envs.make("Pendulum-v1", mass=bad)
    traced = jax.jit(lambda mass: envs.make("Pendulum-v1", mass=mass).env.mass * 2)
    assert traced(0.0) == 0
    with pytest.raises(ValueError, match="low=7 must not exceed high=3"):
        envs.make("language/GuessTheNumber-easy", low=7, high=3)
    for game in ("GuessTheNumber", "Mastermind", "TowerofHanoi"):
        with pytest.raises(ValueError, match="turns=0 must be a number from 1 to 1000"):
            envs.make(f"language/{game}-easy", turns=0)
    with pytest.raises(ValueError, match=r"high=10000 must be a number from 1 to 9999"):
        envs.make("language/GuessTheNumber-easy", high=10_000)


def wins(env, turns, keys):
    """float32 [n, keys]: the success of the expert's episodes; the leaves of `env` are [n]."""

    def play(env, key):
        reset_key, key = jax.random.split(key)
        state, _ = env.reset(reset_key)

        def turn(carry, key):
            state, over, won = carry
            expert_key, step_key = jax.random.split(key)
            said = env.expert(state, expert_key)
            state, ts = env.step(state, said, step_key)
            won = jnp.where(over, won, ts.metrics["success"])
            return (state, over | ts.done | said.cut, won), None

        start = state, jnp.asarray(False), jnp.zeros((), jnp.float32)
        return jax.lax.scan(turn, start, jax.random.split(key, turns))[0][2]

    n = max([1, *(len(x) for x in jax.tree.leaves(env))])
    env = jax.tree.map(lambda x: jnp.repeat(x, keys), env)
    with jax.debug_key_reuse(False):  # under vmap the checker sees a split's two halves as one
        won = jit(jax.vmap(play))(env, jax.random.split(jax.random.key(1), n * keys))
    return won.reshape(n, keys)


def stacked(env, **fields):
    """Copies of the environment, leaves [n], with these numbers in some fields."""
    n = max([1, *map(len, fields.values())])
    env = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (n,)), env)
    return env.replace(**{name: jnp.asarray(value) for name, value in fields.items()})


@pytest.mark.parametrize(
    ("env", "fields"),
    [
        (
            GuessTheNumber(turns=14),  # 2^14 > 9999
            {"low": [1, 5, 1, 9000, 1, 61], "high": [10, 5, 100, 9999, 9999, 9998]},
        ),
        (Mastermind(length=1, numbers=9, turns=9), {}),
        (Mastermind(length=3, numbers=9, turns=15), {}),
        (TowerofHanoi(disks=1, turns=1), {}),
        (TowerofHanoi(disks=6, turns=63), {}),
        (
            ChainSum(max_terms=20, max_digits=8),
            {"terms": [1, 20, 20, 7], "digits": [1, 1, 8, 5]},
        ),
        (Countdown(max_numbers=2, numbers=2, max_largest=499), {"largest": [1, 10, 499]}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LanguageEnvironment) else "",
)
def test_the_expert_wins_wherever_the_rules_allow(env, fields):
    env = stacked(env, **fields)
    np.testing.assert_array_equal(wins(env, env.max_turns, 8), 1.0)

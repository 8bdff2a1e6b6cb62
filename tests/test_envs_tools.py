"""Environments with tools: calls change the world, results are told, the end is judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from jaxrl.text import literal, to_str
from jaxrl.text.calls import ERRORS


def played(env, state, said):
    """What is answered to each response, and the last TimeStep."""
    step, told = jax.jit(env.step), []
    for text in said:
        state, ts = step(state, literal(text, env.response_bytes), jax.random.key(0))
        told.append(to_str(ts.obs))
    return told, ts, state


def test_a_calculator_is_used_in_words():
    env = envs.make("tools/Calculator", prompt="instruct", calls=2, turns=4)
    state, ts = env.reset(jax.random.key(1))
    assert to_str(ts.obs).startswith("What is (")
    world = state.world.replace(number=jnp.asarray([12, 34, 5]), sign=jnp.asarray([2, 1]))
    call = '<tool_call>{"name": "%s", "arguments": {"b": %s, "a": %s}}</tool_call>'
    said = [
        "First " + call % ("multiply", 34, 12) + call % ("divide", 1, 2),
        call % ("subtract", 5, 408) + call % ("multiply", 99999, 99999) + call % ("add", 1, 1),
        "It is **403**.",
    ]
    told, ts, state = played(env, state.replace(world=world), said)
    result = "<tool_response>\n{}\n</tool_response>".format
    overflow, many = "error: the result does not fit 32 bits", "error: too many calls at once"
    assert told[0] == result("408") + "\n" + result(ERRORS[3])
    assert told[1] == "\n".join(map(result, ("403", overflow, many)))
    assert told[2] == "right" and ts.reward == 1 and ts.terminated and ts.metrics["success"] == 1
    assert ts.metrics["wrong_form"] == 1 and state.failed == 1  # no tool is called divide


def test_turns_run_out_and_an_answer_without_tools_counts():
    env = envs.make("tools/Calculator", turns=2)
    state, _ = env.reset(jax.random.key(0))
    answer = int(env.results(state.world)[-1])
    call = '{"name": "add", "arguments": {"a": 1, "b": 1}}'
    told, ts, _ = played(env, state, [call, call])
    assert told == ["2", "no answer"] and ts.terminated and ts.reward == np.float32(-0.1)
    told, ts, _ = played(env, state, [rf"\boxed{{{answer}}}"])
    assert told == ["right"] and ts.reward == 1 and ts.terminated
    told, ts, _ = played(env, state, [call, rf"\boxed{{{answer + 1}}}"])
    assert told[1] == "wrong" and ts.reward == 0 and ts.metrics["success"] == 0


def episodes(env, player, num):
    """(reward, success, turns, bool: all that is said fits) [num] of whole episodes."""

    def episode(key):
        state, ts = env.reset(key)

        def step(carry, key):
            state, ts = carry
            said = player(state, key)
            new = env.step(state, said, key)
            kept = jax.tree.map(lambda a, b: jnp.where(ts.done, a, b), (state, ts), new)
            return kept, said.cut | new[1].obs.cut

        (state, ts), cut = jax.lax.scan(step, (state, ts), jax.random.split(key, env.max_turns))
        return ts.reward, ts.metrics["success"], ts.terminated, ~jnp.any(cut)

    return jax.device_get(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), num)))


@pytest.mark.parametrize("id", ["tools/Calculator"])
def test_the_expert_is_right_and_the_random_player_is_not(id):
    env = envs.make(id)
    reward, success, terminated, fits = episodes(env, env.expert, 32)
    assert (reward == 1).all() and success.all() and terminated.all() and fits.all()
    reward, success, terminated, fits = episodes(env, env.random_player, 32)
    assert success.mean() < 0.5 and terminated.all() and fits.all()

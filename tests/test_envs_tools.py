"""Environments with tools: calls change the world, results are told, the end is judged."""

import re

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
        reset_key, run_key = jax.random.split(key)
        state, ts = env.reset(reset_key)

        def step(carry, t):
            state, ts = carry
            player_key, step_key = jax.random.split(jax.random.fold_in(run_key, t))
            said = player(state, player_key)
            new = env.step(state, said, step_key)
            kept = jax.tree.map(lambda a, b: jnp.where(ts.done, a, b), (state, ts), new)
            return kept, said.cut | new[1].obs.cut

        (state, ts), cut = jax.lax.scan(step, (state, ts), jnp.arange(env.max_turns))
        return ts.reward, ts.metrics["success"], ts.terminated, ~jnp.any(cut)

    keys = jax.random.split(jax.random.key(0), num)
    return jax.device_get(jax.jit(jax.vmap(episode))(keys))


@pytest.mark.parametrize("id", ["tools/Calculator", "tools/Office", "tools/Search"])
def test_the_expert_is_right_and_the_random_player_is_not(id):
    env = envs.make(id)
    reward, success, terminated, fits = episodes(env, env.expert, 32)
    assert (reward == 1).all() and success.all() and terminated.all() and fits.all()
    reward, success, terminated, fits = episodes(env, env.random_player, 32)
    assert success.mean() < 0.5 and terminated.all() and fits.all()


SEND = (
    '{"name": "email_send_email", "arguments": {"recipient": "%s", "subject": "%s", "body": "%s"}}'
)
DELETE = '{"name": "email_delete_email", "arguments": {"email_id": "%s"}}'


@pytest.fixture(scope="module")
def office():
    """An office in which an email is to be sent and another one to be deleted."""
    env = envs.make("tools/Office", tools=4, steps=3, partial=0.5, calls=2, turns=3)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    told, _, done = played(env, state, [SEND % ("sam.lee@atlas.com", "Lunch", "At noon?"), "ok"])
    assert told[0] == "done"
    wanted = done.world.tables
    wanted = wanted.replace(alive=wanted.alive.at[1, 2].set(False))
    changed = jnp.zeros_like(state.world.changed).at[1, jnp.asarray([2, 6])].set(True)
    return env, state.replace(world=state.world.replace(target=wanted, changed=changed))


def test_the_email_that_is_asked_for_is_sent_by_a_call_and_pays_1():
    env = envs.make("tools/Office", tools=2, steps=1, prompt="instruct")
    step = jax.jit(env.step)
    start, ts = jax.jit(env.reset)(jax.random.key(3))
    asked = r"Send an email to (\S+) with the subject '(.+)' and the body '(.+)'\."
    found = re.fullmatch(asked, to_str(ts.obs))
    assert found is not None
    recipient, subject, body = found.groups()
    spelled = "".join(f"\\u{ord(x):04x}" for x in body)
    call = (
        'I send it.\n<tool_call>\n {"arguments": {"body": "%s",\n "subject": "%s", "recipient"'
        ': "%s"}, "name": "email_send_email"}</tool_call>'
    )
    for wanted, said in (
        (1, [call % (spelled, subject, recipient), "Done."]),
        (1, [call % (spelled.upper().replace("U", "u"), subject, recipient), "Done."]),
        (0, [call % (spelled + "!", subject, recipient), "Done."]),
        (0, [*[call % (body, subject, recipient)] * 2, "Done."]),
        (0, ["Done."]),
    ):
        state, told = start, []
        for text in said:
            state, ts = step(state, literal(text, env.response_bytes), jax.random.key(0))
            told.append(to_str(ts.obs))
        assert float(ts.reward) == wanted and bool(ts.terminated)
        assert told[:-1] == ["<tool_response>\ndone\n</tool_response>"] * (len(said) - 1)


def email(state, row, field):
    tables = state.world.tables
    return bytes(tables.bytes[1, row, field][: tables.length[1, row, field]]).decode()


def end(office, *said):
    env, state = office
    _, ts, _ = played(env, state, [*said, "done"])
    assert ts.terminated
    return float(ts.reward), float(ts.metrics["success"])


def test_an_email_is_sent_and_the_state_of_the_office_says_so(office):
    _, state = office
    send, drop = SEND % ("sam.lee@atlas.com", "Lunch", "At noon?"), DELETE % email(state, 2, 0)
    assert end(office, send, drop) == (1, 1) and end(office, drop, send) == (1, 1)
    assert end(office, drop, SEND % ("SAM.LEE@atlas.com", "lunch", "at noon?")) == (1, 1)
    both = "".join(f"<tool_call>{call}</tool_call>" for call in (send, drop))
    assert end(office, both) == (1, 1)
    assert end(office) == (0, 0)  # nothing was done
    assert end(office, drop) == (0.25, 0)  # one of two rows
    assert end(office, send, send) == (0.0, 0)  # one is right, and one should not be there
    assert end(office, drop, SEND % ("sam.lee@atlas.com", "Lunch", "At one?"))[1] == 0
    assert end(office, send, DELETE % email(state, 3, 0))[1] == 0


def test_an_office_answers_what_is_not_so(office):
    env, state = office
    found = '{"name": "company_directory_find_email_address", "arguments": {"name": "%s"}}'
    subject = '{"name": "email_search_emails", "arguments": {"query": "x"}}'
    told, _, _ = played(env, state, [found % "nobody", DELETE % "1", subject])
    assert told[:2] == ["nothing found", "error: no row has that id"]
    address = state.world.tables.bytes[0, 0, 2].tobytes().strip(b"\0").decode()
    name = state.world.tables.bytes[0, 0, 1].tobytes().strip(b"\0").decode()
    call = f"<tool_call>{subject}</tool_call><tool_call>{found % name.upper()}</tool_call>"
    told, _, _ = played(env, state, [call, "done"])
    assert told[0] == ERRORS[3] + "\n" + address  # the fifth tool is not among the four

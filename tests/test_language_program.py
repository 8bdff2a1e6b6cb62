"""A language agent's whole iteration as one program: no host in it, the same on any devices."""

import re
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from quick import jit

import envs
from jaxrl.algos import grpo
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.model.config import preset
from jaxrl.lm.play.rounds import limits
from jaxrl.mesh import make_mesh
from jaxrl.program import make_program
from jaxrl.text import ByteTokenizer, make_chat

CFG = grpo.Config(
    num_prompts=4,
    group_size=2,
    num_lanes=8,
    micro_batch=2,
    sft_steps=1,
    sft_episodes=8,
    total_episodes=24,
)


@pytest.fixture(scope="module")
def agent():
    env = envs.make("language/GuessTheNumber-easy")
    chat = make_chat(ByteTokenizer())
    model = replace(preset("nano", 260), width=16, num_layers=1, head_dim=8, hidden=16)
    return Agent(env, chat, limits(env, chat), model)


def compiled(agent, devices):
    program = make_program(
        partial(grpo.init, cfg=CFG, agent=agent),
        partial(grpo.update, cfg=CFG, agent=agent),
        partial(grpo.specs, CFG, agent),
        make_mesh(1, jax.devices()[:devices]),
        max_count=4,
        one_by_one=True,
    )
    init, run = program.compile(1)
    return program, init, run


@pytest.fixture(scope="module")
def on_one(agent):
    return compiled(agent, 1)


def iterate(parts, counts):
    """(state, metrics of each iteration) of running the counts one after the other."""
    program, init, run = parts
    seeds = program.seeds(0, 1)
    counts = [program.scalar(count) for count in counts]
    state, logs = init(seeds), []
    with jax.transfer_guard("disallow"):
        for count in counts:
            state, metrics = run(state, seeds, count)
            logs.append(metrics)
    rows = [
        {name: np.asarray(value)[i, 0] for name, value in log.items()}
        for log, count in zip(logs, counts, strict=True)
        for i in range(int(count))
    ]
    return jax.tree.map(np.asarray, state), rows


@pytest.fixture(scope="module")
def history(on_one):
    return iterate(on_one, [3])


def test_an_iteration_runs_without_the_host_and_has_no_callback(on_one, history):
    assert len(history[1]) == 3
    text = on_one[2].as_text()
    targets = set(re.findall(r'custom_call_target="([^"]+)"', text))
    assert not {t for t in targets if "callback" in t.lower()}, targets
    assert "infeed" not in text and "outfeed" not in text


def test_the_warm_start_comes_first_and_then_episodes_are_played(history):
    warm, *improved = history[1]
    assert warm["episodes"] == 0 and np.isnan(warm["episode_return"])
    assert warm["loss"] > 4  # nats, near log(260) at the start
    assert [m["episodes"] for m in improved] == [8, 8]
    assert all(np.isfinite(m["episode_return"]) for m in improved)


def test_sampler_and_learner_agree_in_every_iteration(history):
    assert all(m["log_prob_gap"] <= 1e-4 for m in history[1][1:])
    assert all(m["ratio_error"] == 0 for m in history[1][1:])  # one step: on-policy


@pytest.mark.slow
def test_bfloat16_computes_what_float32_keeps(agent):
    """The sampler decodes with a cache, the learner reads at once: they differ, and it is told."""
    half = replace(agent, model_config=replace(agent.model_config, dtype="bfloat16"))
    cfg = replace(CFG, sft_steps=0, total_episodes=8, entropy_coef=0.1)
    state = grpo.init(jax.random.key(0), cfg=cfg, agent=half)
    after, metrics = jit(partial(grpo.update, cfg=cfg, agent=half))(state, jax.random.key(1))
    kept = jax.tree.leaves((after.model, after.opt_state))
    assert {x.dtype.name for x in kept} == {"float32", "int32"}  # a count is int32
    assert 0 < metrics["log_prob_gap"] < 0.02
    assert np.isfinite(metrics["grad_norm"]) and metrics["grad_norm"] > 0


def test_a_run_in_chunks_is_bit_for_bit_the_run_at_once(on_one, history):
    state, rows = iterate(on_one, [1, 1, 1])
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(history[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [m["loss"] for m in rows] == [m["loss"] for m in history[1]]


@pytest.mark.slow
def test_two_devices_play_the_same_episodes_while_the_weights_are_equal(agent):
    """The model whole on each, and split. The warm start's sums differ in their last bits, so it is
    left out of the comparison.
    """
    cold = replace(CFG, sft_steps=0, total_episodes=8)
    states = []
    for devices, split in ((1, False), (2, False), (2, True)):
        mine = replace(agent, split=split)
        program = make_program(
            partial(grpo.init, cfg=cold, agent=mine),
            partial(grpo.update, cfg=cold, agent=mine),
            partial(grpo.specs, cold, mine),
            make_mesh(1, jax.devices()[:devices]),
            max_count=1,
            one_by_one=True,
        )
        parts = (program, *program.compile(1))
        state = parts[1](program.seeds(0, 1))
        embedding = state.model.embed[...]
        assert embedding.addressable_shards[0].data.size == embedding.size // (1 + split)
        states.append(iterate(parts, [1])[0])
    for other in states[1:]:
        np.testing.assert_array_equal(states[0].shown.token, other.shown.token)
        for a, b in zip(jax.tree.leaves(states[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)

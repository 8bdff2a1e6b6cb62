"""A language agent's whole iteration as one program: no host in it, the same on any devices."""

import re
from dataclasses import replace
from functools import partial

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from jaxrl import metrics as sums
from jaxrl.algos import grpo, reinforce, sft, turn_ppo
from jaxrl.program import members

CFG = grpo.Config(
    **agents.SMALL | {"total_episodes": 24}, group_size=2, sft_steps=1, kl="k3", weight_decay=0.01
)


@pytest.fixture(scope="module")
def on_one():
    program, of = agents.program(grpo, CFG, agents.agent())
    return program, of, *program.compile(of)


def iterate(parts, counts, **changes):
    """(state, metrics of each iteration) of running the counts one after the other."""
    program, of, init, run = parts
    of = program.place(of.replace(**changes))
    counts = [program.scalar(count) for count in counts]
    state, logs = init(of), []
    with jax.transfer_guard("disallow"):
        for count in counts:
            state, log = run(state, of, count)
            logs.append(log)
    rows = [
        agents.means(log, i) for log, n in zip(logs, counts, strict=True) for i in range(int(n))
    ]
    return jax.tree.map(np.asarray, state), rows


@pytest.fixture(scope="module")
def history(on_one):
    return iterate(on_one, [3])


def test_an_iteration_runs_without_the_host_and_has_no_callback(on_one, history):
    assert len(history[1]) == 3
    text = on_one[3].as_text()
    targets = set(re.findall(r'custom_call_target="([^"]+)"', text))
    assert not {t for t in targets if "callback" in t.lower()}, targets
    assert "infeed" not in text and "outfeed" not in text


def test_the_warm_start_comes_first_and_what_it_does_not_know_is_unknown(history):
    warm, *improved = history[1]
    step = {"grad_norm", "learning_rate", "param_norm"}
    assert warm.keys() == {"entropy", "loss", "unread_share"} | step
    assert warm["learning_rate"] == np.float32(CFG.sft_learning_rate)
    assert improved[0]["learning_rate"] == np.float32(CFG.learning_rate)
    assert warm["loss"] > 4  # nats, near log(260) at the start
    assert all(m.keys() >= {"episode_return", "success", "length"} for m in improved)


def test_sampler_and_learner_agree_in_every_iteration(history):
    assert all(m["log_prob_gap"] <= 1e-4 for m in history[1][1:])
    assert all(m["ratio_error"] == 0 for m in history[1][1:])  # one step: on-policy


def test_the_reference_is_the_model_after_the_warm_start(history):
    _, first, second = history[1]
    assert first["kl_to_reference"] == 0 < second["kl_to_reference"]


def test_other_numbers_of_options_and_environment_run_in_the_same_program(on_one, history):
    """A learning rate, a schedule's start, a prize: none of them compiles anything."""
    cfg = replace(CFG, learning_rate=0.5, sft_learning_rate=1e-9, temperature=0.5)
    other = members([0], cfg, agents.Parrot(prize=3.0))
    state, rows = iterate(on_one, [3], cfg=other.cfg, env=other.env)
    assert rows[1]["episode_return"] == pytest.approx(3 * rows[1]["success"], abs=3.1)
    assert rows[0]["loss"] == history[1][0]["loss"]  # before the first step
    assert abs(rows[1]["param_norm"] - history[1][1]["param_norm"]) > 1
    assert int(state.iteration[0]) == 3


def test_a_run_in_chunks_is_bit_for_bit_the_run_at_once(on_one, history):
    state, rows = iterate(on_one, [1, 1, 1])
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(history[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [m["loss"] for m in rows] == [m["loss"] for m in history[1]]


WHOLE = [
    (reinforce, {"optimizer": "muon", "entropy_schedule": "linear", "entropy_coef": 0.01}),
    (turn_ppo, {"num_minibatches": 2, "sft_coef": 0.1, "lr_schedule": "linear"}),
    (sft, {}),
]


@pytest.mark.parametrize(("algorithm", "options"), WHOLE, ids=["reinforce", "turn_ppo", "sft"])
def test_the_other_algorithms_iterate_and_move_what_they_train(algorithm, options):
    cut = {"num_prompts"} if algorithm is sft else set()
    sizes = {name: x for name, x in agents.SMALL.items() if name not in cut}
    cfg = algorithm.Config(**sizes, **options)
    mine = agents.agent()
    state = algorithm.init(jax.random.key(0), cfg=cfg, agent=mine)
    after, log = jit(partial(algorithm.update, agent=mine))(state, jax.random.key(1), cfg=cfg)
    assert {"episode_return", "success", "length", "unread_share", "loss"} <= log.keys()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after, log)))
    assert float(log["grad_norm"].numerator) > 0
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.params, state.params)
    assert max(jax.tree.leaves(moved.policy)) > 0
    assert (moved.critic is not None) == (algorithm is turn_ppo)


def test_all_of_an_iteration_keeps_to_32_bits_where_64_are_allowed():
    """A draw or a constant without a dtype would not fit the loops' carries."""
    mine = agents.agent(agents.Parrot(truncates=True))
    for algorithm in (grpo, turn_ppo, reinforce, sft):
        steps = {} if algorithm is sft else {"sft_steps": 1, "sft_coef": 0.1}
        steps |= {"num_minibatches": 1} if algorithm is turn_ppo else {}
        cut = {"num_prompts"} if algorithm is sft else set()
        sizes = {name: x for name, x in agents.SMALL.items() if name not in cut}
        cfg = algorithm.Config(**sizes | steps)
        with jax.enable_x64(True):
            member = jax.tree.map(lambda x: x[0], members([0], cfg, mine.env))

            def whole(key, member, algorithm=algorithm):
                how = {"cfg": member.cfg, "agent": replace(mine, env=member.env)}
                state = algorithm.init(key, **how)
                return state, *algorithm.update(state, key, **how)

            before, after, log = jax.eval_shape(whole, jax.random.key(0), member)
        wide = {x.dtype.name for x in jax.tree.leaves((before, after, log))}
        assert wide <= {"float32", "int32", "bool"}, (algorithm, wide)
        kinds = [[(x.shape, x.dtype) for x in jax.tree.leaves(y)] for y in (before, after)]
        assert kinds[0] == kinds[1]


def test_an_empty_minibatch_counts_as_unknown_and_not_as_0():
    known, empty = (
        sums.Sums(jnp.float32(6), jnp.float32(2)),
        sums.Sums(jnp.zeros(()), jnp.zeros(())),
    )
    stacked = jax.tree.map(lambda *x: jnp.stack(x), {"entropy": known}, {"entropy": empty})
    assert sums.quotient(sums.add_up(stacked)["entropy"]) == 3


@pytest.mark.slow
def test_bfloat16_computes_what_float32_keeps():
    """The sampler decodes with a cache, the learner reads at once: they differ, and it is told."""
    mine = agents.agent()
    half = replace(mine, model_config=replace(mine.model_config, dtype="bfloat16"))
    cfg = replace(CFG, sft_steps=0, total_episodes=8, entropy_coef=0.1)
    state = grpo.init(jax.random.key(0), cfg=cfg, agent=half)
    after, log = jit(partial(grpo.update, cfg=cfg, agent=half))(state, jax.random.key(1))
    kept = jax.tree.leaves((after.params, after.opt_state))
    assert {x.dtype.name for x in kept} == {"float32", "int32"}  # a count is int32
    assert 0 < sums.quotient(log["log_prob_gap"]) < 0.02
    assert np.isfinite(log["grad_norm"].numerator) and log["grad_norm"].numerator > 0


@pytest.mark.slow
def test_two_devices_play_the_same_episodes_while_the_weights_are_equal():
    """The model whole on each, and split. The warm start's sums differ in their last bits, so it is
    left out of the comparison.
    """
    cold = replace(CFG, sft_steps=0, total_episodes=8)
    wide = replace(agents.MODEL, width=32, hidden=32)
    states = []
    for devices, split in ((1, False), (2, False), (2, True)):
        mine = agents.agent(split=split)
        mine = replace(mine, model_config=replace(wide, context=mine.limits.context))
        program, of = agents.program(grpo, cold, mine, devices, max_count=1)
        parts = (program, of, *program.compile(of))
        state = parts[2](program.place(of))
        embedding = state.params.policy.embed[...]
        assert embedding.addressable_shards[0].data.size == embedding.size // (1 + split)
        states.append(iterate(parts, [1])[0])
    for other in states[1:]:
        np.testing.assert_array_equal(states[0].shown.token, other.shown.token)
        for a, b in zip(jax.tree.leaves(states[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)

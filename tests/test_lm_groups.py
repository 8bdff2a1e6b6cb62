"""Sequences of a group begin alike, and their beginning is read once: nothing else changes."""

from dataclasses import replace
from functools import partial

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import jit

from jaxrl import sgd
from jaxrl.algos import grpo
from jaxrl.lm.learn.batch import Sequences, predict, predict_responses
from jaxrl.lm.learn.iteration import idle_last
from jaxrl.lm.model.log_prob import hidden_states
from jaxrl.lm.model.params import Critic
from jaxrl.lm.model.transformer import Transformer

FIRST, CONTEXT = 7, 16
START = np.array([7, 7, 3, 3, 5, 5])  # three groups of two, prompts of different lengths
WINDOWED = {
    "num_layers": 2,
    "windowed": (True, False),
    "window": 3,
    "attention_cap": 20.0,
    "norm_offset": True,
}


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    token = rng.integers(0, 256, (6, CONTEXT))
    place = np.arange(CONTEXT)
    token[1::2] = np.where(place < START[1::2, None], token[::2], token[1::2])
    length = START + np.array([9, 2, 9, 5, 1, 8])
    mask = (place >= START[:, None]) & (place < length[:, None]) & (place % 4 != 1)
    return Sequences(
        token=jnp.asarray(token, jnp.int32),
        mask=jnp.asarray(mask[:, 1:]),
        start=jnp.asarray(START, jnp.int32),
        first=FIRST,
    )


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("changes", [{}, WINDOWED], ids=["global", "windowed"])
def test_a_prompt_read_once_by_a_group_changes_no_log_prob_and_no_gradient(changes, remat, rows):
    model = Transformer(replace(agents.MODEL, **changes), nnx.Rngs(1))
    cfg = grpo.Config(
        num_prompts=3,
        group_size=2,
        micro_batch=6,
        sft_episodes=6,
        temperature=0.7,
        chunk=5,
        remat=remat,
    )
    assert cfg.prompt_shared_by == 2

    def told(prediction):
        weight = jnp.arange(1, prediction.log_prob.size + 1).reshape(prediction.log_prob.shape)
        value = prediction.log_prob + 0.1 * prediction.entropy
        return jnp.sum(jnp.where(rows.mask, value * jnp.sin(weight), 0.0)), prediction

    critic = Critic(jnp.linspace(-1.0, 1.0, model.cfg.width), jnp.float32(0.5))

    @jit
    def both(model):
        graph, state = nnx.split(model)

        def shared(state):
            return told(predict_responses(nnx.merge(graph, state), rows, cfg, critic))

        def whole(state):
            return told(predict(nnx.merge(graph, state), rows.token, rows.mask, cfg))

        value = critic(hidden_states(model, rows.token))
        return jax.grad(shared, has_aux=True)(state), jax.grad(whole, has_aux=True)(state), value

    (grads, found), (expected_grads, expected), value = both(model)
    np.testing.assert_allclose(found.log_prob, expected.log_prob, atol=2e-5)
    np.testing.assert_allclose(found.entropy, expected.entropy, atol=2e-5)
    value, read = (np.asarray(x)[rows.mask] for x in (value, found.value))
    np.testing.assert_allclose(read, value, atol=2e-4)
    assert np.abs(np.asarray(found.log_prob)).sum() > 10
    for mine, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=2e-5)


def test_pieces_without_an_advantage_are_left_out_and_the_gradient_is_bit_equal():
    cfg = grpo.Config(num_prompts=3, group_size=2, micro_batch=2, sft_episodes=2)
    reward = np.array([[0.5], [0.5], [0.0], [1.0], [1.0], [1.0]])  # the second group alone learns
    rows, _ = grpo.prepare(agents.params(), None, agents.episodes(reward), cfg, None)
    calls = []

    def loss(params, piece):
        jax.debug.callback(lambda: calls.append(1))
        return grpo.loss(params, piece, cfg)

    @jit
    def gradients(params, rows):
        idle = partial(grpo.idle, cfg=cfg)
        ordered = idle_last(rows, idle, cfg.learned_of_group)
        take = partial(sgd.gradient, loss, params, ordered, cfg.micro_batch, None)
        return ordered, take(idle), take(None)

    ordered, (grads, metrics), (all_grads, all_metrics) = gradients(agents.params(), rows)
    jax.effects_barrier()
    assert len(calls) == 1 + 3
    assert ordered.token.tolist() == rows.token[jnp.array([2, 3, 0, 1, 4, 5])].tolist()
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(all_grads), strict=True)
    )
    assert max(np.abs(x).max() for x in jax.tree.leaves(grads)) > 0
    assert metrics["loss"] == all_metrics["loss"]
    assert metrics["entropy"].denominator * 3 == all_metrics["entropy"].denominator


def test_an_entropy_bonus_needs_every_piece():
    cfg = grpo.Config(num_prompts=1, group_size=2, micro_batch=2, entropy_coef=0.1)
    rows, _ = grpo.prepare(agents.params(), None, agents.episodes(np.ones((2, 1))), cfg, None)
    assert not grpo.idle(rows, cfg)[0]
    assert grpo.idle(rows, replace(cfg, entropy_coef=0.0))[0]

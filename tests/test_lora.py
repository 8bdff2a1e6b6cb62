"""Adapters: nothing at first, all that is trained, and part of the matrices once merged."""

from dataclasses import replace
from functools import partial

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import jit

from jaxrl.algos import turn_ppo
from jaxrl.lm.model import lora, weights
from jaxrl.lm.model.config import preset
from jaxrl.lm.model.transformer import Transformer, logits, read
from jaxrl.policy import named_leaves

BASE = replace(
    preset("nano", 260), width=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, hidden=24
)
CFG = replace(BASE, lora_rank=3, lora_alpha=6.0)


@jit
def logits_of(model):
    tokens = jnp.arange(12).reshape(2, 6)
    return logits(model, read(model, tokens))


def adapted(cfg=CFG):
    """A model with fresh adapters."""
    return Transformer(cfg, nnx.Rngs(0))


def without(model):
    """The same matrices in a model that has no adapters."""
    known = named_leaves(model)
    return lora.map_named(lambda name, _: known[name], Transformer(BASE, nnx.Rngs(1)))


def shaken(model):
    """The model with adapters that add something."""
    part = {
        name: 0.3 * jax.random.normal(jax.random.key(i), x.shape)
        for i, (name, x) in enumerate(lora.trained(model).items())
    }
    return lora.with_trained(model, part)


def test_fresh_adapters_add_nothing():
    model = adapted()
    np.testing.assert_array_equal(logits_of(model), logits_of(without(model)))
    assert {x.shape[-2:] for x in lora.trained(model).values()} >= {(16, 3), (3, 24), (24, 3)}
    assert len(lora.trained(model)) == 2 * 7


def test_merged_matrices_say_what_the_adapters_said():
    model = shaken(adapted())
    cfg, merged = lora.merge(CFG, model)
    assert cfg == BASE
    assert jax.tree.structure(merged) == jax.tree.structure(Transformer(BASE, nnx.Rngs(0)))
    np.testing.assert_allclose(logits_of(merged), logits_of(model), atol=1e-5)
    assert np.abs(logits_of(merged) - logits_of(without(model))).max() > 0.1
    half = replace(CFG, lora_alpha=3.0)  # alpha scales what is added, in both
    halved = lora.with_trained(adapted(half), lora.trained(model))
    assert np.abs(logits_of(lora.merge(half, halved)[1]) - logits_of(merged)).max() > 0.05


def test_a_merged_model_is_saved_as_one_without_adapters(tmp_path):
    model = shaken(adapted())
    weights.save(tmp_path, *lora.merge(CFG, model))
    _, loaded = weights.load(tmp_path)
    np.testing.assert_allclose(logits_of(loaded), logits_of(model), atol=1e-5)


def test_an_iteration_moves_the_adapters_of_the_policy_and_nothing_else_of_it():
    agent = agents.agent(agents.Parrot(turns=1), lora_rank=2)
    cfg = turn_ppo.Config(
        **agents.SMALL, entropy_coef=0.1, group_size=2, num_minibatches=2, overlong="keep"
    )
    state = turn_ppo.init(jax.random.key(0), cfg=cfg, agent=agent)
    before, adapters = state.params.policy, lora.trained(state.params.policy)
    kept = [x for x in jax.tree.leaves(state.opt_state) if x.ndim > 1]
    assert sum(x.size for x in kept) == 2 * sum(x.size for x in adapters.values())
    after, metrics = jit(partial(turn_ppo.update, cfg=cfg, agent=agent))(state, jax.random.key(1))
    assert float(metrics["grad_norm"].numerator) > 0
    moved = {
        name
        for name, x in named_leaves(after.params.policy).items()
        if not np.array_equal(x, named_leaves(before)[name])
    }
    assert moved == adapters.keys()


def test_bad_ranks_are_refused():
    with pytest.raises(ValueError, match=r"lora_rank=-1 must lie in \[0, 1048576\]; try 16"):
        replace(BASE, lora_rank=-1)
    with pytest.raises(ValueError, match=r"lora_alpha=0\.0 must be a finite number above 0"):
        replace(BASE, lora_rank=2, lora_alpha=0.0)

"""The transformer: decoding, lengths, chunked log-probabilities and their gradients."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrl.lm import (
    ModelConfig,
    Transformer,
    forward,
    init_cache,
    logits,
    read,
    unstack,
)

QWEN = ModelConfig(
    vocab_size=19, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, hidden=24
)
GEMMA = replace(
    QWEN,
    family="gemma2",
    norm_offset=True,
    post_norms=True,
    activation="gelu_tanh",
    scale_embedding=True,
    window=3,
    windowed=(True, False),
    local_rope_base=100.0,
    attention_cap=5.0,
    final_cap=3.0,
)
TOKENS = jax.random.randint(jax.random.key(1), (3, 10), 0, 19)
LENGTH = jnp.array([10, 7, 1])


def make(cfg: ModelConfig) -> Transformer:
    return Transformer(cfg, nnx.Rngs(0))


@jax.jit
def all_logits(model, tokens):
    return logits(model, read(model, tokens))


@jax.jit
def stepped_logits(model, tokens):
    """Decoded token by token with the cache; also the lengths that it holds at the end."""
    fast = unstack(model)

    def step(cache, s):
        new = jax.lax.dynamic_slice_in_dim(tokens, s, 1, 1)
        hidden, cache = forward(fast, new, (s < LENGTH).astype(jnp.int32), cache)
        return cache, hidden[:, 0]

    cache, hidden = jax.lax.scan(step, init_cache(model.cfg, 3, 12), jnp.arange(10))
    return logits(fast, hidden.swapaxes(0, 1)), cache.length


def real(x):
    """The rows before each length, flat."""
    return np.concatenate([np.asarray(x[b, :n]) for b, n in enumerate(LENGTH.tolist())])


@pytest.mark.parametrize("cfg", [QWEN, GEMMA], ids=["qwen", "gemma"])
def test_decoding_token_by_token_equals_the_full_pass(cfg):
    model = make(cfg)
    stepped, length = stepped_logits(model, TOKENS)
    np.testing.assert_allclose(real(stepped), real(all_logits(model, TOKENS)), atol=1e-5)
    assert length.tolist() == LENGTH.tolist()


@pytest.mark.parametrize("cfg", [QWEN, GEMMA], ids=["qwen", "gemma"])
def test_bfloat16_is_near_float32_in_the_full_pass_and_in_decoding(cfg):
    """Parameters stay float32, and logits are; a number of bfloat16 has 8 bits."""
    model = jax.tree.map(lambda x: x * 3 if x.ndim > 2 else x, make(cfg))
    half = replace(cfg, dtype="bfloat16")
    same = make(half)
    same = jax.tree.unflatten(jax.tree.structure(same), jax.tree.leaves(model))
    assert {x.dtype.name for x in jax.tree.leaves(same)} == {"float32"}
    assert {x.dtype.name for x in init_cache(half, 3, 12).k} == {"bfloat16"}
    whole = real(all_logits(model, TOKENS))
    for found in (all_logits(same, TOKENS), stepped_logits(same, TOKENS)[0]):
        assert found.dtype == jnp.float32
        error = np.sqrt(np.mean((real(found) - whole) ** 2)) / whole.std()
        assert 1e-4 < error < 0.03


@pytest.mark.parametrize("cfg", [QWEN, GEMMA], ids=["qwen", "gemma"])
def test_reading_in_uneven_pieces_equals_reading_at_once(cfg):
    model = make(cfg)
    first = jnp.array([4, 0, 1])  # a row may wait
    rest = LENGTH - first

    @jax.jit
    def pieces(model):
        _, cache = forward(model, TOKENS[:, :5], first, init_cache(cfg, 3, 12))
        column = jnp.minimum(first[:, None] + jnp.arange(10), 9)
        later = jnp.take_along_axis(TOKENS, column, 1)
        hidden, cache = forward(model, later, rest, cache)
        return logits(model, hidden), cache.length

    value, length = pieces(model)
    whole = all_logits(model, TOKENS)
    assert length.tolist() == LENGTH.tolist()
    for b in range(3):
        start, n = int(first[b]), int(rest[b])
        np.testing.assert_allclose(value[b, :n], whole[b, start : start + n], atol=1e-5)

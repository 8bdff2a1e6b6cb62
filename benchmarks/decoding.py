"""Greedy decoding as one program, as every benchmark of it runs it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.lm.model.cache import init_cache
from jaxrl.lm.model.config import ModelConfig
from jaxrl.lm.model.transformer import Transformer, forward, logits


def greedy(cfg: ModelConfig, batch: int, given: int, new: int) -> Callable[..., jax.Array]:
    """(unstacked model, prompts int32 [batch, given]) -> the likeliest tokens [batch, new]."""

    def decode(model: Transformer, prompt: jax.Array) -> jax.Array:
        cache = init_cache(cfg, batch, given + new)
        hidden, cache = forward(model, prompt, jnp.full(batch, given), cache)
        token = jnp.argmax(logits(model, hidden[:, -1]), -1).astype(jnp.int32)

        def step(i: jax.Array, carry: Any) -> Any:
            token, cache, out = carry
            out = out.at[:, i].set(token)
            hidden, cache = forward(model, token[:, None], jnp.ones(batch, jnp.int32), cache)
            return jnp.argmax(logits(model, hidden[:, 0]), -1).astype(jnp.int32), cache, out

        out = jnp.zeros((batch, new), jnp.int32)
        return jax.lax.fori_loop(0, new, step, (token, cache, out))[2]

    return decode

"""Drawing tokens: temperature, noise that depends on what is drawn and not on where."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Drawn(NamedTuple):
    """Leaves [B]."""

    token: jax.Array  # int32
    log_prob: jax.Array  # float32: of the token under the distribution it was drawn from


def token_keys(key: jax.Array, episode: jax.Array, position: jax.Array) -> jax.Array:
    """A key for each row [B], a function of (key, global episode, position in it) alone.

    So a token does not change with the batch, the lane or the device that it is drawn on.
    """

    def one(episode, position):
        return jax.random.fold_in(jax.random.fold_in(key, episode), position)

    return jax.vmap(one)(episode, position)


def draw(logits: jax.Array, keys: jax.Array, temperature: float | jax.Array | None) -> Drawn:
    """A token of each row of logits [B, V]; without a temperature the likeliest.

    By inversion: one uniform number a row, and the first token whose cumulative probability is
    above it. No sort, no top-k or top-p, which would bias the ratio of the policy gradient.
    """
    if temperature is None:
        token = jnp.argmax(logits, -1).astype(jnp.int32)
        return Drawn(token, jnp.zeros(token.shape, jnp.float32))
    scaled = logits / temperature
    shifted = scaled - jnp.max(scaled, -1, keepdims=True)
    weight = jnp.exp(shifted)
    cumulative = jnp.cumsum(weight, -1)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys)[:, None]
    below = cumulative <= uniform * cumulative[:, -1:]
    token = jnp.minimum(jnp.sum(below, -1, dtype=jnp.int32), logits.shape[-1] - 1)
    chosen = jnp.take_along_axis(shifted, token[:, None], -1)[:, 0]
    return Drawn(token, chosen - jnp.log(jnp.sum(weight, -1)))

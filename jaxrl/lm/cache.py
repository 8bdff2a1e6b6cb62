"""Keys and values of the tokens a model has read."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.lm.config import ModelConfig


class Cache(struct.PyTreeNode):
    """Every leaf has the batch first, so `jax.tree.map(lambda x: x[rows], cache)` picks rows.

    One array for each layer: updated in place inside a loop, and read without a slice.
    `length` counts what was appended, what did not fit included: above `capacity` is an overflow.
    """

    k: tuple[jax.Array, ...]  # L times [B, C, H_kv, K], after RoPE
    v: tuple[jax.Array, ...]
    length: jax.Array  # int32 [B]

    @property
    def capacity(self) -> int:
        """C: tokens that fit in a row."""
        return self.k[0].shape[1]


def init_cache(cfg: ModelConfig, batch: int, capacity: int, dtype: str | None = None) -> Cache:
    """An empty cache; `dtype` is the computation's unless given."""
    shape = (batch, capacity, cfg.num_kv_heads, cfg.head_dim)

    def zeros() -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros(shape, dtype or cfg.dtype) for _ in range(cfg.num_layers))

    return Cache(k=zeros(), v=zeros(), length=jnp.zeros(batch, jnp.int32))


def slots(cache: Cache, num_new: int, length: jax.Array) -> jax.Array:
    """int32 [B, S]: where each of S new tokens goes; C and above, so nowhere, beyond `length`."""
    step = jnp.arange(num_new)
    inside = step < length[:, None]
    return jnp.where(inside, cache.length[:, None] + step, cache.capacity + step)


def append(stored: jax.Array, new: jax.Array, slot: jax.Array) -> jax.Array:
    """One layer's [B, C, H_kv, K] with `new` [B, S, H_kv, K] written at `slot` [B, S]."""
    row = jnp.arange(new.shape[0])[:, None]
    return stored.at[row, slot].set(new.astype(stored.dtype), mode="drop")

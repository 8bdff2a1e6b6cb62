"""The mathematics of attention: rotations, masks and grouped heads."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.lm.model.config import ModelConfig, RopeScaling

MASKED = -1e30


class Positions(struct.PyTreeNode):
    """What attention needs to know of where the queries stand; first axis: kind of layer.

    Kind 0 is global, kind 1 windowed; a model without windowed layers has one kind.
    """

    cos: jax.Array  # float32 [kinds, B or 1, S, K/2]
    sin: jax.Array
    mask: jax.Array  # bool [kinds, B or 1, S, C], True where a query sees a key


def positions(cfg: ModelConfig, position: jax.Array, num_keys: int) -> Positions:
    """For queries at `position` [B, S] and keys at 0..num_keys-1; no query stands behind these.

    Cosines come from a table: computed in place, XLA would compute them again in each rotation of
    each layer, for every head.
    """
    distance = position[..., None] - jnp.arange(num_keys)
    tables, mask = [frequencies(cfg, False)], [distance >= 0]
    if any(cfg.windowed):
        tables.append(frequencies(cfg, True))
        mask.append((distance >= 0) & (distance < cfg.window))
    place = np.arange(num_keys, dtype=np.float32)
    angle = np.stack([place[:, None] * frequency for frequency in tables])
    cos, sin = jnp.asarray(np.cos(angle)), jnp.asarray(np.sin(angle))
    at = jnp.minimum(position, num_keys - 1)
    return Positions(cos=cos[:, at], sin=sin[:, at], mask=jnp.stack(mask))


def frequencies(cfg: ModelConfig, windowed: bool) -> np.ndarray:
    """Radians per position of each pair, float32 [K/2]."""
    pair = np.arange(0, cfg.head_dim, 2, dtype=np.float32) / np.float32(cfg.head_dim)
    if windowed and cfg.local_rope_base is not None:
        return np.float32(cfg.local_rope_base) ** -pair  # and never slowed
    frequency = np.float32(cfg.rope_base) ** -pair
    return frequency if cfg.rope_scaling is None else _slowed(frequency, cfg.rope_scaling)


def _slowed(frequency: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    slow = frequency / np.float32(scaling.factor)
    if scaling.kind == "linear":
        return slow
    turns = np.float32(scaling.original) * frequency / np.float32(2 * math.pi)
    low, high = np.float32(scaling.low), np.float32(scaling.high)
    share = np.clip((turns - low) / (high - low), np.float32(0), np.float32(1))
    return share * frequency + (1 - share) * slow


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """x [B, S, H, K] with its halves as pairs, turned by the angles of [B, S, K/2]."""
    cos, sin = cos[..., None, :].astype(x.dtype), sin[..., None, :].astype(x.dtype)
    first, second = jnp.split(x, 2, -1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, scale: float, cap: float
) -> jax.Array:
    """[B, S, H*K] from q [B, S, H, K], k [B, H_kv, K, C], v [B, H_kv, C, K], mask [B or 1, S, C].

    Head h reads key head h // (H / H_kv); keys are never repeated in memory. Softmax in float32.
    """
    batch, length, heads, size = q.shape
    groups = (batch, k.shape[1], -1, length)
    rows = q.reshape(batch, length, k.shape[1], -1, size).transpose(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, k.shape[1], -1, size)  # plain products of matrices from here
    score = jnp.matmul(rows, k, preferred_element_type=jnp.float32).reshape(*groups, k.shape[-1])
    score = jnp.where(mask[:, None, None], soft_cap(score * scale, cap), MASKED)
    weight = jax.nn.softmax(score, -1).astype(q.dtype).reshape(*rows.shape[:3], -1)
    y = jnp.matmul(weight, v).reshape(*groups, size)
    return y.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads * size)


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
    """Pressed into (-cap, cap); a cap of 0 is none."""
    return cap * jnp.tanh(x / cap) if cap else x

"""The mathematics of attention: rotations, masks and grouped heads."""

import math
from collections.abc import Sequence
from functools import reduce

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
    """For queries at `position` [B, S] and keys at 0..num_keys-1; no query stands behind these."""
    cos, sin = rotations(cfg, position, num_keys)
    return Positions(cos, sin, visible(cfg, position[..., None] - jnp.arange(num_keys)))


def visible(cfg: ModelConfig, distance: jax.Array) -> jax.Array:
    """bool [kinds, ...]: whether a query sees a key so many places before it."""
    mask = [distance >= 0]
    if any(cfg.windowed):
        mask.append((distance >= 0) & (distance < cfg.window))
    return jnp.stack(mask)


def rotations(cfg: ModelConfig, position: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) float32 [kinds, ..., K/2] at positions [...] below `count`.

    From a table: computed in place, XLA would compute them again in each rotation of each layer,
    for every head.
    """
    tables = [frequencies(cfg, False)]
    if any(cfg.windowed):
        tables.append(frequencies(cfg, True))
    place = np.arange(count, dtype=np.float32)
    angle = np.stack([place[:, None] * frequency for frequency in tables])
    at = jnp.minimum(position, count - 1)
    return jnp.asarray(np.cos(angle))[:, at], jnp.asarray(np.sin(angle))[:, at]


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


class Keys(struct.PyTreeNode):
    """Keys and values that queries see; one row may serve several rows of queries in a row."""

    k: jax.Array  # [B', H_kv, K, C]
    v: jax.Array  # [B', H_kv, C, K]
    mask: jax.Array  # bool [B or 1, S, C], True where a query sees a key


def attend(q: jax.Array, keys: Sequence[Keys], scale: float, cap: float) -> jax.Array:
    """[B, S, H*K] from q [B, S, H, K] and sets of keys, over all of which one softmax goes.

    Head h reads key head h // (H / H_kv); keys are never repeated in memory, neither for heads nor
    for the B / B' rows of queries that share them. Softmax in float32.
    """
    batch, length, heads, size = q.shape
    num_kv = keys[0].k.shape[1]
    q = q.reshape(batch, length, num_kv, -1, size).transpose(0, 2, 3, 1, 4)  # [B, H_kv, g, S, K]
    score = []
    for part in keys:
        product = jnp.matmul(
            _folded(q, part.k.shape[0]), part.k, preferred_element_type=jnp.float32
        )
        product = soft_cap(_unfolded(product, q.shape) * scale, cap)
        score.append(jnp.where(part.mask[:, None, None], product, MASKED))
    weight = jax.nn.softmax(jnp.concatenate(score, -1), -1).astype(q.dtype)
    ends = np.cumsum([part.k.shape[-1] for part in keys])[:-1].tolist()
    parts = [
        _unfolded(jnp.matmul(_folded(w, part.v.shape[0]), part.v), q.shape)
        for w, part in zip(jnp.split(weight, ends, -1), keys, strict=True)
    ]
    y = reduce(jnp.add, parts)
    return y.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads * size)


def _folded(x: jax.Array, rows: int) -> jax.Array:
    """[rows, H_kv, n, M] of x [B, H_kv, g, S, M]: plain products of matrices from here."""
    _, num_kv, _, _, last = x.shape
    if rows < x.shape[0]:
        x = x.reshape(rows, -1, *x.shape[1:]).swapaxes(1, 2)
    return x.reshape(rows, num_kv, -1, last)


def _unfolded(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """[B, H_kv, g, S, M] of [rows, H_kv, n, M]."""
    batch, num_kv, groups, length, _ = shape
    rows, last = x.shape[0], x.shape[-1]
    if rows < batch:
        x = x.reshape(rows, num_kv, batch // rows, -1, last).swapaxes(1, 2)
    return x.reshape(batch, num_kv, groups, length, last)


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
    """Pressed into (-cap, cap); a cap of 0 is none."""
    return cap * jnp.tanh(x / cap) if cap else x

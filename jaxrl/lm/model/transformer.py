"""One decoder-only transformer for Qwen2, Qwen3, Llama 3, Gemma 2, Gemma 3 and from scratch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl.lm.model.attention import Positions, attend, positions, rotate, soft_cap
from jaxrl.lm.model.cache import Cache, append, slots
from jaxrl.lm.model.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": jax.nn.gelu,
}
EMBEDDING_STD = 0.02
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")  # of a layer


class Stored(NamedTuple):
    """One layer's part of the cache, and where the new tokens go."""

    k: jax.Array  # [B, H_kv, K, C]
    v: jax.Array  # [B, H_kv, C, K]
    slot: jax.Array  # int32 [B, S]


class Adapter(nnx.Module):
    """What LoRA adds to a matrix (arXiv:2106.09685): x @ down @ up, at first 0, for L layers."""

    def __init__(self, cfg: ModelConfig, inputs: int, outputs: int, rngs: nnx.Rngs):
        depth, rank = cfg.num_layers, cfg.lora_rank
        down = inputs**-0.5 * rngs.params.normal((depth, inputs, rank), cfg.param_dtype)
        self.down = nnx.Param(down)
        self.up = nnx.Param(jnp.zeros((depth, rank, outputs), cfg.param_dtype))
        self.scale = cfg.lora_alpha / rank

    def __call__(self, x: jax.Array) -> jax.Array:
        """With the parameters of one layer, in x's dtype."""
        return self.scale * (x @ self.down[...].astype(x.dtype) @ self.up[...].astype(x.dtype))


class Linear(nnx.Module):
    """x @ weight + bias, for L layers at once: the leading axis of every parameter.

    Weights are normal with variance scale**2 / inputs.
    """

    def __init__(
        self, cfg: ModelConfig, inputs: int, outputs: int, rngs: nnx.Rngs, scale=1.0, bias=False
    ):
        shape = (cfg.num_layers, inputs, outputs)
        std = scale * inputs**-0.5
        self.weight = nnx.Param(std * rngs.params.normal(shape, cfg.param_dtype))
        self.bias = nnx.Param(jnp.zeros((shape[0], outputs), cfg.param_dtype)) if bias else None
        self.adapter = Adapter(cfg, inputs, outputs, rngs) if cfg.lora_rank else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """With the parameters of one layer, in x's dtype."""
        y = x @ self.weight[...].astype(x.dtype)
        y = y if self.adapter is None else y + self.adapter(x)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Norm(nnx.Module):
    """x / rms(x) times a weight, or times 1 + weight in float32."""

    def __init__(self, cfg: ModelConfig, *shape: int):
        initial = jnp.zeros if cfg.norm_offset else jnp.ones
        self.weight = nnx.Param(initial(shape, cfg.param_dtype))
        self.eps = cfg.norm_eps
        self.offset = cfg.norm_offset

    def __call__(self, x: jax.Array) -> jax.Array:
        """Over the last axis, with the weight [D] of one layer."""
        full = x.astype(jnp.float32)
        full = full * jax.lax.rsqrt(jnp.mean(full * full, -1, keepdims=True) + self.eps)
        weight = self.weight[...]
        if self.offset:
            return (full * (1.0 + weight.astype(jnp.float32))).astype(x.dtype)
        return full.astype(x.dtype) * weight.astype(x.dtype)


class Layer(nnx.Module):
    """Attention and MLP, each added to the stream; parameters of all layers stacked."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        depth, width, size = cfg.num_layers, cfg.width, cfg.head_dim
        heads, kv_heads = cfg.num_heads * size, cfg.num_kv_heads * size
        last = (2 * depth) ** -0.5  # what is added 2L times keeps the stream's variance near 1
        self.attention_norm = Norm(cfg, depth, width)
        self.q = Linear(cfg, width, heads, rngs, bias=cfg.qkv_bias)
        self.k = Linear(cfg, width, kv_heads, rngs, bias=cfg.qkv_bias)
        self.v = Linear(cfg, width, kv_heads, rngs, bias=cfg.qkv_bias)
        self.o = Linear(cfg, heads, width, rngs, scale=last)
        self.q_norm = Norm(cfg, depth, size) if cfg.qk_norm else None
        self.k_norm = Norm(cfg, depth, size) if cfg.qk_norm else None
        self.post_attention_norm = Norm(cfg, depth, width) if cfg.post_norms else None
        self.mlp_norm = Norm(cfg, depth, width)
        self.gate = Linear(cfg, width, cfg.hidden, rngs)
        self.up = Linear(cfg, width, cfg.hidden, rngs)
        self.down = Linear(cfg, cfg.hidden, width, rngs, scale=last)
        self.post_mlp_norm = Norm(cfg, depth, width) if cfg.post_norms else None


class Transformer(nnx.Module):
    """Parameters of one model; `forward`, `logits` and `token_log_prob` are functions of it."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        shape = (cfg.vocab_size, cfg.width)

        def embedding() -> nnx.Param:
            return nnx.Param(EMBEDDING_STD * rngs.params.normal(shape, cfg.param_dtype))

        self.cfg = cfg
        self.embed = embedding()
        self.layers: Any = Layer(cfg, rngs)  # or, after `unstack`, a list of one for each layer
        self.norm = Norm(cfg, cfg.width)
        self.head = None if cfg.tied else embedding()


def unstack(model: Transformer) -> Transformer:
    """The same model with a list of layers and matrices in the compute dtype, for decoding.

    Taken once, outside the decoding loop, so that no step slices or casts a weight.
    """
    cfg = model.cfg

    def cast(x: jax.Array) -> jax.Array:
        return x.astype(cfg.dtype)

    copy = nnx.merge(*nnx.split(model))
    copy.embed = jax.tree.map(cast, model.embed)
    copy.head = jax.tree.map(cast, model.head)
    copy.layers = nnx.List(layers(model))
    for layer in copy.layers:
        for name in MATRICES:
            setattr(layer, name, jax.tree.map(cast, getattr(layer, name)))
    return copy


def layers(model: Transformer) -> list[Layer]:
    """One module for each layer, whether the parameters are stacked or not."""
    if not isinstance(model.layers, Layer):
        return list(model.layers)
    return [_row(model.layers, i) for i in range(model.cfg.num_layers)]


def forward(
    model: Transformer,
    tokens: jax.Array,
    length: jax.Array,
    cache: Cache,
) -> tuple[jax.Array, Cache]:
    """Hidden states [B, S, D] of tokens [B, S] that follow those of a cache, and it with them.

    tokens[b, :length[b]] stand at positions cache.length[b]..; what stands beyond is never stored,
    and its hidden state means nothing.
    """
    x = embed(model, tokens)
    num_new = tokens.shape[1]
    position = cache.length[:, None] + jnp.arange(num_new, dtype=jnp.int32)
    place = positions(model.cfg, position, cache.capacity)
    slot = slots(cache, num_new, length)
    k, v = list(cache.k), list(cache.v)
    for i, (layer, kind) in enumerate(zip(layers(model), model.cfg.kinds, strict=True)):
        stored = Stored(k[i], v[i], slot)
        x, k[i], v[i] = block(model.cfg, layer, x, _row(place, kind), stored)
    cache = Cache(k=tuple(k), v=tuple(v), length=cache.length + length)
    return model.norm(x), cache


def read(model: Transformer, tokens: jax.Array, *, remat: bool = False) -> jax.Array:
    """Hidden states [B, S, D] of whole sequences [B, S], from position 0 on, without a cache.

    `remat` computes each layer again in the backward pass rather than keeping its insides.
    """
    cfg = model.cfg
    place = positions(cfg, jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape[1])

    def body(x: jax.Array, layer_and_kind: tuple[Layer, Any]) -> tuple[jax.Array, None]:
        layer, kind = layer_and_kind
        return block(cfg, layer, x, _row(place, kind), None)[0], None

    body = jax.checkpoint(body) if remat else body
    x = embed(model, tokens)
    if isinstance(model.layers, Layer):
        x, _ = jax.lax.scan(body, x, (model.layers, jnp.array(cfg.kinds, jnp.int32)))
    else:
        for layer, kind in zip(model.layers, cfg.kinds, strict=True):
            x, _ = body(x, (layer, kind))
    return model.norm(x)


def block(
    cfg: ModelConfig, layer: Layer, x: jax.Array, place: Positions, stored: Stored | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One layer over the stream x [B, S, D]; also this layer's keys and values, stored or new."""
    y, k, v = _attention(cfg, layer, layer.attention_norm(x), place, stored)
    x = x + (y if layer.post_attention_norm is None else layer.post_attention_norm(y))
    y = layer.mlp_norm(x)
    y = layer.down(ACTIVATIONS[cfg.activation](layer.gate(y)) * layer.up(y))
    return x + (y if layer.post_mlp_norm is None else layer.post_mlp_norm(y)), k, v


def _attention(
    cfg: ModelConfig, layer: Layer, x: jax.Array, place: Positions, stored: Stored | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def heads(y: jax.Array) -> jax.Array:
        return y.reshape(*y.shape[:2], -1, cfg.head_dim)

    q, k, v = heads(layer.q(x)), heads(layer.k(x)), heads(layer.v(x))
    q = q if layer.q_norm is None else layer.q_norm(q)
    k = k if layer.k_norm is None else layer.k_norm(k)
    q, k = rotate(q, place.cos, place.sin), rotate(k, place.cos, place.sin)
    if stored is None:
        k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    else:
        k, v = append(stored.k, stored.v, k, v, stored.slot)
    y = attend(
        q, k.astype(x.dtype), v.astype(x.dtype), place.mask, cfg.score_scale, cfg.attention_cap
    )
    return layer.o(y), k, v


def _row(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def embed(model: Transformer, tokens: jax.Array) -> jax.Array:
    """The stream before the first layer, in the compute dtype."""
    cfg = model.cfg
    x = model.embed[...][tokens].astype(cfg.dtype)
    return x * jnp.asarray(cfg.width**0.5, cfg.dtype) if cfg.scale_embedding else x


def logits(model: Transformer, hidden: jax.Array) -> jax.Array:
    """float32 [..., V] of hidden [..., D], the final soft cap included."""
    head = model.embed if model.head is None else model.head
    weight = head[...].astype(hidden.dtype)
    value = jnp.einsum("...d,vd->...v", hidden, weight, preferred_element_type=jnp.float32)
    return soft_cap(value, model.cfg.final_cap)

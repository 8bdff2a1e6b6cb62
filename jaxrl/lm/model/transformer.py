"""One decoder-only transformer for Qwen2, Qwen3, Llama 3, Gemma 2, Gemma 3 and from scratch."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl.lm.model.attention import Keys, attend, positions, rotate, rotations, soft_cap, visible
from jaxrl.lm.model.cache import Cache, append, slots
from jaxrl.lm.model.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": jax.nn.gelu,
}
EMBEDDING_STD = 0.02
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")  # of a layer


# (q [B, S, H, K], new k and v [B, S, H_kv, K], kind of layer) -> (what attention makes of them
# [B, S, H*K], what is kept of k and v)
Mix = Callable[..., tuple[jax.Array, Any]]


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
    """The same model with a list of layers and matrices in the compute dtype.

    Taken once, outside the decoding loop, so that no step slices or casts a weight. A model whose
    layers are a list already is returned as it is.
    """
    cfg = model.cfg
    if not isinstance(model.layers, Layer):
        return model

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
    cfg, num_new = model.cfg, tokens.shape[1]
    position = cache.length[:, None] + jnp.arange(num_new, dtype=jnp.int32)
    place = positions(cfg, position, cache.capacity)
    slot = slots(cache, num_new, length)

    def mix(
        stored_k: jax.Array, stored_v: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, kind
    ):
        kept = append(stored_k, stored_v, k, v, slot)
        seen = Keys(kept[0].astype(q.dtype), kept[1].astype(q.dtype), place.mask[kind])
        return attend(q, [seen], cfg.score_scale, cfg.attention_cap), kept

    mixes = [partial(mix, *stored) for stored in zip(cache.k, cache.v, strict=True)]
    x, kept = through(model, embed(model, tokens), place.cos, place.sin, mixes)
    k, v = zip(*kept, strict=True)
    return x, Cache(k=k, v=v, length=cache.length + length)


def read(model: Transformer, tokens: jax.Array, *, remat: bool = False) -> jax.Array:
    """Hidden states [B, S, D] of whole sequences [B, S], from position 0 on, without a cache.

    `remat` computes each layer again in the backward pass rather than keeping its insides.
    """
    cfg = model.cfg
    place = positions(cfg, jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape[1])

    def mix(q: jax.Array, k: jax.Array, v: jax.Array, kind: Any) -> tuple[jax.Array, None]:
        seen = _as_keys(k, v, place.mask[kind])
        return attend(q, [seen], cfg.score_scale, cfg.attention_cap), None

    return through(model, embed(model, tokens), place.cos, place.sin, mix, remat)[0]


def read_after(
    model: Transformer,
    prompt: jax.Array,
    length: jax.Array,
    rest: jax.Array,
    *,
    remat: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Hidden states [P, F, D] of prompts [P, F] and [N, S, D] of what follows them, [N, S].

    The N / P sequences rest[n] that follow prompt[n // (N / P), :length] share its pass: every
    token of a prompt is read once, by all.
    """
    cfg, (num_prompts, first), (num, size) = model.cfg, prompt.shape, rest.shape
    of_prompt = jnp.arange(first, dtype=jnp.int32)
    of_rest = jnp.arange(size, dtype=jnp.int32)
    start = jnp.repeat(length, num // num_prompts)[:, None]
    place = jnp.concatenate(
        [jnp.tile(of_prompt, num_prompts), (start + of_rest).ravel()]
    )  # all tokens as one row, for what is done to each alone
    cos, sin = rotations(cfg, place[None], first + size)
    in_prompt = visible(cfg, of_prompt[:, None] - of_prompt)[:, None]
    back = visible(cfg, (start + of_rest)[..., None] - of_prompt) & (of_prompt < start[..., None])
    in_rest = visible(cfg, of_rest[:, None] - of_rest)[:, None]

    def parts(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        ahead, behind = x[0, : num_prompts * first], x[0, num_prompts * first :]
        last = x.shape[2:]
        return ahead.reshape(num_prompts, first, *last), behind.reshape(num, size, *last)

    def mix(q: jax.Array, k: jax.Array, v: jax.Array, kind: Any) -> tuple[jax.Array, None]:
        (q, q_rest), (k, k_rest), (v, v_rest) = parts(q), parts(k), parts(v)
        own = _as_keys(k, v, in_prompt[kind])
        later = [own.replace(mask=back[kind]), _as_keys(k_rest, v_rest, in_rest[kind])]
        how = (cfg.score_scale, cfg.attention_cap)
        y, y_rest = attend(q, [own], *how), attend(q_rest, later, *how)
        return jnp.concatenate([y.reshape(-1, y.shape[-1]), y_rest.reshape(-1, y.shape[-1])])[
            None
        ], None

    tokens = jnp.concatenate([prompt.ravel(), rest.ravel()])[None]
    return parts(through(model, embed(model, tokens), cos, sin, mix, remat)[0])


def _as_keys(k: jax.Array, v: jax.Array, mask: jax.Array) -> Keys:
    return Keys(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), mask)


def through(
    model: Transformer,
    x: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    mix: Mix | Sequence[Mix],
    remat: bool = False,
) -> tuple[jax.Array, list[Any]]:
    """The stream x [B, S, D] after all layers and the last norm, and what each `mix` kept.

    Turned by cos and sin [kinds, B or 1, S, K/2]; one `mix` for all layers, or one for each.
    """
    cfg = model.cfg

    def body(x: jax.Array, layer_and_kind: tuple[Layer, Any], mix: Mix) -> tuple[jax.Array, Any]:
        layer, kind = layer_and_kind
        return block(cfg, layer, x, cos[kind], sin[kind], partial(mix, kind=kind))

    if isinstance(model.layers, Layer) and callable(mix):
        one = partial(body, mix=mix)
        rows = (model.layers, jnp.array(cfg.kinds, jnp.int32))
        x, kept = jax.lax.scan(jax.checkpoint(one) if remat else one, x, rows)
        return model.norm(x), kept
    kept = []
    mixes = [mix] * cfg.num_layers if callable(mix) else mix
    for layer, kind, mix_one in zip(layers(model), cfg.kinds, mixes, strict=True):
        one = partial(body, mix=mix_one)
        x, new = (jax.checkpoint(one) if remat else one)(x, (layer, kind))
        kept.append(new)
    return model.norm(x), kept


def block(
    cfg: ModelConfig, layer: Layer, x: jax.Array, cos: jax.Array, sin: jax.Array, mix: Mix
) -> tuple[jax.Array, Any]:
    """One layer over the stream x [B, S, D]; also what its `mix` keeps."""
    y, kept = _attention(cfg, layer, layer.attention_norm(x), cos, sin, mix)
    x = x + (y if layer.post_attention_norm is None else layer.post_attention_norm(y))
    y = layer.mlp_norm(x)
    y = layer.down(ACTIVATIONS[cfg.activation](layer.gate(y)) * layer.up(y))
    return x + (y if layer.post_mlp_norm is None else layer.post_mlp_norm(y)), kept


def _attention(
    cfg: ModelConfig, layer: Layer, x: jax.Array, cos: jax.Array, sin: jax.Array, mix: Mix
) -> tuple[jax.Array, Any]:
    def heads(y: jax.Array) -> jax.Array:
        return y.reshape(*y.shape[:2], -1, cfg.head_dim)

    q, k, v = heads(layer.q(x)), heads(layer.k(x)), heads(layer.v(x))
    q = q if layer.q_norm is None else layer.q_norm(q)
    k = k if layer.k_norm is None else layer.k_norm(k)
    y, kept = mix(rotate(q, cos, sin), rotate(k, cos, sin), v)
    return layer.o(y), kept


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
    if hidden.size > FEW_ROWS * hidden.shape[-1]:
        value = _vocabulary(hidden, weight)
    else:
        value = jax.lax.platform_dependent(hidden, weight, cpu=_by_columns, default=_vocabulary)
    return soft_cap(value, model.cfg.final_cap)


FEW_ROWS = 64


def _vocabulary(hidden: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.einsum("...d,vd->...v", hidden, weight, preferred_element_type=jnp.float32)


def _by_columns(hidden: jax.Array, weight: jax.Array) -> jax.Array:
    """The same as weight @ hidden.T, which a CPU takes 0.7 (16 rows) to 0.85 (64) of the time for.

    The barrier keeps XLA from turning the product round again.
    """
    rows = hidden.reshape(-1, hidden.shape[-1])
    value = jnp.einsum("vd,nd->vn", weight, rows, preferred_element_type=jnp.float32)
    return jax.lax.optimization_barrier(value).T.reshape(*hidden.shape[:-1], -1)

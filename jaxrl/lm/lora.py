"""LoRA (arXiv:2106.09685): low-rank matrices beside frozen ones are all that is trained.

A `Transformer` with `lora_rank` in its config carries an adapter beside each matrix of its layers.
`trained` picks what an optimiser sees of any parameters, `with_trained` puts it back.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl.lm.config import ModelConfig
from jaxrl.lm.model import MATRICES, Transformer
from jaxrl.policy import named_leaves


def merge(cfg: ModelConfig, model: Transformer) -> tuple[ModelConfig, Transformer]:
    """The same model with its adapters added to the matrices, and its config without them."""
    if not cfg.lora_rank:
        return cfg, model
    plain = replace(cfg, lora_rank=0, lora_alpha=ModelConfig.lora_alpha)
    leaves = dict(named_leaves(model))
    for name in MATRICES:
        adapter = getattr(model.layers, name).adapter
        down, up = adapter.down[...], adapter.up[...]
        added = jnp.matmul(down, up, precision="highest") * (cfg.lora_alpha / cfg.lora_rank)
        weight = f".layers.{name}.weight.value"
        leaves[weight] = leaves[weight] + added.astype(down.dtype)
    template = nnx.eval_shape(lambda: Transformer(plain, nnx.Rngs(0)))
    return plain, map_named(lambda name, _: leaves[name], template)


def trained(params: Any) -> Any:
    """What is trained of parameters: of a model with adapters these alone, by name."""
    if isinstance(params, tuple):
        return tuple(trained(part) for part in params)
    if not _has_adapters(params):
        return params
    return {name: x for name, x in named_leaves(params).items() if ".adapter." in name}


def with_trained(params: Any, part: Any) -> Any:
    """`params` with what is trained of them replaced."""
    if isinstance(params, tuple):
        return tuple(with_trained(*pair) for pair in zip(params, part, strict=True))
    if not _has_adapters(params):
        return part
    return map_named(lambda name, x: part.get(name, x), params)


def _has_adapters(params: Any) -> bool:
    return isinstance(params, Transformer) and params.cfg.lora_rank > 0


def map_named(f: Callable[[str, Any], Any], tree: Any) -> Any:
    """`tree` with f(path, leaf) for each leaf."""
    leaves, structure = jax.tree.flatten(tree)
    names = named_leaves(tree)
    assert len(names) == len(leaves)
    return jax.tree.unflatten(structure, [f(name, x) for name, x in names.items()])

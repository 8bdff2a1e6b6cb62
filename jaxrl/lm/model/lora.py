"""LoRA (arXiv:2106.09685): low-rank matrices beside frozen ones are all that is trained.

A `Transformer` with `lora_rank` in its config carries an adapter beside each matrix of its layers.
`trained` picks what an optimiser sees of a model, `with_trained` puts it back.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl.lm.model.config import ModelConfig
from jaxrl.lm.model.transformer import MATRICES, Layer, Transformer
from jaxrl.policy import named_leaves

ADAPTER = ".adapter."  # in the names of what adapters consist of


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


def trained(model: Any) -> Any:
    """What is trained of a model: with adapters these alone, by name."""
    if not model.cfg.lora_rank:
        return model
    return {name: x for name, x in named_leaves(model).items() if ADAPTER in name}


def with_trained(model: Any, part: Any) -> Any:
    """The model with what is trained of it replaced; its layers may be a list (`unstack`)."""
    if not model.cfg.lora_rank:
        return part
    if isinstance(model.layers, Layer):
        return map_named(lambda name, x: part.get(name, x), model)

    def adapter(name: str, x: Any) -> Any:
        found = re.fullmatch(r"\.layers\[(\d+)\](\..*)", name)
        stacked = None if found is None else part.get(f".layers{found[2]}")
        return x if stacked is None or found is None else stacked[int(found[1])]

    return map_named(adapter, model)


def map_named(f: Callable[[str, Any], Any], tree: Any) -> Any:
    """`tree` with f(path, leaf) for each leaf."""
    leaves, structure = jax.tree.flatten(tree)
    names = named_leaves(tree)
    assert len(names) == len(leaves)
    return jax.tree.unflatten(structure, [f(name, x) for name, x in names.items()])

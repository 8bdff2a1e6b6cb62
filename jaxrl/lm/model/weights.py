"""Models as Hugging Face folders: strict loading, shard by shard, and saving."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxrl import files, memory
from jaxrl.hub import INDEX, Index
from jaxrl.lm.model.config import ModelConfig
from jaxrl.lm.model.hf_config import Generation, from_hf, ids, to_hf
from jaxrl.lm.model.transformer import Transformer

AGAIN = "download it again"
FILE_BYTES = 5 * 10**9  # most that goes into one file
IGNORED = ("vision_tower.", "multi_modal_projector.")  # parts of models that also see
IGNORED_ENDS = (".rotary_emb.inv_freq",)  # constants in files of before 2024
BARE = ("embed_tokens.", "layers.", "norm.")  # saved without their head's prefix `model.`
STORED = ("F32", "F16", "BF16", "F64")  # tensor types that mean numbers as they are
TOP = {"embed": "model.embed_tokens", "norm.weight": "model.norm", "head": "lm_head"}
LAYER = {
    "attention_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
GEMMA_LAYER = LAYER | {
    "post_attention_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}


class Source(NamedTuple):
    """Where one parameter comes from: a tensor, or one for each layer to be stacked."""

    names: tuple[str, ...]
    stacked: bool
    transposed: bool  # Hugging Face stores matrices as [out, in]

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape each tensor must have for a parameter of `shape`."""
        one = shape[1:] if self.stacked else shape
        return one[::-1] if self.transposed else one


def load(
    folder: str | Path,
    *,
    sharding: Callable[[str, tuple[int, ...]], jax.sharding.Sharding] | None = None,
    param_dtype: str | None = None,
    dtype: str | None = None,
    on_host: bool = False,
) -> tuple[ModelConfig, Transformer]:
    """The model of a folder with `config.json` and safetensors files.

    `sharding` of a parameter's name and shape says where it lies; each device then reads its own
    part only; `on_host` leaves NumPy arrays. Both dtypes are the file's unless given. ValueError if
    the files do not hold exactly the tensors that the config asks for.
    """
    folder = Path(folder)
    cfg = read_config(folder)
    param_dtype = param_dtype or cfg.param_dtype
    cfg = replace(cfg, param_dtype=param_dtype, dtype=dtype or param_dtype)
    tensors = _open(folder)
    with files.reading(folder / "config.json", AGAIN):
        paths = _files(folder)
        names = ", ".join(path.name for path in paths[:2]) + ", ..." * (len(paths) > 2)
        cfg.check_stored(sum(map(files.check_regular, paths)), names)
    if sharding is None:
        size = cfg.num_parameters * np.dtype(param_dtype).itemsize
        memory.check_file(f"{folder} in {param_dtype}", size)
    abstract = nnx.eval_shape(lambda: Transformer(cfg, nnx.Rngs(0)))
    leaves, treedef = jax.tree_util.tree_flatten_with_path(abstract)
    wanted = {parameter_name(path): leaf for path, leaf in leaves}
    sources = {name: source(cfg, name, len(leaf.shape)) for name, leaf in wanted.items()}
    _check(folder, cfg, tensors, wanted, sources)

    def place(name: str, leaf: Any) -> Any:
        def part(index: Any) -> np.ndarray:  # a slice for each axis
            found = _read(tensors, sources[name], leaf.shape, index).astype(leaf.dtype)
            if not np.all(np.isfinite(found)):
                raise ValueError(f"{folder}: {name} holds numbers that are not finite; {AGAIN}.")
            return found

        if sharding is None:
            whole = part(tuple(slice(None) for _ in leaf.shape))
            return whole if on_host else jax.device_put(whole)
        return jax.make_array_from_callback(leaf.shape, sharding(name, leaf.shape), part)

    return cfg, jax.tree.unflatten(treedef, [place(n, leaf) for n, leaf in wanted.items()])


def read_config(folder: str | Path) -> ModelConfig:
    """The structure of a folder's model, without its weights."""
    folder = Path(folder)
    path = files.inside(folder, "config.json")
    if not os.path.lexists(path):
        raise ValueError(f"{folder} has no config.json; give a folder saved by transformers.")
    with files.reading(path):
        cfg = from_hf(files.read_json(path), str(path))
    generation = files.inside(folder, "generation_config.json")
    if not os.path.lexists(generation):
        return cfg
    with files.reading(generation):
        more = ids(files.read_json(generation, Generation).eos_token_id)
        return replace(cfg, end_ids=tuple(dict.fromkeys((*cfg.end_ids, *more))))


def parameter_name(path: tuple[Any, ...]) -> str:
    """`layers.q.weight` of a leaf's path in the model."""
    parts = [str(getattr(key, "key", getattr(key, "name", key))).strip(".") for key in path]
    return ".".join(part for part in parts if part != "value")


def source(cfg: ModelConfig, name: str, num_axes: int) -> Source:
    """The tensors of a Hugging Face file that make up one parameter."""
    if name in TOP:
        return Source((f"{TOP[name]}.weight",), stacked=False, transposed=False)
    _, module, kind = name.split(".")
    table = GEMMA_LAYER if cfg.family.startswith("gemma") else LAYER
    names = tuple(f"model.layers.{i}.{table[module]}.{kind}" for i in range(cfg.num_layers))
    return Source(names, stacked=True, transposed=num_axes == 3)


def _open(folder: Path) -> dict[str, Any]:
    """Every tensor of the folder's text model by name, as a slice that is read when indexed."""
    tensors = {}
    for path in _files(folder):
        for name, tensor in _tensors(path):
            short = name.replace("language_model.", "")
            short = f"model.{short}" if short.startswith(BARE) else short
            ignored = any(part in name for part in IGNORED) or name.endswith(IGNORED_ENDS)
            if not ignored and short in tensors:
                raise ValueError(f"{path} holds {name}, as another file does; {AGAIN}.")
            if not ignored:
                tensors[short] = tensor
    return tensors


def _files(folder: Path) -> list[Path]:
    index = files.inside(folder, INDEX)
    if os.path.lexists(index):
        with files.reading(index, AGAIN):
            names = sorted(set(files.read_json(index, Index).weight_map.values()))
            paths = [files.inside(folder, name) for name in names]
    else:
        paths = [files.inside(folder, "model.safetensors")]
        if not os.path.lexists(paths[0]):
            raise ValueError(f"{folder} has no model.safetensors and no index of several.")
    missing = [path.name for path in paths if not os.path.lexists(path)]
    if missing:
        raise ValueError(f"{folder} has no {missing[0]}, which its index names; {AGAIN}.")
    return paths


def _tensors(path: Path) -> Iterator[tuple[str, Any]]:
    safetensors = _safetensors()
    files.check_regular(path)
    try:
        file = safetensors.safe_open(path, framework="numpy")
        names = list(file.keys())
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}; {AGAIN}.") from None
    for name in names:
        yield name, file.get_slice(name)


def _safetensors() -> Any:
    try:
        import safetensors
    except ImportError:
        raise ValueError(
            "model folders need the package safetensors; try pip install jaxrl[hf]."
        ) from None
    return safetensors


def _check(
    folder: Path,
    cfg: ModelConfig,
    tensors: dict[str, Any],
    wanted: dict[str, Any],
    sources: dict[str, Source],
) -> None:
    """Exactly the tensors that the model asks for, each of the right shape."""
    left = set(tensors)
    for parameter, leaf in wanted.items():
        shape = sources[parameter].stored_shape(leaf.shape)
        for name in sources[parameter].names:
            if name not in tensors:
                raise ValueError(f"{folder} has no tensor {name}, which its config asks for.")
            left.discard(name)
            found = tuple(tensors[name].get_shape())
            if found != shape:
                raise ValueError(f"{folder}: {name} has shape {found}; its config says {shape}.")
            if tensors[name].get_dtype() not in STORED:
                raise ValueError(
                    f"{folder}: {name} is stored as {tensors[name].get_dtype()}; "
                    f"try one of {', '.join(STORED)}."
                )
    if cfg.tied and "lm_head.weight" in left:
        left.discard("lm_head.weight")
        embedding = tensors["model.embed_tokens.weight"]
        if not np.array_equal(tensors["lm_head.weight"][:], embedding[:]):
            raise ValueError(
                f"{folder}: lm_head.weight is not model.embed_tokens.weight, "
                "though tie_word_embeddings is true; try false."
            )
    if left:
        raise ValueError(f"{folder} has tensor {min(left)}, which its config has no place for.")


def _read(
    tensors: dict[str, Any], source: Source, shape: tuple[int, ...], index: tuple[slice, ...]
) -> np.ndarray:
    """The part `index` of a parameter, from the parts of the tensors that it needs."""
    if not source.stacked:
        return tensors[source.names[0]][index]
    part = index[1:][::-1] if source.transposed else index[1:]
    chosen = range(*index[0].indices(shape[0]))
    read = [tensors[source.names[i]][part] for i in chosen]
    return np.stack([x.T if source.transposed else x for x in read])


def save(
    folder: str | Path, cfg: ModelConfig, model: Transformer, file_bytes: int = FILE_BYTES
) -> None:
    """A folder that `transformers` and `load` read; ValueError if no family has this structure.

    In several files if the parameters are more than `file_bytes`.
    """
    from safetensors.numpy import save_file

    config = to_hf(cfg)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = _split(cfg, model, file_bytes)
    if len(parts) == 1:
        names = ["model.safetensors"]
    else:
        names = [f"model-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))]
    for name, tensors in zip(names, parts, strict=True):
        save_file(tensors, folder / name, metadata={"format": "pt"})
    if len(parts) > 1:
        total = sum(x.nbytes for tensors in parts for x in tensors.values())
        where = {key: n for n, tensors in zip(names, parts, strict=True) for key in tensors}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        files.write_json(folder / INDEX, index)
    files.write_json(folder / "config.json", config)


def _split(cfg: ModelConfig, model: Transformer, most: int) -> list[dict[str, np.ndarray]]:
    files: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]:
        array = np.asarray(leaf)
        where = source(cfg, parameter_name(path), array.ndim)
        for i, name in enumerate(where.names):
            one = array[i] if where.stacked else array
            one = np.ascontiguousarray(one.T if where.transposed else one)
            if size + one.nbytes > most and files[-1]:
                files.append({})
                size = 0
            files[-1][name] = one
            size += one.nbytes
    return files

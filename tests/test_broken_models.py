"""Model folders from anywhere, broken or made to harm: one line, soon, and no read outside."""

import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import tokenizer_files
from damage import ANY_JSON, check, folder_instead, gone, half, link, pipe, put, rows, text
from flax import nnx
from safetensors.numpy import load_file, save_file

from jaxrl.lm import ModelConfig, Transformer, folders, preset
from jaxrl.lm.model import weights
from jaxrl.lm.model.config import PRESETS, RELEASED
from jaxrl.text import BpeTokenizer

CFG = ModelConfig(
    vocab_size=16, width=8, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4, hidden=12
)
ONE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The same model in one file and in several, and what else a model's folder has."""
    folder, model = tmp_path_factory.mktemp("models"), Transformer(CFG, nnx.Rngs(0))
    weights.save(folder / "one", CFG, model)
    weights.save(folder / "several", CFG, model, file_bytes=1000)
    (folder / "one" / "generation_config.json").write_text('{"eos_token_id": 3}')
    (folder / "one" / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|end|>"}}')
    shutil.copy(tokenizer_files.file("qwen2"), folder / "one" / "tokenizer.json")
    for file, load in LOADERS.items():
        load(folder / Path(file).parts[0])
    return folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def read_tokenizer(folder: Path) -> None:
    BpeTokenizer.from_file(folder / "tokenizer.json")


LOADERS = {
    "one/config.json": weights.load,
    "one/generation_config.json": weights.load,
    f"one/{ONE}": weights.load,
    f"several/{INDEX}": weights.load,
    "one/tokenizer_config.json": folders._template,
    "one/tokenizer.json": read_tokenizer,
}

CONFIG = [
    *ANY_JSON,
    (put(model_type=5), "model_type=5"),
    (put(model_type="mamba"), "model_type=mamba is not supported; try one of qwen2, qwen3, llama"),
    (put(quantization_config={"quant_method": "gptq"}), "quantization_config of gptq is not"),
    (put(num_attention_heads=0), "num_attention_heads=0 must"),
    (put(hidden_size=64.5), "hidden_size=64.5 must be an integer"),
    (put(hidden_size=-8), "hidden_size=-8 must"),
    (put(hidden_size=10**9), "are more than"),
    (put(vocab_size=10**12), "vocab_size=1000000000000 must"),
    (put(vocab_size=2**31 - 1), "are more than"),
    (put(num_hidden_layers=10**12), "num_hidden_layers=1000000000000 must"),
    (put(num_hidden_layers=9999), "are more than"),
    (put(num_hidden_layers=1e12), "num_hidden_layers=1000000000000.0 must be an integer"),
    (put(num_hidden_layers=9999, model_type="gemma2"), "are more than"),
    (put(num_hidden_layers=[2]), "num_hidden_layers=[2] must be an integer"),
    (put(num_key_value_heads=5), "num_kv_heads=5"),
    (put(head_dim=3), "head_dim=3 must be even"),
    (put(rms_norm_eps="small"), "rms_norm_eps"),
    (put(rms_norm_eps=-1), "rms_norm_eps=-1.0"),
    (put(rope_theta=0), "rope_theta=0.0"),
    (put(rope_scaling=[1]), "rope_scaling=[1] must be an object"),
    (put(rope_scaling={"type": "linear"}), "rope_type=linear needs factor"),
    (put(rope_scaling={"type": "linear", "factor": "8"}), "rope_scaling.factor"),
    (put(rope_scaling={"rope_type": "llama3", "factor": 8}), "needs low_freq_factor"),
    (put(rope_parameters={"full_attention": 5}), "rope_parameters.full_attention=5"),
    (put(tie_word_embeddings="no"), "tie_word_embeddings"),
    (put(eos_token_id="</s>"), "eos_token_id"),
    (put(eos_token_id=-1), "eos_token_id=-1"),
    (put(eos_token_id=[2**40]), "end_ids=1099511627776"),
    (put(layer_types="full"), "layer_types"),
    (put(layer_types=["chunked_attention"]), "layer_types[0]"),
    (put(use_sliding_window=True, sliding_window=10**12), "sliding_window"),
    (put(model_type="gemma2", sliding_window_pattern=0), "sliding_window_pattern=0"),
    (put(model_type="gemma2", query_pre_attn_scalar=0), "query_pre_attn_scalar"),
    (put(torch_dtype=5), "torch_dtype=5 must be a text"),
    (put(text_config={"model_type": "llama", "hidden_size": []}), "text_config.hidden_size"),
    (put(text_config=3), "text_config=3 must be an object"),
    (put(hidden_size=...), "no hidden_size"),
]
GENERATION = [*ANY_JSON[1:], (put(eos_token_id={}), "eos_token_id"), (put(eos_token_id=-1), "")]


def header(**changes):
    """What the header of a safetensors file says of its first tensor."""

    def damage(path: Path) -> None:
        data = path.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        says = json.loads(data[8 : 8 + size])
        says[UP] |= changes
        new = json.dumps(says).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + size :])

    return damage


UP = "model.layers.1.mlp.up_proj.weight"
TENSORS = [
    (gone, "has no model.safetensors"),
    (text(""), "is damaged"),
    (half, "is damaged"),
    (text(b"\xff" * 8 + b"{}"), "is damaged"),
    (text(struct.pack("<Q", 2**63) + b"{}"), "is damaged"),
    (text(struct.pack("<Q", 2) + b"{}"), "bytes of model.safetensors hold"),
    (text(struct.pack("<Q", 5000) + b"[" * 5000), "is damaged"),
    (header(dtype="X9"), "is damaged"),
    (header(shape=[10**13]), "is damaged"),
    (header(shape=[2**40, 2**40]), "is damaged"),
    (header(data_offsets=[0, 384]), "is damaged"),
    (header(data_offsets=[10**12, 10**12 + 384]), "is damaged"),
    (folder_instead, "is a folder"),
    (pipe, "is a pipe"),
    (link("/dev/zero"), "outside the folder"),
    (link("/etc/passwd"), "outside the folder"),
    (link(f"../../outside/{ONE}"), "outside the folder"),
    (link(ONE), "cannot be read: too many levels of symbolic links"),
]


def named(name):
    def damage(path: Path) -> None:
        kept = json.loads(path.read_text())
        first = min(kept["weight_map"])
        put(weight_map=kept["weight_map"] | {first: name})(path)

    return damage


INDICES = [
    *ANY_JSON[1:],
    (put(weight_map=[]), "weight_map=[] must be an object"),
    (put(weight_map={"a": 5}), "weight_map.a=5 must be a text"),
    (put(weight_map=...), "no field weight_map"),
    (named(f"../../outside/{ONE}"), "must be a plain name"),
    (named(f"../one/{ONE}"), "must be a plain name"),
    (named("/etc/passwd"), "must be a plain name"),
    (named("."), "must be a plain name"),
    (named(""), "must be a plain name"),
    (named("a\u0000b"), "must be a plain name"),
]
TOKENIZER_CONFIG = [
    *ANY_JSON[1:],
    (put(chat_template=5), "chat_template=5 must be a text"),
    (put(chat_template=[5]), "chat_template"),
    (put(bos_token=5), "bos_token=5"),
    (put(eos_token={"text": "a"}), "eos_token"),
    (link("../../outside/tokenizer_config.json"), "outside the folder"),
]
ROWS = [
    *rows("one/config.json", [*CONFIG, (link("../../outside/config.json"), "outside")]),
    *rows("one/generation_config.json", GENERATION),
    *rows(f"one/{ONE}", TENSORS),
    *rows(f"several/{INDEX}", INDICES),
    *rows("one/tokenizer_config.json", TOKENIZER_CONFIG),
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("file", "damage", "words"), ROWS)
def test_a_broken_file_of_a_model_is_refused_in_one_line(file, damage, words, whole, copy):
    shutil.copytree(whole / "one", copy.parent / "outside")
    load, path = LOADERS[file], copy / file
    check(lambda: load(path.parent), path, damage, words)


def test_links_of_the_cache_of_hugging_face_are_followed(whole, tmp_path):
    """snapshots/REVISION/file -> ../../blobs/DIGEST, as its client lays them."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted((whole / "several").iterdir())):
        shutil.copy(file, blobs / str(i))
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    cfg, model = weights.load(snapshot)
    assert cfg == CFG
    for a, b in zip(
        jax.tree.leaves(model), jax.tree.leaves(weights.load(whole / "one")[1]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    os.symlink(snapshot, tmp_path / "short")  # the folder itself may be a link
    assert weights.load(tmp_path / "short")[0] == CFG


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_weights_that_are_not_finite_are_refused(dtype, copy):
    tensors = load_file(copy / "one" / ONE)
    tensors[UP] = np.full((12, 8), np.nan, dtype)
    save_file(tensors, copy / "one" / ONE)
    with pytest.raises(ValueError, match=r"one: layers.up.weight holds numbers that are not fini"):
        weights.load(copy / "one")


def test_a_tensor_in_two_files_is_refused(copy):
    one, other = sorted((copy / "several").glob("*.safetensors"))[:2]
    kept = load_file(other)
    kept |= dict(list(load_file(one).items())[:1])
    save_file(kept, other)
    with pytest.raises(ValueError, match=rf"{other.name} holds .*, as another file does"):
        weights.load(copy / "several")


@pytest.mark.parametrize("name", [*PRESETS, *RELEASED])
def test_the_number_of_parameters_is_known_before_anything_is_built(name):
    for cfg in (
        preset(name, 260),
        replace(preset(name, 260), lora_rank=3, tied=False, qkv_bias=True),
        replace(preset(name, 260), post_norms=True, qk_norm=False),
    ):
        shapes = nnx.eval_shape(lambda cfg=cfg: Transformer(cfg, nnx.Rngs(0)))
        assert sum(x.size for x in jax.tree.leaves(shapes)) == cfg.num_parameters


def vocabulary(**changes):
    """More tokens, by name."""

    def damage(path: Path) -> None:
        file = json.loads(path.read_text())
        file["model"]["vocab"] |= changes
        path.write_text(json.dumps(file))

    return damage


def long_tokens(path: Path) -> None:
    """Which would take a square of their length to look at."""
    file = json.loads(path.read_text())
    file["model"] |= {"ignore_merges": True}
    file["model"]["vocab"] |= {"a" * 2000 + str(i): 1000 + i for i in range(100)}
    path.write_text(json.dumps(file))


def colliding(path: Path) -> None:
    """Merges that all share one place of the table."""
    file = json.loads(path.read_text())
    vocab = file["model"]["vocab"]
    names = [name for name in vocab if len(name) == 1][:100]
    file["model"]["merges"] = [f"{a} {b}" for a in names for b in names if a + b in vocab][:20]
    path.write_text(json.dumps(file))


TOKENIZER = [
    *[row for row in ANY_JSON[1:] if row[1] != "must be an object"],
    (long_tokens, "too long to look at"),
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("file", "damage", "words"), rows("one/tokenizer.json", TOKENIZER))
def test_a_broken_tokenizer_is_refused_in_one_line(file, damage, words, copy):
    check(lambda: read_tokenizer(copy / "one"), copy / file, damage, words)

"""Model folders: configs as released, strict loading, several files, dtypes, placement."""

import json
import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxrl.lm import ModelConfig, Transformer, preset
from jaxrl.lm.model.config import RopeScaling
from jaxrl.lm.model.hf_config import from_hf, to_hf
from jaxrl.lm.model.weights import load, read_config, save

CFG = ModelConfig(
    vocab_size=16, width=8, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4, hidden=12
)
# The keys of released files that matter here.
QWEN25 = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
    "eos_token_id": 151645,
}
LLAMA32 = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "attention_bias": False,
    "mlp_bias": False,
    "rms_norm_eps": 1e-05,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
    "eos_token_id": [128001, 128008, 128009],
}
GEMMA3_4B = {
    "model_type": "gemma3",
    "eos_token_id": [1, 106],
    "torch_dtype": "bfloat16",
    "vision_config": {"model_type": "siglip_vision_model"},
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
}


def test_qwen_file_without_head_dim_divides_the_width_and_leaves_the_window_off():
    cfg = from_hf(QWEN25)
    assert (cfg.head_dim, cfg.qkv_bias, cfg.qk_norm, cfg.tied) == (64, True, False, True)
    assert (cfg.windowed, cfg.window, cfg.rope_base) == ((), 0, 1e6)
    assert (cfg.param_dtype, cfg.end_ids) == ("bfloat16", (151645,))


def test_llama_file_keeps_the_scaling_and_all_its_end_tokens():
    cfg = from_hf(LLAMA32)
    assert cfg.rope_scaling == RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)
    assert cfg.end_ids == (128001, 128008, 128009)
    assert not cfg.qkv_bias


def test_gemma_multimodal_file_gives_its_text_part_with_the_familys_defaults():
    cfg = from_hf(GEMMA3_4B)
    assert (cfg.num_heads, cfg.num_kv_heads, cfg.head_dim) == (8, 4, 256)
    assert cfg.rope_scaling == RopeScaling("linear", 8.0)
    assert (cfg.rope_base, cfg.local_rope_base) == (1e6, 1e4)
    assert cfg.windowed[:7] == (True,) * 5 + (False, True)
    assert (cfg.vocab_size, cfg.tied, cfg.attention_cap) == (262_208, True, 0.0)


def test_the_nested_spelling_of_rope_means_what_the_old_keys_mean():
    new = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    text = {k: v for k, v in GEMMA3_4B["text_config"].items() if k != "rope_scaling"}
    nested = GEMMA3_4B | {"text_config": text | {"rope_parameters": new}, "dtype": "bfloat16"}
    del nested["torch_dtype"]
    assert from_hf(nested) == from_hf(GEMMA3_4B)
    flat = {k: v for k, v in LLAMA32.items() if k not in ("rope_scaling", "rope_theta")}
    flat["rope_parameters"] = LLAMA32["rope_scaling"] | {"rope_theta": 500000.0}
    assert from_hf(flat) == from_hf(LLAMA32)


def test_gemma2_caps_are_there_when_left_out_and_gone_when_null():
    file: dict[str, Any] = {
        "model_type": "gemma2",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 3,
    }
    assert (from_hf(file).attention_cap, from_hf(file).final_cap) == (50.0, 30.0)
    assert from_hf(file).windowed == (True, False, True)
    assert from_hf(file | {"attn_logit_softcapping": None}).attention_cap == 0.0


@pytest.mark.parametrize("file", [QWEN25, LLAMA32, GEMMA3_4B], ids=["qwen", "llama", "gemma"])
def test_a_config_survives_writing_and_reading(file):
    assert from_hf(to_hf(from_hf(file))) == replace(from_hf(file))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, "model_type=mamba is not supported; try one of qwen2"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_type=yarn is not supported"),
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"hidden_act": "relu"}, "activation relu is not supported"),
        ({"torch_dtype": "int8"}, "dtype=int8 is not supported"),
        ({"hidden_size": None}, "config.json has no hidden_size"),
        ({"num_key_value_heads": 5}, "num_kv_heads=5 does not divide num_heads=32"),
    ],
)
def test_a_config_that_this_transformer_is_not_is_refused(change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        from_hf(LLAMA32 | change)


def test_a_structure_that_no_file_of_the_family_means_is_not_saved(tmp_path):
    cfg = replace(CFG, norm_offset=True)
    with pytest.raises(ValueError, match="norm_offset=True is not what a qwen3 file means"):
        save(tmp_path, cfg, Transformer(cfg, nnx.Rngs(0)))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def model() -> Transformer:
    return Transformer(CFG, nnx.Rngs(0))


def assert_equal(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("file_bytes", [10**9, 1000])
def test_a_saved_model_loads_exactly_from_one_file_or_several(file_bytes, model, tmp_path):
    save(tmp_path, CFG, model, file_bytes=file_bytes)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (file_bytes == 1000)
    cfg, loaded = load(tmp_path)
    assert cfg == CFG
    assert_equal(loaded, model)


def test_matrices_are_stored_as_outputs_by_inputs(model, tmp_path):
    save(tmp_path, CFG, model)
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        stored = file.get_tensor("model.layers.1.mlp.up_proj.weight")
    np.testing.assert_array_equal(stored, model.layers.up.weight[1].T)


def test_bfloat16_parameters_are_kept_in_bfloat16(tmp_path):
    cfg = replace(CFG, param_dtype="bfloat16", dtype="bfloat16", tied=False)
    model = Transformer(cfg, nnx.Rngs(0))
    save(tmp_path, cfg, model)
    read, loaded = load(tmp_path)
    assert read == cfg
    assert_equal(loaded, model)
    full = load(tmp_path, param_dtype="float32", dtype="bfloat16")
    assert (full[0].param_dtype, full[0].dtype) == ("float32", "bfloat16")
    assert_equal(full[1], jax.tree.map(lambda x: x.astype(jnp.float32), rebuilt(full[0], model)))


def rebuilt(cfg: ModelConfig, model: Transformer) -> Transformer:
    structure = jax.tree.structure(Transformer(cfg, nnx.Rngs(0)))
    return jax.tree.unflatten(structure, jax.tree.leaves(model))


def changed(folder, model, change) -> None:
    save(folder, CFG, model)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_tensors_of_several_dtypes_load_as_one(model, tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    changed(tmp_path, model, lambda t: t.update({name: t[name].astype(np.float16)}))
    up = load(tmp_path)[1].layers.up.weight
    assert up.dtype == jnp.float32
    np.testing.assert_allclose(up[0], model.layers.up.weight[0], atol=1e-3)


def test_names_of_multimodal_files_are_understood_and_what_sees_is_ignored(model, tmp_path):
    def rename(tensors):
        for name in list(tensors):
            tensors[name.replace("model.", "model.language_model.")] = tensors.pop(name)
        tensors["model.vision_tower.weight"] = np.zeros(3, np.float32)
        tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"].copy()

    changed(tmp_path, model, rename)
    assert_equal(load(tmp_path)[1], model)


UP = "model.layers.1.mlp.up_proj.weight"
BROKEN = [
    (lambda t: t.pop(UP), f"has no tensor {UP}"),
    (lambda t: t.update(extra=np.zeros(2)), "has tensor extra, which its config has no place for"),
    (lambda t: t.update({UP: t[UP].T.copy()}), f"{UP} has shape (8, 12); its config says (12, 8)"),
    (lambda t: t.update({UP: t[UP].astype(np.int8)}), f"{UP} is stored as I8"),
    (
        lambda t: t.update({"lm_head.weight": np.zeros((16, 8), np.float32)}),
        "lm_head.weight is not model.embed_tokens.weight",
    ),
]


@pytest.mark.parametrize(("change", "words"), BROKEN)
def test_a_folder_with_other_tensors_than_its_config_is_refused(change, words, model, tmp_path):
    changed(tmp_path, model, change)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_missing_and_damaged_files_are_named(model, tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        load(tmp_path)
    save(tmp_path, CFG, model)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match="is damaged"):
        load(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        load(tmp_path)
    save(tmp_path, CFG, model, file_bytes=1000)
    second = sorted(tmp_path.glob("*.safetensors"))[1]
    second.unlink()
    with pytest.raises(ValueError, match=f"has no {second.name}"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load(tmp_path)


def test_the_generation_config_adds_tokens_that_end_a_turn(model, tmp_path):
    save(tmp_path, replace(CFG, end_ids=(3,)), model)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 5]}))
    assert read_config(tmp_path).end_ids == (3, 5)


def test_each_device_reads_only_its_part(model, tmp_path):
    save(tmp_path, CFG, model)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))

    def halves(name: str, shape: tuple[int, ...]) -> NamedSharding:
        spec = [None] * (len(shape) - 1) + ["data"] if shape[-1] % 4 == 0 else []
        return NamedSharding(mesh, PartitionSpec(*spec))

    _, loaded = load(tmp_path, sharding=halves)
    assert_equal(loaded, model)
    assert loaded.layers.up.weight[...].addressable_shards[0].data.shape == (2, 8, 3)
    assert loaded.embed[...].addressable_shards[0].data.shape == (16, 2)


@pytest.mark.parametrize(
    ("name", "millions"), [("nano", 0.115), ("tiny", 0.36), ("small", 3.2), ("base", 25.3)]
)
def test_a_preset_has_the_size_it_says_and_a_file_can_hold_it(name, millions):
    cfg = preset(name, 260)
    shapes = nnx.eval_shape(lambda: Transformer(cfg, nnx.Rngs(0)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) / 1e6 == pytest.approx(millions, rel=0.02)
    assert from_hf(to_hf(cfg)) == cfg


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="model=huge is no preset and no folder; try one of nano, tiny, small, ba"
    ):
        preset("huge", 260)

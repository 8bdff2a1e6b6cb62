"""Every family against transformers, with random weights; and that each switch is needed for it.

Needs the extra `parity`: `pip install -e .[parity,hf,test]`.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrl.lm import ModelConfig, Transformer, logits, read
from jaxrl.lm.model.config import RopeScaling
from jaxrl.lm.model.weights import load, parameter_name, save

NEEDED = "install the extra parity to compare with transformers"
torch = pytest.importorskip("torch", reason=NEEDED)
transformers = pytest.importorskip("transformers", reason=NEEDED)
pytest.importorskip("safetensors", reason="install the extra hf")

SIZES = dict(
    vocab_size=31,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    attn_implementation="eager",
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=20.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=24,
)
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", dict(rope_parameters={"rope_theta": 50.0}, rms_norm_eps=1e-2)),
    "qwen2-tied-window": (
        "Qwen2",
        dict(tie_word_embeddings=True, use_sliding_window=True, sliding_window=4)
        | dict(max_window_layers=1),
    ),
    "qwen3": ("Qwen3", dict(head_dim=10, rope_parameters={"rope_theta": 50.0})),
    "llama": ("Llama", dict(rope_parameters=LLAMA3, head_dim=8)),
    "gemma2": (
        "Gemma2",
        dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=20)
        | dict(attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    ),
    "gemma3": (
        "Gemma3",
        dict(head_dim=8, sliding_window=5, query_pre_attn_scalar=20, layer_types=LAYERS)
        | dict(
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 90.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
            }
        ),
    ),
}
TOKENS = np.random.default_rng(0).integers(0, 31, (3, 16))
LENGTH = np.array([16, 9, 1])
MASK = np.arange(16) < LENGTH[:, None]


def reference(family: str) -> Any:
    """A transformers model in which every parameter is random, norms and biases too."""
    name, options = FAMILIES[family]
    kind = f"{name}Text" if name == "Gemma3" else name
    config = getattr(transformers, f"{kind}Config")(**SIZES | options)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.4 + (parameter.ndim == 1))
    return model


def their_logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        out = model(torch.tensor(TOKENS), attention_mask=torch.tensor(MASK.astype(int)))
    return out.logits.float().numpy()[MASK]


def our_logits(model: Transformer) -> np.ndarray:
    hidden = jax.jit(read)(model, jnp.array(TOKENS))
    return np.asarray(logits(model, hidden))[MASK]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """For a family: our config and model, loaded from what transformers saved, and its logits."""
    found = {}

    def get(family: str) -> tuple[ModelConfig, Transformer, np.ndarray]:
        if family not in found:
            model = reference(family)
            folder = tmp_path_factory.mktemp(family)
            model.save_pretrained(folder)
            found[family] = (*load(folder), their_logits(model))
        return found[family]

    return get


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers_at_every_length(family, compared):
    _, model, theirs = compared(family)
    assert theirs.std() > 0.3
    np.testing.assert_allclose(our_logits(model), theirs, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_what_we_save(family, compared, tmp_path):
    cfg, model, theirs = compared(family)
    save(tmp_path, cfg, model, file_bytes=8000)
    back = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype="float32"
    )
    np.testing.assert_allclose(their_logits(back.eval()), theirs, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_loses_no_more_than_transformers_does(family, compared, tmp_path):
    cfg, model, exact = compared(family)
    save(tmp_path, cfg, model)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype="bfloat16"
    )
    _, ours = load(tmp_path, param_dtype="bfloat16", dtype="bfloat16")

    def error(found: np.ndarray) -> float:
        return float(np.sqrt(np.mean((found - exact) ** 2)) / exact.std())

    lost = error(their_logits(theirs.eval()))
    assert 0 < error(our_logits(ours)) < 1.3 * lost


def rebuilt(cfg: ModelConfig, model: Transformer) -> Transformer:
    """The same weights under another structure; what only the new one has is fresh."""
    weight = {parameter_name(p): x for p, x in jax.tree_util.tree_flatten_with_path(model)[0]}
    new, structure = jax.tree_util.tree_flatten_with_path(Transformer(cfg, nnx.Rngs(0)))
    return jax.tree.unflatten(structure, [weight.get(parameter_name(p), x) for p, x in new])


def llama3(**change: float) -> RopeScaling:
    return replace(RopeScaling("llama3", 8.0, 1.0, 4.0, 24), **change)


SWITCHES = [
    ("qwen2", dict(qkv_bias=False)),
    ("qwen2", dict(tied=True)),
    ("qwen2", dict(norm_eps=1e-6)),
    ("qwen2", dict(rope_base=10_000.0)),
    ("qwen2-tied-window", dict(windowed=())),
    ("qwen2-tied-window", dict(tied=False)),
    ("qwen3", dict(qk_norm=False)),
    ("llama", dict(rope_scaling=None)),
    ("llama", dict(rope_scaling=llama3(factor=4.0))),
    ("llama", dict(rope_scaling=llama3(low=2.0))),
    ("llama", dict(rope_scaling=llama3(high=3.0))),
    ("llama", dict(rope_scaling=llama3(original=48))),
    ("gemma2", dict(norm_offset=False)),
    ("gemma2", dict(post_norms=False)),
    ("gemma2", dict(activation="silu")),
    ("gemma2", dict(scale_embedding=False)),
    ("gemma2", dict(windowed=())),
    ("gemma2", dict(windowed=(False, True, False))),
    ("gemma2", dict(window=5)),
    ("gemma2", dict(attention_cap=0.0)),
    ("gemma2", dict(final_cap=0.0)),
    ("gemma2", dict(attention_scale=None)),
    ("gemma3", dict(qk_norm=False)),
    ("gemma3", dict(rope_scaling=None)),
    ("gemma3", dict(local_rope_base=None)),
    ("gemma3", dict(windowed=(True, True, False))),
]


@pytest.mark.parametrize(("family", "change"), SWITCHES, ids=[f"{f}-{c}" for f, c in SWITCHES])
def test_ignoring_a_switch_changes_the_logits(family, change, compared):
    cfg, model, theirs = compared(family)
    ignorant = rebuilt(replace(cfg, **change), model)
    assert np.abs(our_logits(ignorant) - theirs).max() > 1e-2

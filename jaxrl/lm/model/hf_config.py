"""A model's structure from a Hugging Face `config.json`, in its old and new spellings, and back."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from jaxrl.config import check_range
from jaxrl.files import Foreign, as_type
from jaxrl.lm.model.config import (
    FAMILIES,
    MOST_LAYERS,
    Family,
    ModelConfig,
    RopeScaling,
)


class Numbers(Foreign):
    """Fields whose numbers are positive, and no larger than what a model may have."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if type(value) is int:
                least = 0 if name in ("eos_token_id", "max_window_layers") else 1
                most = MOST_LAYERS if name == "num_hidden_layers" else 2**31 - 1
                check_range(name, value, least, most, 32)
            elif type(value) is float and not 0 < value < 1e30:
                raise ValueError(f"{name}={value} must lie between 0 and 1e30; leave it out.")


@dataclass(frozen=True)
class Rope(Numbers):
    """How positions are told: of all layers, or of each kind of layer."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: float | None = None
    factor: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None
    partial_rotary_factor: float | None = None
    full_attention: "Rope | None" = None
    sliding_attention: "Rope | None" = None


@dataclass(frozen=True)
class Top(Numbers):
    """The fields of a whole `config.json` that matter here; null is the same as left out."""

    text_config: dict[str, Any] | None = None
    tie_word_embeddings: bool | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    dtype: str | None = None
    torch_dtype: str | None = None
    quantization_config: dict[str, Any] | None = None


@dataclass(frozen=True)
class Fields(Top):
    """Those of its text part, which is most often the whole."""

    model_type: str | None = None
    vocab_size: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int | None = None
    hidden_act: str | None = None
    hidden_activation: str | None = None
    rms_norm_eps: float | None = None
    rope_theta: float | None = None
    rope_local_base_freq: float | None = None
    rope_scaling: Rope | None = None
    rope_parameters: Rope | None = None
    sliding_window: int | None = None
    sliding_window_pattern: int | None = None
    use_sliding_window: bool | None = None
    max_window_layers: int | None = None
    layer_types: tuple[Literal["full_attention", "sliding_attention"], ...] | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    query_pre_attn_scalar: float | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    use_bidirectional_attention: bool | str | None = None


@dataclass(frozen=True)
class Generation(Foreign):
    """What matters of a `generation_config.json`."""

    eos_token_id: int | tuple[int, ...] | None = None


REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers")
GEMMA_DEFAULTS = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "rms_norm_eps": 1e-6,
}
# What a file means by leaving a key out: the defaults of transformers' configuration classes.
DEFAULTS: dict[Family, dict[str, Any]] = {
    "qwen2": {"max_position_embeddings": 32768, "sliding_window": 4096},
    "qwen3": {"max_position_embeddings": 32768, "sliding_window": 4096, "head_dim": 128},
    "llama": {"max_position_embeddings": 2048},
    "gemma2": GEMMA_DEFAULTS
    | {
        "vocab_size": 256_000,
        "max_position_embeddings": 8192,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window_pattern": 2,
    },
    "gemma3_text": GEMMA_DEFAULTS
    | {
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "sliding_window_pattern": 6,
    },
}
COMMON_DEFAULTS = {
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-6,
    "max_window_layers": 28,
}
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
ARCHITECTURES: dict[Family, str] = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
DTYPES = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float32"}
# Switches of neighbouring architectures: a file that sets one means a model this one is not.
UNSUPPORTED = ("attention_bias", "mlp_bias", "use_bidirectional_attention")


def from_hf(file: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """The structure that a parsed `config.json` describes; a multimodal file's text part.

    ValueError, which names the field, for another type and for what is not supported.
    """
    as_type(Top, file, where)
    text = file.get("text_config") or file
    as_type(Fields, text, where if text is file else f"{where}: text_config")
    family = _family(text)
    gemma = family.startswith("gemma")
    raw = COMMON_DEFAULTS | DEFAULTS[family] | _without_nulls(text)
    raw |= {k: None for k in ("attn_logit_softcapping", "final_logit_softcapping") if _off(text, k)}
    missing = [k for k in (*REQUIRED, "num_attention_heads", "vocab_size") if k not in raw]
    if missing:
        raise ValueError(f"{where} has no {missing[0]}; a {family} file needs it.")
    _refuse(_without_nulls(file) | raw)
    depth, heads = raw["num_hidden_layers"], raw["num_attention_heads"]
    windowed = _windowed(family, raw, depth)
    rope = _rope(raw)
    dtype = _dtype(file, text)
    return ModelConfig(
        vocab_size=raw["vocab_size"],
        width=raw["hidden_size"],
        num_layers=depth,
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads", heads),
        head_dim=raw.get("head_dim", raw["hidden_size"] // heads),
        hidden=raw["intermediate_size"],
        context=raw["max_position_embeddings"],
        family=family,
        norm_eps=raw["rms_norm_eps"],
        qkv_bias=family == "qwen2",
        qk_norm=family in ("qwen3", "gemma3_text"),
        norm_offset=gemma,
        post_norms=gemma,
        activation=_activation(raw["hidden_activation" if gemma else "hidden_act"]),
        scale_embedding=gemma,
        tied=_without_nulls(file).get("tie_word_embeddings", raw["tie_word_embeddings"]),
        rope_base=rope[0],
        rope_scaling=rope[1],
        local_rope_base=rope[2],
        window=raw["sliding_window"] if any(windowed) else 0,
        windowed=windowed,
        attention_cap=raw.get("attn_logit_softcapping") or 0.0,
        final_cap=raw.get("final_logit_softcapping") or 0.0,
        attention_scale=raw["query_pre_attn_scalar"] ** -0.5 if gemma else None,
        end_ids=ids(file.get("eos_token_id", text.get("eos_token_id"))),
        param_dtype=dtype,
        dtype=dtype,
    )


def _without_nulls(part: dict[str, Any]) -> dict[str, Any]:
    """A field that is null is one that is left out, further inside too."""
    return {
        name: _without_nulls(x) if isinstance(x, dict) else x
        for name, x in part.items()
        if x is not None
    }


def _family(text: dict[str, Any]) -> Family:
    name = text.get("model_type")
    for family in FAMILIES:
        if name == family or (name == "gemma3" and family == "gemma3_text"):
            return family
    raise ValueError(f"model_type={name} is not supported; try one of {', '.join(FAMILIES)}.")


def _off(text: dict[str, Any], key: str) -> bool:
    """An explicit null switches a cap off; a missing key means the family's default."""
    return key in text and text[key] is None


def _refuse(raw: dict[str, Any]) -> None:
    quantized = raw.get("quantization_config")
    if quantized:
        raise ValueError(
            f"quantization_config of {quantized.get('quant_method', 'some kind')} is not supported;"
            " take the model in bfloat16, float16 or float32."
        )
    for key in UNSUPPORTED:
        if raw.get(key):
            raise ValueError(f"{key}={raw[key]} is not supported; a model with false works.")


def _activation(name: str) -> Any:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name} is not supported; try one of {list(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def _windowed(family: Family, raw: dict[str, Any], depth: int) -> tuple[bool, ...]:
    if family.startswith("qwen"):
        if not raw.get("use_sliding_window"):
            return ()
        default = [i >= raw["max_window_layers"] for i in range(depth)]
    elif family.startswith("gemma"):
        default = [(i + 1) % raw["sliding_window_pattern"] != 0 for i in range(depth)]
    else:
        return ()
    types = raw.get("layer_types")
    windowed = tuple(t == "sliding_attention" for t in types) if types else tuple(default)
    return windowed if any(windowed) else ()


def _rope(raw: dict[str, Any]) -> tuple[float, RopeScaling | None, float | None]:
    """Base, scaling and local base: flat keys (old), one dict, or a dict for each layer type."""
    new = raw.get("rope_parameters") or {}
    whole = new.get("full_attention", new) or raw.get("rope_scaling") or {}
    local = new.get("sliding_attention") or {}
    base = float(whole.get("rope_theta", raw["rope_theta"]))
    local_base = local.get("rope_theta", raw.get("rope_local_base_freq"))
    if _kind(local) != "default":
        raise ValueError(f"rope scaling {_kind(local)} of windowed layers is not supported.")
    return base, _scaling(whole), None if local_base is None else float(local_base)


def _kind(rope: dict[str, Any]) -> str:
    return rope.get("rope_type", rope.get("type", "default"))


def _scaling(rope: dict[str, Any]) -> RopeScaling | None:
    kind = _kind(rope)
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(
            f"partial_rotary_factor={rope['partial_rotary_factor']} is not supported; 1 works."
        )
    if kind == "default":
        return None
    needed = {"linear": ("factor",), "llama3": LLAMA3_ROPE}.get(kind, ())
    missing = [name for name in needed if name not in rope]
    if missing:
        raise ValueError(f"rope_type={kind} needs {missing[0]}; see the model's own config.json.")
    if kind == "linear":
        return RopeScaling("linear", float(rope["factor"]))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            float(rope["factor"]),
            float(rope["low_freq_factor"]),
            float(rope["high_freq_factor"]),
            int(rope["original_max_position_embeddings"]),
        )
    raise ValueError(f"rope_type={kind} is not supported; try default, linear or llama3.")


LLAMA3_ROPE = (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
)


def _dtype(file: dict[str, Any], text: dict[str, Any]) -> str:
    found = [part[key] for part in (text, file) for key in ("dtype", "torch_dtype") if key in part]
    name = next((name for name in found if name), "float32")
    if name not in DTYPES:
        raise ValueError(f"dtype={name} is not supported; try one of {', '.join(DTYPES)}.")
    return DTYPES[name]


def ids(eos: int | Sequence[int] | None) -> tuple[int, ...]:
    """Tokens that end a turn: one, several or none."""
    return () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)


def to_hf(cfg: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model; ValueError names what its family cannot express."""
    file = _structure(cfg) | _rope_keys(cfg)
    if cfg.family.startswith("gemma"):
        scalar = cfg.score_scale**-2
        file["query_pre_attn_scalar"] = round(scalar) if abs(scalar % 1) < 1e-6 else scalar
        file["attn_logit_softcapping"] = cfg.attention_cap or None
        file["final_logit_softcapping"] = cfg.final_cap or None
    if cfg.windowed:
        file["sliding_window"] = cfg.window
        file["use_sliding_window"] = True
    if cfg.windowed or cfg.family.startswith("gemma"):
        names = ("full_attention", "sliding_attention")
        file["layer_types"] = [names[kind] for kind in cfg.kinds]
    _check_expressed(cfg, from_hf(file))
    return file


def _structure(cfg: ModelConfig) -> dict[str, Any]:
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == cfg.activation)
    gemma = cfg.family.startswith("gemma")
    return {
        "architectures": [ARCHITECTURES[cfg.family]],
        "model_type": cfg.family,
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_kv_heads,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.hidden,
        "max_position_embeddings": cfg.context,
        "rms_norm_eps": cfg.norm_eps,
        "hidden_activation" if gemma else "hidden_act": activation,
        "tie_word_embeddings": cfg.tied,
        "eos_token_id": list(cfg.end_ids) or None,
        "torch_dtype": cfg.param_dtype,
    }


def _rope_keys(cfg: ModelConfig) -> dict[str, Any]:
    """In the old spelling, which every version of transformers reads."""
    keys: dict[str, Any] = {"rope_theta": cfg.rope_base}
    if cfg.local_rope_base is not None:
        keys["rope_local_base_freq"] = cfg.local_rope_base
    scaling = cfg.rope_scaling
    if scaling is not None:
        keys["rope_scaling"] = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            keys["rope_scaling"] |= {
                "low_freq_factor": scaling.low,
                "high_freq_factor": scaling.high,
                "original_max_position_embeddings": scaling.original,
            }
    return keys


def _check_expressed(cfg: ModelConfig, read_back: ModelConfig) -> None:
    computed = ("dtype", "attention_scale")
    ours, theirs = asdict(cfg), asdict(read_back)
    for name in (f.name for f in fields(cfg) if f.name not in computed):
        if ours[name] != theirs[name]:
            raise ValueError(
                f"{name}={ours[name]} is not what a {cfg.family} file means ({theirs[name]}); "
                "try another family."
            )
    if abs(cfg.score_scale - read_back.score_scale) > 1e-9:
        raise ValueError(
            f"attention_scale={cfg.attention_scale} is not what a {cfg.family} file means "
            f"({read_back.score_scale}); try another family."
        )

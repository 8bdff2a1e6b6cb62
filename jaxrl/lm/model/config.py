"""What fixes a transformer: every switch of the open families, and presets."""

from dataclasses import dataclass, replace
from typing import Literal

from jaxrl.config import check_divides, check_positive, check_range

Family = Literal["qwen2", "qwen3", "llama", "gemma2", "gemma3_text"]
FAMILIES: tuple[Family, ...] = ("qwen2", "qwen3", "llama", "gemma2", "gemma3_text")
DTYPES = ("float32", "bfloat16")
MOST_LAYERS = 10_000


def check_lora(rank: int, alpha: float) -> None:
    """ValueError for a rank or a scale of adapters that there cannot be."""
    check_range("lora_rank", rank, 0, 2**20, 16)
    check_positive("lora_alpha", alpha, 32)


@dataclass(frozen=True)
class RopeScaling:
    """How the rotation frequencies of the global layers are slowed for a longer context."""

    kind: Literal["linear", "llama3"]
    factor: float
    low: float = 1.0  # llama3: turns in the original context below which a frequency is slowed
    high: float = 4.0  # llama3: turns above which it is left alone
    original: int = 8192  # llama3: context of the first training

    def __post_init__(self):
        for field in ("factor", "low", "high", "original"):
            check_positive(field, getattr(self, field), 8)


@dataclass(frozen=True)
class ModelConfig:
    """Structure of one model; hashable, so that it can be part of a compiled program."""

    vocab_size: int  # V
    width: int  # D
    num_layers: int  # L
    num_heads: int  # H, query heads
    num_kv_heads: int  # key and value heads, each shared by H / num_kv_heads query heads
    head_dim: int  # K
    hidden: int  # width inside the MLP
    context: int = 4096  # longest sequence the positions were meant for
    family: Family = "qwen3"  # whose config.json and weight names a saved model takes
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    qk_norm: bool = True  # RMS norm of each query and key head, before RoPE
    norm_offset: bool = False  # RMS weights are offsets from 1, applied in float32
    post_norms: bool = False  # norms after attention and after the MLP too
    activation: Literal["silu", "gelu_tanh"] = "silu"
    scale_embedding: bool = False  # by sqrt(D) rounded to the compute dtype
    tied: bool = True  # the output embedding is the input embedding
    rope_base: float = 10_000.0
    rope_scaling: RopeScaling | None = None  # of the global layers
    local_rope_base: float | None = None  # of the windowed layers, if another
    window: int = 0  # tokens a windowed layer sees, itself included
    windowed: tuple[bool, ...] = ()  # which layers are windowed; () is none
    attention_cap: float = 0.0  # soft cap on attention scores; 0 is none
    final_cap: float = 0.0  # soft cap on logits; 0 is none
    attention_scale: float | None = None  # of query times key; None is head_dim**-0.5
    end_ids: tuple[int, ...] = ()  # tokens that end a turn, as the folder's config says
    lora_rank: int = 0  # of the adapters beside each matrix of a layer; 0: there are none
    lora_alpha: float = 32.0  # what adapters add is times lora_alpha / lora_rank
    param_dtype: str = "float32"  # of the parameters as trained and saved
    dtype: str = "float32"  # of the computation

    def __post_init__(self):
        for field in ("vocab_size", "width", "num_heads", "head_dim", "hidden", "context"):
            check_range(field, getattr(self, field), 1, 2**31 - 1, 64)
        check_range("num_layers", self.num_layers, 1, MOST_LAYERS, 24)
        for field in ("norm_eps", "rope_base", "local_rope_base", "attention_scale"):
            check_positive(field, getattr(self, field), getattr(type(self), field))
        for field in ("window", "attention_cap", "final_cap"):
            check_range(field, getattr(self, field), 0, 2**31 - 1, 0)
        for token in self.end_ids:
            check_range("end_ids", token, 0, 2**31 - 1, 0)
        check_divides("num_kv_heads", self.num_kv_heads, "num_heads", self.num_heads)
        check_lora(self.lora_rank, self.lora_alpha)
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even, for RoPE; try 32.")
        for field in ("param_dtype", "dtype"):
            if getattr(self, field) not in DTYPES:
                raise ValueError(f"{field}={getattr(self, field)} is not one of {DTYPES}.")
        if self.windowed and len(self.windowed) != self.num_layers:
            raise ValueError(
                f"windowed has {len(self.windowed)} entries, one for each of num_layers="
                f"{self.num_layers} is needed; try () for no windows."
            )
        if any(self.windowed) and self.window < 1:
            raise ValueError(f"window={self.window} with windowed layers must be above 0; try 512.")

    @property
    def kinds(self) -> tuple[int, ...]:
        """For each layer 0 for global attention, 1 for windowed."""
        return tuple(int(w) for w in self.windowed) or (0,) * self.num_layers

    @property
    def num_parameters(self) -> int:
        """Of the whole model, adapters included; known before anything is built."""
        width, heads = self.width, self.num_heads * self.head_dim
        kv_heads = self.num_kv_heads * self.head_dim
        matrices = [(width, heads), (width, kv_heads), (width, kv_heads), (heads, width)]
        matrices += [(width, self.hidden), (width, self.hidden), (self.hidden, width)]
        layer = sum(inputs * outputs for inputs, outputs in matrices)
        layer += sum(self.lora_rank * (inputs + outputs) for inputs, outputs in matrices)
        layer += width * (4 if self.post_norms else 2)
        layer += 2 * self.head_dim * self.qk_norm + (heads + 2 * kv_heads) * self.qkv_bias
        embeddings = self.vocab_size * width * (1 if self.tied else 2)
        return embeddings + self.num_layers * layer + width

    @property
    def num_bytes(self) -> int:
        """Of the parameters as they are computed with."""
        return self.num_parameters * (2 if self.dtype == "bfloat16" else 4)

    def check_stored(self, num_bytes: int, where: str) -> None:
        """ValueError where weights of so many bytes cannot be all of this structure's.

        Of a released file each number has 2 bytes at least.
        """
        if 2 * self.num_parameters > num_bytes:
            sizes = ("num_layers", "width", "hidden", "num_heads", "head_dim", "vocab_size")
            said = ", ".join(f"{name}={getattr(self, name)}" for name in sizes)
            raise ValueError(
                f"{self.num_parameters} parameters ({said}) are more than the {num_bytes} bytes of "
                f"{where} hold."
            )

    @property
    def score_scale(self) -> float:
        """What query times key is multiplied with."""
        return self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale


_TINY = ModelConfig(
    vocab_size=260,
    width=96,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    hidden=256,
)
PRESETS: dict[str, ModelConfig] = {
    "nano": replace(_TINY, width=64, num_layers=2, head_dim=16, hidden=192),  # 0.12 M parameters
    "tiny": _TINY,  # 0.36 M parameters
    "small": replace(_TINY, width=256, num_layers=4, head_dim=64, hidden=768),  # 3.2 M
    "base": replace(
        _TINY, width=512, num_layers=8, num_heads=8, num_kv_heads=4, head_dim=64, hidden=1536
    ),  # 25 M
}


_QWEN3 = ModelConfig(
    vocab_size=151_936,
    width=1024,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    hidden=3072,
    context=40_960,
    rope_base=1e6,
)
# Released structures, their weights left out: for what depends on size alone, such as memory.
RELEASED: dict[str, ModelConfig] = {
    "qwen2.5-0.5b": ModelConfig(
        vocab_size=151_936,
        width=896,
        num_layers=24,
        num_heads=14,
        num_kv_heads=2,
        head_dim=64,
        hidden=4864,
        context=32_768,
        family="qwen2",
        qkv_bias=True,
        qk_norm=False,
        rope_base=1e6,
    ),
    "qwen3-0.6b": _QWEN3,
    "qwen3-1.7b": replace(_QWEN3, width=2048, hidden=6144),
    "qwen3-8b": replace(_QWEN3, width=4096, num_layers=36, num_heads=32, hidden=12_288, tied=False),
}


def preset(name: str, vocab_size: int, dtype: str = "float32") -> ModelConfig:
    """A model with random weights, for a tokenizer's vocabulary; `dtype` of the computation.

    Released structures keep their own vocabulary.
    """
    if name in RELEASED:
        return replace(RELEASED[name], dtype=dtype)
    if name not in PRESETS:
        known = ", ".join([*PRESETS, *RELEASED])
        raise ValueError(
            f"model={name} is no preset and no folder; try one of {known}, ./FOLDER, or an id of "
            "Hugging Face such as Qwen/Qwen3-0.6B."
        )
    return replace(PRESETS[name], vocab_size=vocab_size, dtype=dtype)

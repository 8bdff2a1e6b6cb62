"""One transformer for every open checkpoint family."""

from jaxrl.lm.model.cache import Cache, init_cache
from jaxrl.lm.model.config import PRESETS, ModelConfig, preset
from jaxrl.lm.model.log_prob import log_prob_and_entropy, token_log_prob
from jaxrl.lm.model.transformer import Transformer, forward, logits, read, unstack

__all__ = [
    "PRESETS",
    "Cache",
    "ModelConfig",
    "Transformer",
    "forward",
    "init_cache",
    "log_prob_and_entropy",
    "logits",
    "preset",
    "read",
    "token_log_prob",
    "unstack",
]

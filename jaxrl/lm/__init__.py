"""One transformer for every open checkpoint family."""

from jaxrl.lm.cache import Cache, init_cache
from jaxrl.lm.config import PRESETS, ModelConfig, preset
from jaxrl.lm.log_prob import log_prob_and_entropy, token_log_prob
from jaxrl.lm.model import Transformer, forward, logits, unstack

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
    "token_log_prob",
    "unstack",
]

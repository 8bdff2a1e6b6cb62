"""How a language model improves: what an algorithm for language agents is made of."""

from jaxrl.lm.learn.agent import Agent, State, init, layout
from jaxrl.lm.learn.batch import (
    TokenBatch,
    learned_reward,
    learned_tokens,
    predict,
    ratio_metrics,
    token_means,
    without_unread,
)
from jaxrl.lm.learn.imitation import imitate
from jaxrl.lm.learn.iteration import update
from jaxrl.lm.learn.options import AgentConfig, GroupConfig, MinibatchConfig
from jaxrl.lm.learn.report import outcome_metrics
from jaxrl.lm.model.params import Critic, Params
from jaxrl.lm.play.episodes import Episodes

__all__ = [
    "Agent",
    "AgentConfig",
    "Critic",
    "Episodes",
    "GroupConfig",
    "MinibatchConfig",
    "Params",
    "State",
    "TokenBatch",
    "imitate",
    "init",
    "layout",
    "learned_reward",
    "learned_tokens",
    "outcome_metrics",
    "predict",
    "ratio_metrics",
    "token_means",
    "update",
    "without_unread",
]

"""How a language model improves: what an algorithm for language agents is made of."""

from jaxrl.lm.learn.agent import Agent, State, init, layout
from jaxrl.lm.learn.batch import (
    Sequences,
    TokenBatch,
    idle,
    learned_from,
    learned_reward,
    predict,
    predict_responses,
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
    "Sequences",
    "State",
    "TokenBatch",
    "idle",
    "imitate",
    "init",
    "layout",
    "learned_from",
    "learned_reward",
    "outcome_metrics",
    "predict",
    "predict_responses",
    "ratio_metrics",
    "token_means",
    "update",
    "without_unread",
]

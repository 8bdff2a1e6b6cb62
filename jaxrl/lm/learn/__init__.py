"""How a language model improves: what an algorithm for language agents is made of."""

from jaxrl.lm.learn.agent import Agent, State, init, layout
from jaxrl.lm.learn.batch import (
    Prediction,
    Sequences,
    TokenBatch,
    idle,
    learned_from,
    learned_reward,
    predict,
    predict_responses,
    ratio_metrics,
    response_log_prob,
    response_mean,
    score_of,
    token_means,
    values,
    without_unread,
)
from jaxrl.lm.learn.imitation import imitate
from jaxrl.lm.learn.iteration import update, update_from_groups
from jaxrl.lm.learn.options import AgentConfig, GroupConfig, MinibatchConfig
from jaxrl.lm.learn.pairs import (
    MARGIN,
    PairBatch,
    PairConfig,
    in_order,
    pairs_of,
    preferred,
    update_from_pairs,
)
from jaxrl.lm.learn.report import outcome_metrics
from jaxrl.lm.model.params import Critic, Params
from jaxrl.lm.play.episodes import Episodes

__all__ = [
    "MARGIN",
    "Agent",
    "AgentConfig",
    "Critic",
    "Episodes",
    "GroupConfig",
    "MinibatchConfig",
    "PairBatch",
    "PairConfig",
    "Params",
    "Prediction",
    "Sequences",
    "State",
    "TokenBatch",
    "idle",
    "imitate",
    "in_order",
    "init",
    "layout",
    "learned_from",
    "learned_reward",
    "outcome_metrics",
    "pairs_of",
    "predict",
    "predict_responses",
    "preferred",
    "ratio_metrics",
    "response_log_prob",
    "response_mean",
    "score_of",
    "token_means",
    "update",
    "update_from_groups",
    "update_from_pairs",
    "values",
    "without_unread",
]

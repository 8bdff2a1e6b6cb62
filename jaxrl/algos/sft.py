"""Supervised fine-tuning of a language agent on scripted play, generated inside the program."""

from typing import Literal

import jax

from jaxrl import mesh
from jaxrl.config import pytree_dataclass
from jaxrl.lm.learn import agent
from jaxrl.lm.learn.agent import Agent, State
from jaxrl.lm.learn.imitation import imitate
from jaxrl.lm.learn.options import AgentConfig
from jaxrl.lm.learn.report import outcome_metrics
from jaxrl.metrics import Metrics


@pytree_dataclass
class Config(AgentConfig):
    total_episodes: int = 25_600  # scripted episodes learned from
    sft_player: Literal["random", "expert"] = "expert"  # who plays them
    sft_on: Literal["actions", "all"] = "actions"  # learn the player's tokens, or the answers too
    learning_rate: float = 3e-3  # at the start

    def __post_init__(self):
        super().__post_init__()
        if self.sft_steps:
            raise ValueError(f"sft_steps={self.sft_steps} belongs to other trainers; leave it out.")

    @property
    def episodes(self) -> int:
        return self.sft_episodes


init, layout = agent.init, agent.layout


def update(
    state: State, key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None = None
) -> tuple[State, Metrics]:
    """One optimizer step on fresh scripted episodes, or on given examples."""
    state, episodes, metrics = imitate(state, key, cfg=cfg, agent=agent, axis=axis)
    if agent.examples is None:  # nobody has played those
        metrics |= mesh.psum(outcome_metrics(episodes), axis)
    return state, metrics

"""Supervised fine-tuning of a language agent on scripted play, generated inside the program."""

from typing import Literal

import jax

from jaxrl import config, mesh
from jaxrl.lm import learn
from jaxrl.metrics import Metrics


@config.pytree_dataclass
class Config(learn.AgentConfig):
    total_episodes: config.Count = 25_600  # scripted episodes learned from
    sft_player: Literal["random", "expert"] = "expert"  # who plays them
    sft_on: Literal["actions", "all"] = "actions"  # learn the player's tokens, or the answers too
    learning_rate: float = 3e-3  # at the start

    def __post_init__(self):
        super().__post_init__()
        what = "sft_episodes"
        config.check_iterations("total_episodes", self.total_episodes, what, self.episodes, "256")
        if self.sft_steps:
            raise ValueError(f"sft_steps={self.sft_steps} belongs to other trainers; leave it out.")


init, layout = learn.init, learn.layout


def update(
    state: learn.State, key: jax.Array, *, cfg: Config, agent: learn.Agent, axis: str | None = None
) -> tuple[learn.State, Metrics]:
    """One optimizer step on fresh scripted episodes, or on given examples."""
    state, episodes, metrics = learn.imitate(state, key, cfg=cfg, agent=agent, axis=axis)
    if agent.examples is None:  # nobody has played those
        metrics |= mesh.psum(learn.outcome_metrics(episodes), axis)
    return state, metrics

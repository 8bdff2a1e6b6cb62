"""Supervised fine-tuning of a language agent on scripted play, generated inside the program."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrl import mesh
from jaxrl.lm.agent import Agent, SharedConfig, State, optimizer
from jaxrl.lm.warm_up import imitate


@dataclass(frozen=True)
class Config(SharedConfig):
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

    @property
    def num_prompts(self) -> int:
        """Different episode starts in an iteration."""
        return self.sft_episodes


def specs(cfg: Config, agent: Agent, devices: int) -> State:
    """How a State is laid out on a mesh whose seeds have this many devices each."""
    return agent.specs(State, partial(init, cfg=cfg, agent=agent), devices)


def init(key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None = None) -> State:
    """A fresh State with random weights; `jaxrl.lm.agent.pour` gives it others."""
    return agent.start(key, optimizer(cfg), keep_reference=False, axis=axis)


def update(
    state: State, key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None = None
) -> tuple[State, dict[str, jax.Array]]:
    """One optimizer step on fresh scripted episodes."""
    state, episodes, metrics = imitate(state, key, cfg=cfg, agent=agent, axis=axis)
    count = jnp.float32(cfg.episodes)
    told = {
        "episode_return": jnp.mean(episodes.episode_return),
        "success": jnp.mean(episodes.success),
        "turns": jnp.mean(episodes.num_turns.astype(jnp.float32)),
    }
    return state, metrics | mesh.pmean(told, axis) | {"episodes": count}

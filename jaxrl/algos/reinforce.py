"""REINFORCE of a language agent, many turns an episode (Williams 1992).

Differences from the paper: a turn's return is compared with all turns of the batch (return batch
normalisation, arXiv:2510.01051), or an episode's with the others from the same start (leave one
out, arXiv:2402.14740). One optimizer step an iteration, so the policy is the one that played.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrl import advantages, config, losses, mesh, objectives
from jaxrl.lm.agent import Agent, SharedConfig, State, optimizer, weights_at
from jaxrl.lm.episodes import Episodes
from jaxrl.lm.learn import Rows, descend, gradient, predict
from jaxrl.lm.model import Transformer
from jaxrl.lm.play import play
from jaxrl.lm.report import played_metrics, shown, to_token_mask
from jaxrl.lm.warm_up import after_warm_up, scripted, with_scripted


@dataclass(frozen=True)
class Config(SharedConfig):
    num_prompts: int = 256  # different episode starts in an iteration, P
    group_size: int = 1  # episodes from each of them, G; rloo needs 2 or more
    advantage: Literal["rebn", "returns", "rloo"] = "rebn"  # what a turn's return is compared with
    gamma: float = 0.9  # discount per turn, of rebn and returns
    sample_std: bool = False  # rebn: n - 1 in the standard deviation
    overlong: Literal["keep", "mask", "penalise"] = "keep"  # responses the length limit cut

    def __post_init__(self):
        super().__post_init__()
        config.check_range("gamma", self.gamma, 0.0, 1.0, 0.9)
        config.check_positive("num_prompts", self.num_prompts, 256)
        if self.group_size < (2 if self.advantage == "rloo" else 1):
            raise ValueError(
                f"group_size={self.group_size} is too small for advantage={self.advantage}; try 8."
            )
        config.check_divides("micro_batch", self.micro_batch, "episodes", self.episodes)

    @property
    def episodes(self) -> int:
        return self.num_prompts * self.group_size

    @property
    def num_groups(self) -> int:
        return math.gcd(super().num_groups, self.num_prompts)


def specs(cfg: Config, agent: Agent, devices: int) -> State:
    """How a State is laid out on a mesh whose seeds have this many devices each."""
    return agent.specs(State, partial(init, cfg=cfg, agent=agent), devices)


def init(key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None = None) -> State:
    """A fresh State with random weights; `jaxrl.lm.agent.pour` gives it others."""
    return agent.start(key, optimizer(cfg), keep_reference=False, axis=axis)


def update(
    state: State, key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None = None
) -> tuple[State, dict[str, jax.Array]]:
    """One iteration: `sft_steps` of the warm start first, then of `improve`."""
    improving = partial(improve, cfg=cfg, agent=agent, axis=axis)
    return after_warm_up(improving, state, key, cfg=cfg, agent=agent, axis=axis)


def improve(
    state: State, key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None
) -> tuple[State, dict[str, jax.Array]]:
    """Play, see which turns paid more than others, climb."""
    play_key, scripted_key = jax.random.split(key)
    layout = agent.layout(axis)
    whole = layout.gather(state.model)
    prompts = cfg.num_prompts // mesh.axis_size(axis)
    episodes, work = play(
        whole,
        agent.env,
        agent.chat,
        agent.limits,
        play_key,
        mesh.global_index(prompts, axis),
        group_size=cfg.group_size,
        num_lanes=cfg.num_lanes // mesh.axis_size(axis),
        temperature=cfg.temperature,
        refill_at=cfg.refill_at,
    )
    rows = prepare(episodes, cfg, axis)
    weights = weights_at(cfg, state.iteration)
    objective = partial(loss, entropy_coef=weights.entropy, cfg=cfg)
    grads, metrics = gradient(objective, whole, rows, cfg.micro_batch, layout.sum)
    if cfg.sft_coef:
        examples = scripted(scripted_key, cfg=cfg, agent=agent, axis=axis)
        grads = with_scripted(grads, whole, examples, weights.scripted, cfg, layout)
    norm = layout.norm(grads)
    model, opt_state = descend(
        optimizer(cfg), grads, norm, cfg.max_grad_norm, state.opt_state, state.model
    )
    metrics |= {"grad_norm": norm, "param_norm": layout.norm(model)}
    state = state.replace(
        model=model,
        opt_state=opt_state,
        shown=shown(episodes, agent.num_shown, axis),
        iteration=state.iteration + 1,
    )
    return state, metrics | played_metrics(episodes, work, rows.mask, axis)


def prepare(episodes: Episodes, cfg: Config, axis: str | None) -> Rows:
    """What is learned from: every token with the advantage of its turn."""
    mask, turn = to_token_mask(episodes, keep_cut=cfg.overlong != "mask")
    reward = episodes.reward
    if cfg.overlong == "penalise":
        reward = reward - episodes.cut
    if cfg.advantage == "rloo":
        relative = advantages.rloo_advantage(jnp.sum(reward, 1), cfg.group_size)
        of_turn = jnp.broadcast_to(relative[:, None], reward.shape)
    elif cfg.advantage == "returns":
        of_turn = advantages.turn_return(reward, episodes.played, cfg.gamma)
    else:
        of_turn = advantages.rebn_advantage(
            reward, episodes.played, cfg.gamma, axis, cfg.sample_std
        )
    advantage = advantages.to_tokens(of_turn, turn, mask)
    sampled = episodes.log_prob[:, 1:]
    return Rows(episodes.token, episodes.length, mask, sampled, sampled, advantage, sampled)


def loss(
    model: Transformer, batch: Rows, entropy_coef: jax.Array, cfg: Config
) -> tuple[jax.Array, tuple[jax.Array, dict[str, objectives.Sums]]]:
    """The loss as a sum, (its denominator, the metrics as sums)."""
    log_prob, entropy = predict(
        model, batch.token, batch.length, cfg.temperature, cfg.chunk, cfg.remat
    )
    token_loss = losses.policy_gradient(log_prob, batch.advantage) - entropy_coef * entropy
    numerator, denominator = objectives.token_mean(token_loss, batch.mask)
    over_tokens = {
        "entropy": entropy,
        "log_prob_gap": jnp.abs(log_prob - batch.sampled_log_prob),
    }
    metrics = {name: objectives.token_mean(x, batch.mask) for name, x in over_tokens.items()}
    return numerator, (denominator, metrics | {"loss": (numerator, denominator)})

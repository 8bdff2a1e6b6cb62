"""REINFORCE of a language agent, many turns an episode (Williams 1992).

Differences from the paper: a turn's return is compared with all turns of the batch (return batch
normalisation, arXiv:2510.01051), or an episode's with the others from the same start (leave one
out, arXiv:2402.14740). One optimizer step an iteration, so the policy is the one that played.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrl import advantages, config, losses, objectives
from jaxrl.lm import learn
from jaxrl.metrics import Metrics, Sums


@config.pytree_dataclass
class Config(learn.GroupConfig):
    num_prompts: int = 256  # different episode starts in an iteration, P
    group_size: int = 1  # episodes from each of them, G; rloo needs 2 or more
    advantage: Literal["rebn", "returns", "rloo"] = "rebn"  # what a turn's return is compared with
    gamma: float = 0.9  # discount per turn, of rebn and returns
    sample_std: bool = False  # rebn: n - 1 in the standard deviation

    def __post_init__(self):
        super().__post_init__()
        config.check_range("gamma", self.gamma, 0.0, 1.0, 0.9)
        if self.advantage == "rloo" and self.group_size < 2:
            raise ValueError(f"group_size={self.group_size} is too small for rloo; try 8.")


def prepare(
    params: learn.Params, reference: None, episodes: learn.Episodes, cfg: Config, axis: str | None
) -> tuple[learn.TokenBatch, Metrics]:
    """What is learned from: every token with the advantage of its turn."""
    del params, reference
    rows, turn = learn.learned_from(episodes, cfg)
    of_turn = compared(learn.learned_reward(episodes, cfg), episodes.judged, cfg, axis)
    advantage = advantages.to_tokens(of_turn, turn, rows.mask)
    return rows.judged(episodes.log_prob[:, 1:], advantage), {}


def compared(reward: jax.Array, played: jax.Array, cfg: Config, axis: str | None) -> jax.Array:
    """float32 [N, U]: what each turn was worth, compared as `advantage` says."""
    if cfg.advantage == "returns":
        return advantages.turn_return(reward, played, cfg.gamma)
    if cfg.advantage == "rebn":
        return advantages.rebn_advantage(reward, played, cfg.gamma, axis, cfg.sample_std)
    known = jnp.any(played, 1)  # others are masked: a turn is played in every episode
    relative = advantages.rloo_advantage(jnp.sum(reward, 1), cfg.group_size, known)
    return jnp.broadcast_to(relative[:, None], reward.shape)


def loss(params: learn.Params, batch: learn.TokenBatch, cfg: Config) -> tuple[Sums, Metrics]:
    """Minus log-prob times advantage, with the entropy, over the tokens of the batch."""
    log_prob, entropy, _ = learn.predict_responses(params.policy, batch, cfg)
    token_loss = losses.policy_gradient(log_prob, batch.advantage) - cfg.entropy_coef * entropy
    gap = jnp.abs(log_prob - batch.sampled_log_prob)
    metrics = learn.token_means(batch.mask, entropy=entropy, log_prob_gap=gap)
    return objectives.token_mean(token_loss, batch.mask), metrics


init, layout = learn.init, learn.layout
update = partial(learn.update, prepare, loss, idle=learn.idle)

"""Group relative policy optimisation of a language agent (arXiv:2402.03300), many turns an episode.

Differences from the paper: the mean is over the tokens of the global batch (arXiv:2503.14476), the
clip is wider above than below, there is no KL term unless asked for, and an episode may have many
turns, of which the policy's own tokens alone count. A warm start by supervised steps on scripted
play belongs to the same program. With `best` those of each group that did best are
imitated instead, the more the more they are above it (of arXiv:2304.06767 and arXiv:2504.13818):
where almost everything fails, that learns sooner. With `supposed` a group that failed as a whole is
pushed away from what it said (arXiv:2509.18851), which keeps a policy from settling on one wrong
answer: else such groups teach nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrl import advantages, config, losses, objectives, sgd
from jaxrl.lm import learn
from jaxrl.metrics import Metrics, Sums


@config.pytree_dataclass
class Config(learn.MinibatchConfig):
    group_size: int = 8  # episodes from each of the starts, G
    best: int = 0  # imitate so many of each group, those that did best; 0: learn from all of them
    divide_by_std: bool = True  # advantages over the group's standard deviation
    supposed: float | None = None  # return of one more episode in each group's mean, None: none
    surrogate: Literal["clip", "gspo", "cispo"] = "clip"  # cispo's cap is 1 + clip_high
    mean: Literal["token", "sequence", "constant"] = "token"  # how tokens are averaged
    kl: Literal["none", "k1", "k2", "k3"] = "none"  # to the model at the start; k1 in the reward
    kl_coef: float = 0.001  # its weight

    def __post_init__(self):
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size} must be at least 2; try 8.")
        if not 0 <= self.best < self.group_size:
            raise ValueError(f"best={self.best} must be 0 to group_size - 1; try best=1.")
        if self.best and self.kl == "k1":
            raise ValueError("kl='k1' changes rewards, by which the best are chosen; try kl='k3'.")
        if self.best and self.surrogate != "clip":
            raise ValueError(
                f"surrogate={self.surrogate} is not used where the best are imitated; leave it out."
            )
        if self.best and self.supposed is not None:
            raise ValueError(
                f"supposed={self.supposed} is not used where the best are imitated; leave it out."
            )
        config.check_range("supposed", self.supposed, -1e6, 1e6, 1.0)
        config.check_positive("kl_coef", self.kl_coef, 0.001)
        super().__post_init__()

    @property
    def learned_of_group(self) -> int:
        return self.best or self.group_size

    @property
    def keeps_reference(self) -> bool:
        return self.kl != "none"


def prepare(
    params: learn.Params,
    reference: learn.Params | None,
    episodes: learn.Episodes,
    cfg: Config,
    axis: str | None,
) -> tuple[learn.TokenBatch, Metrics]:
    """What is learned from. One step an iteration is on-policy: it needs no earlier log-prob."""
    del axis  # a group lies on one device
    reward = learn.learned_reward(episodes, cfg)
    total, relative = jnp.sum(reward, 1), None
    known = None if episodes.masked is None else ~episodes.masked
    if cfg.best:
        index, relative = advantages.best_of_groups(
            total, cfg.group_size, cfg.best, cfg.divide_by_std, known
        )
        episodes = jax.tree.map(lambda x: x[index], episodes)
    rows, turn = learn.learned_from(episodes, cfg)
    mask = rows.mask

    def predicted(params: learn.Params) -> jax.Array:
        def piece(policy, rows):
            return learn.predict_responses(policy, rows, cfg).log_prob

        return sgd.map_pieces(piece, params.policy, rows, cfg.micro_batch)

    sampled = episodes.log_prob[:, 1:]
    log_prob = None if cfg.num_steps == 1 else predicted(params)
    ref_log_prob = None if reference is None else predicted(reference)
    if cfg.kl == "k1":
        assert ref_log_prob is not None
        before = sampled if log_prob is None else log_prob
        reward = advantages.kl_in_reward(reward, before, ref_log_prob, turn, mask, cfg.kl_coef)
        total = jnp.sum(reward, 1)
    if relative is None:
        relative = advantages.group_advantage(
            total, cfg.group_size, cfg.divide_by_std, supposed=cfg.supposed, known=known
        )
    else:
        mask = mask & (relative > 0)[:, None]
    advantage = jnp.where(mask, relative[:, None], 0.0)
    uniform = Sums(*advantages.uniform_groups(total, cfg.group_size, known))
    batch = rows.replace(mask=mask).judged(sampled, advantage)
    batch = batch.replace(log_prob=log_prob, ref_log_prob=ref_log_prob)
    return batch, {"uniform_groups": uniform}


def loss(params: learn.Params, batch: learn.TokenBatch, cfg: Config) -> tuple[Sums, Metrics]:
    """The surrogate of each token, with KL and entropy, averaged as `mean` says."""
    log_prob, entropy, _ = learn.predict_responses(params.policy, batch, cfg)
    mask, advantage = batch.mask, batch.advantage
    old_log_prob = jax.lax.stop_gradient(log_prob) if batch.log_prob is None else batch.log_prob
    ratio_of = objectives.token_log_ratio
    if cfg.surrogate == "gspo":
        ratio_of = objectives.sequence_log_ratio
    log_ratio = ratio_of(log_prob, old_log_prob, mask)
    if cfg.best:
        token_loss = losses.policy_gradient(log_prob, advantage)
    elif cfg.surrogate == "cispo":
        token_loss = losses.cispo(log_prob, log_ratio, advantage, 1.0 + cfg.clip_high)
    else:
        token_loss = losses.clipped_ratio(log_ratio, advantage, cfg.clip_low, cfg.clip_high)
    metrics = learn.ratio_metrics(batch, log_prob, old_log_prob, log_ratio, cfg)
    if batch.ref_log_prob is not None:
        distance = losses.kl_k3(log_prob, batch.ref_log_prob)
        metrics |= learn.token_means(mask, kl_to_reference=distance)
        if cfg.kl == "k2":
            distance = losses.kl_k2(log_prob, batch.ref_log_prob)
        if cfg.kl != "k1":  # which is in the reward
            token_loss = token_loss + cfg.kl_coef * distance
    token_loss = token_loss - cfg.entropy_coef * entropy
    return mean_of(cfg, mask)(token_loss, mask), metrics | learn.token_means(mask, entropy=entropy)


def mean_of(cfg: Config, mask: jax.Array) -> Callable[..., Sums]:
    """How the loss of tokens [N, C-1] is averaged."""
    means = {
        "token": objectives.token_mean,
        "sequence": objectives.sequence_mean,
        "constant": partial(objectives.constant_mean, length=mask.shape[1]),
    }
    return means[cfg.mean]


def idle(batch: learn.TokenBatch, cfg: Config) -> tuple[jax.Array, Sums]:
    """Whether rows have no gradient, and their loss then."""
    return learn.idle(batch, cfg, mean_of(cfg, batch.mask))


init, layout = learn.init, learn.layout
update = partial(learn.update, prepare, loss, idle=idle)

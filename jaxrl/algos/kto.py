"""Kahneman-Tversky optimisation of a language agent (arXiv:2402.01306): responses good or bad.

Of given responses with a label, or of the agent's own play, which is good from a return on. The
reference is the model at the start, after a warm start if there is one. The baseline is that of the
whole batch, from each prompt with its neighbour's response.
"""

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxrl import config, mesh, objectives, preferences, sgd
from jaxrl.lm import learn
from jaxrl.metrics import Metrics, Sums, mean


@config.pytree_dataclass
class Config(learn.GroupConfig):
    total_episodes: config.Count = 100_000  # responses learned from
    group_size: ClassVar[int] = 1
    beta: float = 0.1  # how near to the reference
    good_weight: float = 1.0  # of good responses
    bad_weight: float = 1.0  # of bad ones; equally many of both, weighted, learn best
    good_return: float = 0.5  # the least return of an episode that is good
    learning_rate: float = 1e-4  # at the start

    keeps_reference: ClassVar[bool] = True

    def __post_init__(self):
        config.check_positive("beta", self.beta, 0.1)
        for name in ("good_weight", "bad_weight"):
            config.check_range(name, getattr(self, name), 0.0, 1e6, 1.0)
        config.check_range("good_return", self.good_return, -1e6, 1e6, 0.5)
        if self.micro_batch % 2:
            raise ValueError(
                f"micro_batch={self.micro_batch} is odd, and neighbours lie side by side; try "
                f"{self.micro_batch + 1}."
            )
        super().__post_init__()


class JudgedBatch(learn.Sequences, kw_only=True):
    """P sequences that are good or bad."""

    good: jax.Array  # bool [P]
    known: jax.Array  # bool [P]: the host has judged it, if that was to
    ref_log_prob: jax.Array  # float32 [P]: of the whole response
    baseline: jax.Array  # float32 [P], the same for all


def prepare(params: Any, reference: Any, episodes: learn.Episodes, cfg: Config, axis: Any) -> tuple:
    """Which responses are good, how likely they were to the reference, and the baseline."""
    rows, _ = learn.learned_from(episodes, cfg)
    good = jnp.sum(learn.learned_reward(episodes, cfg), 1) >= cfg.good_return
    known = jnp.ones_like(good) if episodes.masked is None else ~episodes.masked

    def log_prob(params: learn.Params, rows: learn.Sequences) -> jax.Array:
        piece = partial(learn.response_log_prob, cfg=cfg)
        return sgd.map_pieces(piece, params.policy, rows, cfg.micro_batch)

    others = with_neighbours(rows)
    ratio = jax.lax.stop_gradient(log_prob(params, others) - log_prob(reference, others))
    total, count = mesh.psum(mean(ratio, jnp.any(others.mask, 1)), axis)
    baseline = preferences.kto_baseline(total[None] / jnp.maximum(count, 1.0))
    batch = JudgedBatch(
        **vars(rows),
        good=good,
        known=known & jnp.any(rows.mask, 1),
        ref_log_prob=log_prob(reference, rows),
        baseline=jnp.broadcast_to(baseline, good.shape),
    )
    return batch, {"good_share": mean(good, known)}


def with_neighbours(rows: learn.Sequences) -> learn.Sequences:
    """Each prompt with the response of the row beside it: of rows 2i and 2i + 1 the other's."""
    num, context = rows.token.shape
    other = jnp.arange(num, dtype=jnp.int32) ^ 1
    place = jnp.arange(context, dtype=jnp.int32) - rows.start[:, None]
    there = jnp.where(place < 0, context, place + rows.start[other][:, None])  # beyond: nothing

    def response(x: jax.Array, nothing: Any) -> jax.Array:
        return jnp.take_along_axis(x[other], there, 1, mode="fill", fill_value=nothing)

    token = jnp.where(place < 0, rows.token, response(rows.token, 0))
    drew = response(jnp.pad(rows.mask, ((0, 0), (1, 0))), False)
    return learn.Sequences(token=token, mask=drew[:, 1:], start=rows.start, first=rows.first)


def loss(params: learn.Params, batch: JudgedBatch, cfg: Config) -> tuple[Sums, Metrics]:
    """The mean over responses, less the entropy of all tokens."""
    predicted = learn.predict_responses(params.policy, batch, cfg)
    log_prob = objectives.sequence_log_prob(predicted.log_prob, batch.mask)
    ratio = log_prob - batch.ref_log_prob
    each = preferences.kto(
        ratio, batch.good, batch.baseline[0], cfg.beta, cfg.good_weight, cfg.bad_weight
    )
    entropy = learn.response_mean(predicted.entropy, batch.mask)
    good, bad = batch.known & batch.good, batch.known & ~batch.good
    known = {
        "good_reward": mean(cfg.beta * ratio, good),
        "bad_reward": mean(cfg.beta * ratio, bad),
        "good_log_prob": mean(log_prob, good),
        "bad_log_prob": mean(log_prob, bad),
        "baseline": mean(batch.baseline),
    }
    known |= learn.token_means(batch.mask, entropy=predicted.entropy)
    return mean(each - cfg.entropy_coef * entropy, batch.known), known


init, layout = learn.init, learn.layout
update = partial(learn.update_from_groups, prepare, loss)

"""Pairs of responses to one prompt, of which one is preferred: what DPO and reward models read."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxrl import config, mesh
from jaxrl.env import per_env_keys
from jaxrl.lm.learn.agent import State
from jaxrl.lm.learn.batch import Sequences, learned_from, learned_reward
from jaxrl.lm.learn.iteration import update_from_groups
from jaxrl.lm.learn.options import GroupConfig
from jaxrl.lm.play.episodes import Episodes
from jaxrl.metrics import Metrics, Sums, mean

MARGIN = "margin of the pair"  # metric of given pairs: by how much the chosen one should be ahead


@config.pytree_dataclass
class PairConfig(GroupConfig):
    """Options of the algorithms that learn from pairs, given or played by the agent itself."""

    total_episodes: config.Count = 100_000  # responses learned from, two of each pair
    num_prompts: int = 64  # pairs in an iteration, P
    group_size: ClassVar[int] = 2
    learning_rate: float = 1e-4  # at the start
    oracle: float | None = None  # log-odds of preferring a return 1 higher; by default always

    def __post_init__(self):
        config.check_positive("oracle", self.oracle, 1.0)
        if self.micro_batch % 2:
            raise ValueError(
                f"micro_batch={self.micro_batch} is odd, and pairs lie side by side; try "
                f"{self.micro_batch + 1}."
            )
        super().__post_init__()


class PairBatch(Sequences, kw_only=True):
    """2P sequences, those of a pair side by side and in either order."""

    sign: jax.Array  # float32 [2P]: 1 for the chosen one, -1 for the rejected one; 0, 0: no pair
    margin: jax.Array  # float32 [2P]: of the pair, by how much the chosen one should be ahead
    length: jax.Array  # int32 [2P]
    ref_log_prob: jax.Array | None = None  # float32 [2P]: of the whole response


# (reference, batch, cfg) -> the batch with what an algorithm reads of it before it learns
Finish = Callable[[Any, PairBatch, Any], PairBatch]


def update_from_pairs(
    loss: Callable[..., tuple[Sums, Metrics]],
    state: State,
    key: jax.Array,
    *,
    cfg: PairConfig,
    finish: Finish | None = None,
    **how: Any,
) -> tuple[State, Metrics]:
    """`update_from_groups`: one optimizer step on P pairs; an oracle has randomness of its own."""
    oracle_key = None
    if cfg.oracle is not None:
        key, oracle_key = jax.random.split(key)
    prepare = partial(pairs_of, oracle_key, finish=finish)
    return update_from_groups(prepare, loss, state, key, cfg=cfg, **how)


def pairs_of(
    oracle_key: jax.Array | None,
    params: Any,
    reference: Any,
    episodes: Episodes,
    cfg: PairConfig,
    axis: str | None,
    finish: Finish | None = None,
) -> tuple[PairBatch, Metrics]:
    """Pairs side by side by their returns; no pair where the host failed to judge one of both."""
    del params
    rows, _ = learned_from(episodes, cfg)
    score = jnp.sum(learned_reward(episodes, cfg), 1)
    sign = preferred(score, oracle_key, cfg.oracle, axis)
    if episodes.masked is not None:
        unknown = jnp.repeat(jnp.any(episodes.masked.reshape(-1, 2), 1), 2)
        sign = jnp.where(unknown, 0.0, sign)
    margin = episodes.metrics.get(MARGIN, jnp.zeros_like(sign))
    batch = PairBatch(**vars(rows), sign=sign, margin=margin, length=episodes.length)
    batch = batch if finish is None else finish(reference, batch, cfg)
    return batch, {"tied_pairs": mean(sign[::2] == 0)}


def preferred(
    score: jax.Array, key: jax.Array | None, oracle: float | None, axis: str | None
) -> jax.Array:
    """The sign [2P] of each response by its score: the higher one is chosen; 0 for equal ones.

    With a key by a noisy oracle: the first is preferred with log-odds of `oracle` times the
    difference of the scores (Bradley & Terry 1952). A function of (key, global pair).
    """
    ahead = score[::2] - score[1::2]
    sign = jnp.sign(ahead)
    if key is not None and oracle is not None:
        keys = per_env_keys(key, mesh.global_index(len(ahead), axis))
        told = jax.vmap(lambda k, p: jax.random.bernoulli(k, p))(
            keys, jax.nn.sigmoid(oracle * ahead)
        )
        sign = jnp.where(ahead == 0, 0.0, jnp.where(told, 1.0, -1.0))
    return jnp.stack([sign, -sign], 1).reshape(-1).astype(jnp.float32)


def in_order(x: jax.Array, sign: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(of the chosen, of the rejected) [P] of what there is of each response [2P]; 0 for none."""
    pair, which = x.reshape(-1, 2), sign.reshape(-1, 2)
    return (
        jnp.sum(jnp.where(which > 0, pair, 0.0), 1),
        jnp.sum(jnp.where(which < 0, pair, 0.0), 1),
    )

"""What an iteration reports of its episodes: metrics, and a few of them to be shown."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.language import OF
from jaxrl.lm.play.episodes import Episodes
from jaxrl.lm.play.rounds import Work
from jaxrl.metrics import HIDDEN, Metrics, Sums, hidden, mean, value

FAILED = ("wrong", "no_answer", "wrong_form", "cut")  # why an episode has no success
VARIED = HIDDEN + "return"  # metric: episodes whose return is not that of the device's first


def reasons(metrics: Mapping[str, Any], cut: Any) -> dict[str, Any]:
    """bool [N] for each of FAILED: why an episode failed; {} where nothing tells of success.

    `cut`: its last response met the length limit. The first that holds of success, cut, no_answer
    and wrong_form counts, and what is left is wrong; metrics that an environment lacks do not hold.
    """
    if "success" not in metrics:
        return {}
    left = metrics["success"] <= 0
    found = {}
    for name in ("cut", "no_answer", "wrong_form"):
        holds = cut if name == "cut" else metrics[name] > 0 if name in metrics else left & False
        found[name] = left & holds
        left = left & ~holds
    return {name: (found | {"wrong": left})[name] for name in FAILED}


def kinds(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """bool [N] for each kind of task that the environment tells apart: the episode is of it."""
    return {name.removeprefix(OF): x > 0 for name, x in metrics.items() if name.startswith(OF)}


def last_cut(episodes: Episodes) -> jax.Array:
    """bool [N]: the episode's last response met the length limit."""
    last = jnp.maximum(episodes.num_turns - 1, 0)
    return jnp.take_along_axis(episodes.cut, last[:, None], 1)[:, 0]


def failed_shares(episodes: Episodes) -> Metrics:
    """Of the episodes that failed, those that did for each of the reasons."""
    why = reasons(episodes.metrics, last_cut(episodes))
    failed = sum(jnp.sum(x, dtype=jnp.float32) for x in why.values())
    return {
        f"failed_{name}": Sums(jnp.sum(x, dtype=jnp.float32), jnp.asarray(failed))
        for name, x in why.items()
    }


def outcome_metrics(episodes: Episodes) -> Metrics:
    """How episodes ended, the environment's own metrics among it."""
    told = episodes.metrics
    own = {name: mean(x) for name, x in told.items() if not hidden(name)}
    own |= {f"success_{kind}": mean(told["success"], x) for kind, x in kinds(told).items()}
    known = None if episodes.masked is None else ~episodes.masked
    if known is not None:
        own["masked_episodes"] = value(jnp.sum(~known, dtype=jnp.float32))
    return own | {
        "episode_return": mean(episodes.episode_return, known),
        "turns": mean(episodes.num_turns),
        "truncated_share": mean(episodes.truncated),
    }


def unread_share(episodes: Episodes) -> Sums:
    """Of episodes in which something the environment said did not fit."""
    return mean(episodes.unread)


def played_metrics(episodes: Episodes, work: Work, mask: jax.Array) -> Metrics:
    """Of this device's episodes; `mask` [N, C-1] keeps the tokens learned from."""
    tokens = jnp.sum(episodes.action, dtype=jnp.float32)
    turns = jnp.sum(episodes.played, dtype=jnp.float32)
    own = outcome_metrics(episodes) | failed_shares(episodes)
    return own | {
        "unread_share": unread_share(episodes),
        "cut_share": Sums(jnp.sum(episodes.cut, dtype=jnp.float32), turns),
        "response_tokens": Sums(tokens, turns),
        "sampled_entropy": mean(-episodes.log_prob, episodes.action),
        "learned_share": Sums(jnp.sum(mask, dtype=jnp.float32), tokens),
        "lane_occupancy": Sums(work.busy, work.steps),
        VARIED: mean(episodes.episode_return != episodes.episode_return[0]),
        HIDDEN + "action": mean(~jnp.isfinite(episodes.log_prob)),
        HIDDEN + "reward": mean(~jnp.isfinite(episodes.reward)),
    }


def shown(episodes: Episodes, count: int, axis: str | None) -> Episodes:
    """The first `count` episodes of the first device, on every device; empty ones if it lacks.

    What a masked one was worth is NaN.
    """
    if episodes.masked is not None:
        reward = jnp.where(episodes.masked[:, None], jnp.nan, episodes.reward)
        episodes = episodes.replace(reward=reward, masked=None)

    def first(x: jax.Array) -> jax.Array:
        missing = max(count - x.shape[0], 0)
        return jnp.pad(x[:count], [(0, missing)] + [(0, 0)] * (x.ndim - 1))

    kept = jax.tree.map(first, episodes)
    if axis is None:
        return kept
    here = jax.lax.axis_index(axis) == 0
    return jax.tree.map(lambda x: jax.lax.psum(jnp.where(here, x, 0), axis).astype(x.dtype), kept)

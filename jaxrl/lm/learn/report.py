"""What an iteration reports of its episodes: metrics, and a few of them to be shown."""

import jax
import jax.numpy as jnp

from jaxrl.lm.play.episodes import Episodes
from jaxrl.lm.play.rounds import Work
from jaxrl.metrics import HIDDEN, Metrics, Sums, hidden, mean


def outcome_metrics(episodes: Episodes) -> Metrics:
    """How episodes ended, the environment's own metrics among it."""
    own = {name: mean(x) for name, x in episodes.metrics.items() if not hidden(name)}
    return own | {
        "episode_return": mean(episodes.episode_return),
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
    return outcome_metrics(episodes) | {
        "unread_share": unread_share(episodes),
        "cut_share": Sums(jnp.sum(episodes.cut, dtype=jnp.float32), turns),
        "response_tokens": Sums(tokens, turns),
        "learned_share": Sums(jnp.sum(mask, dtype=jnp.float32), tokens),
        "lane_occupancy": Sums(work.busy, work.steps),
        HIDDEN + "action": mean(~jnp.isfinite(episodes.log_prob)),
        HIDDEN + "reward": mean(~jnp.isfinite(episodes.reward)),
    }


def shown(episodes: Episodes, count: int, axis: str | None) -> Episodes:
    """The first `count` episodes of the first device, on every device; empty ones if it lacks."""

    def first(x: jax.Array) -> jax.Array:
        missing = max(count - x.shape[0], 0)
        return jnp.pad(x[:count], [(0, missing)] + [(0, 0)] * (x.ndim - 1))

    kept = jax.tree.map(first, episodes)
    if axis is None:
        return kept
    here = jax.lax.axis_index(axis) == 0
    return jax.tree.map(lambda x: jax.lax.psum(jnp.where(here, x, 0), axis).astype(x.dtype), kept)

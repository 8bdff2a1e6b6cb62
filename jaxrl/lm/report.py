"""What is told of an iteration's episodes: metrics over all devices, and a few to be shown."""

import jax
import jax.numpy as jnp

from jaxrl import mesh, objectives
from jaxrl.lm.episodes import Episodes
from jaxrl.lm.play import Work


def to_token_mask(episodes: Episodes, keep_cut: bool) -> tuple[jax.Array, jax.Array]:
    """(mask, turn) [N, C-1] of the tokens 1 .. C-1: which of them are learned from."""
    mask, turn = episodes.action[:, 1:], episodes.turn[:, 1:]
    return (mask if keep_cut else objectives.without_cut(mask, turn, episodes.cut)), turn


def played_metrics(
    episodes: Episodes, work: Work, mask: jax.Array, axis: str | None
) -> dict[str, jax.Array]:
    """Means over the episodes of all devices; `mask` [N, C-1] keeps the tokens learned from."""
    count = jnp.float32(episodes.length.shape[0])
    turns = jnp.sum(episodes.played, dtype=jnp.float32)
    tokens = jnp.sum(episodes.action, dtype=jnp.float32)
    sums = {
        "episode_return": (jnp.sum(episodes.episode_return), count),
        "success": (jnp.sum(episodes.success), count),
        "turns": (turns, count),
        "truncated_share": (jnp.sum(episodes.truncated, dtype=jnp.float32), count),
        "unread_share": (jnp.sum(episodes.unread, dtype=jnp.float32), count),
        "cut_share": (jnp.sum(episodes.cut, dtype=jnp.float32), turns),
        "response_tokens": (tokens, turns),
        "learned_share": (jnp.sum(mask, dtype=jnp.float32), tokens),
        "lane_occupancy": (work.busy, work.steps),
    }
    sums, episodes_done = mesh.psum((sums, count), axis)
    metrics = {name: objectives.quotient(pair) for name, pair in sums.items()}
    return metrics | {"episodes": episodes_done}


def shown(episodes: Episodes, count: int, axis: str | None) -> Episodes:
    """The first `count` episodes of the first device, on every device."""
    first = jax.tree.map(lambda x: x[:count], episodes)
    if axis is None:
        return first
    here = jax.lax.axis_index(axis) == 0
    return jax.tree.map(lambda x: jax.lax.psum(jnp.where(here, x, 0), axis).astype(x.dtype), first)

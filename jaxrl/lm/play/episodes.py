"""The record of played episodes: every token, who wrote it, and what came of it."""

from collections.abc import Iterable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


class Episodes(flax.struct.PyTreeNode):
    """N episodes of at most C tokens and U turns each."""

    token: jax.Array  # int32 [N, C], 0 beyond `length`
    action: jax.Array  # bool [N, C]: the policy drew this token, the end of turn among them
    turn: jax.Array  # int32 [N, C]: of the token; what the environment says belongs to the next
    log_prob: jax.Array  # float32 [N, C]: where it was drawn, under the sampler; else 0
    length: jax.Array  # int32 [N]
    reward: jax.Array  # float32 [N, U]
    played: jax.Array  # bool [N, U]: the turn took place
    cut: jax.Array  # bool [N, U]: the response met the length limit before its end of turn
    unread: jax.Array  # bool [N]: something the environment said did not fit
    terminated: jax.Array  # bool [N]
    truncated: jax.Array  # bool [N]: the clock ended it, and nothing else
    metrics: dict[str, jax.Array]  # float32 [N] each: the environment's own, at the end
    # bool [N]: the host failed to answer, nothing is known of its worth; None: there is no host.
    masked: jax.Array | None = None
    first: int = flax.struct.field(pytree_node=False, default=0)  # room for a prompt; 0: not known

    @property
    def episode_return(self) -> jax.Array:
        """float32 [N]: undiscounted."""
        return jnp.sum(self.reward, 1)

    @property
    def num_turns(self) -> jax.Array:
        """int32 [N]."""
        return jnp.sum(self.played, 1, dtype=jnp.int32)

    @property
    def judged(self) -> jax.Array:
        """bool [N, U]: turns that were played in episodes that are not masked."""
        return self.played if self.masked is None else self.played & ~self.masked[:, None]

    @property
    def start(self) -> jax.Array:
        """int32 [N]: tokens before the first that the policy drew."""
        return jnp.argmax(self.action, 1).astype(jnp.int32)


def widened(record: Episodes, context: int, num_turns: int) -> Episodes:
    """The same conversations with room for `context` tokens and `num_turns` turns."""
    room = empty(record.length.shape[0], context, num_turns, ())

    def grow(x: jax.Array, like: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, n - m) for m, n in zip(x.shape, like.shape, strict=True)])

    return jax.tree.map(grow, record, room)


def empty(
    num_episodes: int, context: int, max_turns: int, metrics: Iterable[str], first: int = 0
) -> Episodes:
    """A record to be filled; `metrics` are the names of the environment's own."""

    def zeros(*shape: int, dtype: Any = jnp.int32) -> jax.Array:
        return jnp.zeros((num_episodes, *shape), dtype)

    return Episodes(
        token=zeros(context),
        action=zeros(context, dtype=jnp.bool_),
        turn=zeros(context),
        log_prob=zeros(context, dtype=jnp.float32),
        length=zeros(),
        reward=zeros(max_turns, dtype=jnp.float32),
        played=zeros(max_turns, dtype=jnp.bool_),
        cut=zeros(max_turns, dtype=jnp.bool_),
        unread=zeros(dtype=jnp.bool_),
        terminated=zeros(dtype=jnp.bool_),
        truncated=zeros(dtype=jnp.bool_),
        metrics={name: zeros(dtype=jnp.float32) for name in metrics},
        first=first,
    )


def metric_names(env: Any) -> list[str]:
    """The names of an environment's own metrics, which it has from its reset on."""
    _, ts = jax.eval_shape(env.reset, jax.random.key(0))
    return sorted(ts.metrics)

"""Episodes that a reward model judges, in place of their environment."""

from math import gcd

import jax
import jax.numpy as jnp

from jaxrl import sgd
from jaxrl.lm.learn.batch import Sequences, score_of
from jaxrl.lm.learn.options import AgentConfig
from jaxrl.lm.model.params import Params
from jaxrl.lm.play.episodes import Episodes

BOUND = 10.0  # of a score, either way, before it is learned from


def scores(judge: Params, episodes: Episodes, cfg: AgentConfig, group_size: int) -> jax.Array:
    """float32 [N]: of each conversation as a whole, `group_size` side by side from one prompt."""

    def piece(judge: Params, part: tuple[Sequences, jax.Array]) -> jax.Array:
        return score_of(judge, *part, gcd(group_size, size), cfg.remat)

    rows = Sequences(
        token=episodes.token,
        mask=episodes.action[:, 1:],
        start=episodes.start,
        first=episodes.first,
    )
    size = gcd(len(episodes.length), cfg.micro_batch)
    return sgd.map_pieces(piece, judge, (rows, episodes.length), size)


def paid_by(score: jax.Array, episodes: Episodes) -> Episodes:
    """The episodes with their score [N], bounded, as the reward of the last turn, and no other."""
    row, last = jnp.arange(len(score), dtype=jnp.int32), jnp.maximum(episodes.num_turns - 1, 0)
    reward = jnp.zeros_like(episodes.reward).at[row, last].set(jnp.clip(score, -BOUND, BOUND))
    return episodes.replace(reward=reward)

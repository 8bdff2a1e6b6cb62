"""Running mean and variance, over the global batch."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.mesh import axis_size, pmean
from jaxrl.spaces import Space, is_space

CLIP = 10.0  # normalised observations and rewards stay within +-CLIP, as in Baselines


class RunningStats(flax.struct.PyTreeNode):
    """Mean and variance of everything seen so far, per entry of a float32 array."""

    mean: jax.Array
    var: jax.Array
    count: jax.Array  # float32 []; a count above 2^24 only slows further change

    @classmethod
    def init(cls, shape: tuple[int, ...] = ()) -> "RunningStats":
        """Mean 0 and variance 1, so that nothing changes before the first update."""
        return cls(jnp.zeros(shape), jnp.ones(shape), jnp.zeros(()))

    @staticmethod
    def init_for(space: Space) -> Any:
        """Statistics for every leaf of an observation space."""
        return jax.tree.map(lambda leaf: RunningStats.init(leaf.shape), space, is_leaf=is_space)

    def update(self, batch: jax.Array, axis: str | None = None) -> "RunningStats":
        """Merge a batch [..., *shape] of every device (Chan et al. 1979, eq. 2.1)."""
        over = tuple(range(batch.ndim - self.mean.ndim))
        rows = float(batch.size // max(self.mean.size, 1)) * axis_size(axis)
        batch = batch.astype(jnp.float32)
        # Moments about the old mean: about zero, a large mean would cancel the variance away.
        shifted = batch - self.mean
        first, second = pmean((jnp.mean(shifted, over), jnp.mean(shifted**2, over)), axis)
        count = self.count + rows
        weight = rows / count
        old_var = jnp.where(self.count > 0, self.var, 0.0)
        var = (
            (1 - weight) * old_var + weight * (second - first**2) + weight * (1 - weight) * first**2
        )
        return RunningStats(self.mean + weight * first, var, count)


def normalize(stats: RunningStats, x: jax.Array) -> jax.Array:
    """(x - mean) / std, clipped."""
    return jnp.clip((x - stats.mean) * jax.lax.rsqrt(stats.var + 1e-8), -CLIP, CLIP)


def scale(stats: RunningStats, x: jax.Array) -> jax.Array:
    """x / std, clipped: for rewards, whose sign must stay."""
    return jnp.clip(x * jax.lax.rsqrt(stats.var + 1e-8), -CLIP, CLIP)


def normalize_obs(stats: Any, obs: Any) -> Any:
    """Every leaf by its own statistics; unchanged where there are none (`stats` is None)."""
    return obs if stats is None else jax.tree.map(normalize, stats, obs, is_leaf=_is_stats)


def update_obs_stats(stats: Any, obs: Any, axis: str | None = None) -> Any:
    """Every leaf's statistics with observations [T, B, ...] merged in."""
    return jax.tree.map(lambda s, o: s.update(o, axis), stats, obs, is_leaf=_is_stats)


def _is_stats(leaf: Any) -> bool:
    return isinstance(leaf, RunningStats)

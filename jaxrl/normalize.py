"""Running mean and variance, over the global batch."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.mesh import axis_size, pmean
from jaxrl.spaces import Box, Space, is_space

CLIP = 10.0  # normalised observations and rewards stay within +-CLIP, as in Baselines


def is_normalized(space: Any) -> bool:
    """Whether a leaf of an observation space is: numbers are.

    Choices and bits (the mask of legal actions among them) stay what they are, and an image with
    bounds is scaled by these.
    """
    if not isinstance(space, Box) or space.dtype == np.bool_:
        return False
    return not (spaces.is_image(space) and spaces.has_pixels(space))


def normalized_space(space: Space) -> Space:
    """What a network sees of the space's observations once they are normalised.

    The bounds +-CLIP are left out, as no scale of the numbers between them.
    """
    return jax.tree.map(
        lambda leaf: Box(-np.inf, np.inf, leaf.shape) if is_normalized(leaf) else leaf,
        space,
        is_leaf=is_space,
    )


class RunningStats(flax.struct.PyTreeNode):
    """Mean and variance of everything seen so far, per entry of a float32 array."""

    mean: jax.Array
    var: jax.Array
    count: jax.Array  # float32 []; a count above 2^24 only slows further change

    @classmethod
    def init(cls, shape: tuple[int, ...] = ()) -> "RunningStats":
        """Mean 0 and variance 1, so that nothing changes before the first update."""
        return cls(
            jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32), jnp.zeros((), jnp.float32)
        )

    @staticmethod
    def init_for(space: Space) -> Any:
        """Statistics for every leaf of an observation space that is normalised, None elsewhere."""
        return jax.tree.map(
            lambda leaf: RunningStats.init(leaf.shape) if is_normalized(leaf) else None,
            space,
            is_leaf=is_space,
        )

    def update(self, batch: jax.Array, axis: str | None = None) -> "RunningStats":
        """Merge a batch [..., *shape] of every device (Chan et al. 1979, eq. 2.1)."""
        over = tuple(range(batch.ndim - self.mean.ndim))
        rows = float(batch.size // max(self.mean.size, 1)) * axis_size(axis)
        batch = batch.astype(jnp.float32)
        mean = pmean(jnp.mean(batch, over), axis)
        # A second pass, about the mean: a mean of squares would cancel where the mean is large.
        var = pmean(jnp.mean(jnp.square(batch - mean), over), axis)
        count = self.count + rows
        new = rows / count  # 1 at first: the prior is gone
        shift = mean - self.mean
        var = (1 - new) * self.var + new * var + new * (1 - new) * shift**2
        return RunningStats(self.mean + new * shift, var, count)


def normalize(stats: RunningStats, x: jax.Array) -> jax.Array:
    """(x - mean) / std, clipped."""
    return jnp.clip((x - stats.mean) * jax.lax.rsqrt(stats.var + 1e-8), -CLIP, CLIP)


def scale(stats: RunningStats, x: jax.Array) -> jax.Array:
    """x / std, clipped: for rewards, whose sign must stay."""
    return jnp.clip(x * jax.lax.rsqrt(stats.var + 1e-8), -CLIP, CLIP)


def normalize_obs(stats: Any, obs: Any) -> Any:
    """Every leaf by its own statistics; unchanged where there are none (None)."""
    return jax.tree.map(lambda s, o: o if s is None else normalize(s, o), stats, obs, is_leaf=_ends)


def update_obs_stats(stats: Any, obs: Any, axis: str | None = None) -> Any:
    """Every leaf's statistics with observations [T, B, ...] merged in."""
    return jax.tree.map(
        lambda s, o: None if s is None else s.update(o, axis), stats, obs, is_leaf=_ends
    )


def _ends(leaf: Any) -> bool:
    return leaf is None or isinstance(leaf, RunningStats)

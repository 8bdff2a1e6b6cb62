"""Devices as a mesh, and the reduction that crosses it."""

from collections.abc import Sequence
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

SEED = "seed"  # mesh axis: independent training seeds; nothing crosses it
DATA = "data"  # mesh axis: environments of one seed; gradients and scalar metrics cross it


def make_mesh(num_seeds: int, devices: Sequence[Any]) -> Mesh:
    """As many devices on the seeds as divide them; the rest on the environments of each seed."""
    across_seeds = gcd(num_seeds, len(devices))
    grid = np.asarray(devices).reshape(across_seeds, len(devices) // across_seeds)
    return Mesh(grid, (SEED, DATA))


def axis_size(axis: str | None) -> int:
    """Devices along a mesh axis; 1 outside a mesh."""
    return 1 if axis is None else jax.lax.axis_size(axis)


def global_index(num_local: int, axis: str | None) -> jax.Array:
    """int32 [num_local]: the global indices of this device's rows of an evenly split axis."""
    start = 0 if axis is None else jax.lax.axis_index(axis) * num_local
    return start + jnp.arange(num_local, dtype=jnp.int32)


def pmean(tree: Any, axis: str | None) -> Any:
    """Mean over a mesh axis of every leaf, as **one** all-reduce of one float32 vector."""
    if axis is None or axis_size(axis) == 1:
        return tree
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.pmean(flat, axis))


def psum(tree: Any, axis: str | None) -> Any:
    """Sum over a mesh axis of every leaf, as **one** all-reduce of one vector."""
    if axis is None or axis_size(axis) == 1:
        return tree
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.psum(flat, axis))

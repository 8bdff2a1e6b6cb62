"""A replay of the last steps of each environment, as a pytree that is split over environments.

Row r of a batch comes from block r of the environments, its place from `fold_in(key, r)`: so every
number of devices draws the same rows, and no row travels.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl import config, mesh
from jaxrl.env import per_env_keys

Where = tuple[jax.Array, jax.Array]  # int32 [...] each: environment of this device, place in it


class Replay(flax.struct.PyTreeNode):
    """The last C steps of this device's environments, a ring that overwrites the oldest."""

    rows: Any  # leaves [B, C, ...], of the types that were given
    count: jax.Array  # int32 []: steps written to each environment; from 2C on it goes back to C

    @property
    def num_envs(self) -> int:
        return jax.tree.leaves(self.rows)[0].shape[0]

    @property
    def capacity(self) -> int:
        """Steps of each environment that are kept, C."""
        return jax.tree.leaves(self.rows)[0].shape[1]

    @property
    def filled(self) -> jax.Array:
        """int32 []: steps of each environment that may be drawn."""
        return jnp.minimum(same_in_members(self.count), self.capacity)


@jax.custom_batching.custom_vmap
def same_in_members(x: jax.Array) -> jax.Array:
    """A number that all members of a program share, under `vmap` as the one number that it is.

    A branch on it stays a branch, and writing at it is one scatter.
    """
    return x


@same_in_members.def_vmap
def _(axis_size: int, in_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size
    return (x[0] if in_batched[0] else x), False


def check(
    num_envs: int, batch_size: int, buffer_size: int, learning_starts: int, num_steps: int
) -> None:
    """ValueError for a replay that cannot hold a batch or the warm-up, or whose blocks are uneven.

    `buffer_size` and `learning_starts` are rows of all environments together; `num_steps` are what
    is written at once, or read in a row.
    """
    for name, value in (("batch_size", batch_size), ("buffer_size", buffer_size)):
        config.check_size(name, value, 1024)
    config.check_range("learning_starts", learning_starts, 0, config.LARGEST, 1000)
    if batch_size % num_envs and num_envs % batch_size:
        near = max(batch_size // num_envs, 1) * num_envs
        raise ValueError(
            f"batch_size={batch_size} must be a multiple of num_envs={num_envs}, or divide it; "
            f"try {near}."
        )
    needed = {
        f"a batch of batch_size={batch_size}": batch_size,
        f"learning_starts={learning_starts}": learning_starts,
        f"{num_steps} steps of num_envs={num_envs}": num_steps * num_envs,
    }
    what = max(needed, key=lambda name: needed[name])
    if buffer_size // num_envs * num_envs < needed[what]:
        example = -(-needed[what] // num_envs) * num_envs
        raise ValueError(f"buffer_size={buffer_size} cannot hold {what}; try {example}.")


def empty(example_rows: Any, num_envs: int, capacity: int) -> Replay:
    """A replay of `capacity` steps of each environment; one row has the leaves of `example_rows`.

    Arrays or their shapes, without a batch axis.
    """
    rows = jax.tree.map(lambda x: jnp.zeros((num_envs, capacity, *x.shape), x.dtype), example_rows)
    return Replay(rows, jnp.zeros((), jnp.int32))


def add(buffer: Replay, rows: Any) -> Replay:
    """The replay with T steps of all environments, leaves [T, B, ...], T at most its capacity."""
    T, C, count = jax.tree.leaves(rows)[0].shape[0], buffer.capacity, same_in_members(buffer.count)
    assert T <= C, f"{T} steps at once do not fit into a replay of {C}"
    place = (count + jnp.arange(T, dtype=jnp.int32)) % C

    def write(kept, new):
        assert kept.dtype == new.dtype, f"{new.dtype} into a replay of {kept.dtype}"
        # A scatter, for one step too: XLA's CPU copies the whole replay for an update of a slice.
        new = jnp.moveaxis(new, 0, 1)
        return kept.at[:, place].set(new, mode="promise_in_bounds", unique_indices=True)

    count = count + T
    count = jnp.where(count >= 2 * C, count - C, count)  # an int32 holds it however long the run
    return Replay(jax.tree.map(write, buffer.rows, rows), count)


def sample(buffer: Replay, key: jax.Array, batch_size: int, axis: str | None) -> tuple[Any, Where]:
    """(rows [n, ...], where they lie): this device's share n of a batch over all devices.

    Each row is uniform over the steps kept of its block. `batch_size` is a multiple of the number
    of environments on all devices, or divides it. An empty replay gives zeros.
    """
    where = draw(buffer, key, batch_size, axis)
    return take(buffer.rows, where), where


def draw(
    buffer: Replay, key: jax.Array, batch_size: int, axis: str | None, num_steps: int = 1
) -> Where:
    """Where the rows of a batch lie: each is followed by num_steps - 1 later ones at least."""
    n, B = batch_size // mesh.axis_size(axis), buffer.num_envs
    assert n and not (n % B and B % n), f"{n} rows of {B} environments on a device"
    span = jnp.maximum(buffer.filled - (num_steps - 1), 1)
    size = max(B // n, 1)  # environments of a block
    keys = per_env_keys(key, mesh.global_index(n, axis))
    drawn = jax.vmap(lambda k: jax.random.randint(k, (), 0, size * span))(keys)
    first = jnp.arange(n, dtype=jnp.int32) * B // n
    oldest = same_in_members(buffer.count) - buffer.filled
    return first + drawn // span, (oldest + drawn % span) % buffer.capacity


def take(rows: Any, where: Where) -> Any:
    """Leaves [..., *] of leaves [B, C, *]."""
    return jax.tree.map(lambda x: x.at[where].get(mode="promise_in_bounds"), rows)

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


class Sizes:
    """What follows from the sizes in a Config of an algorithm that learns from a replay.

    An iteration is rounds: `train_every` steps of every environment, then `gradient_steps` batches.
    """

    total_steps: config.Count
    num_envs: int
    num_steps: int  # of each environment in an iteration
    train_every: int
    gradient_steps: int
    batch_size: int
    buffer_size: int  # rows of all environments together
    learning_starts: int  # such rows before the first batch
    reset_pool: int  # see `resets.pool_size`

    def check_sizes(self, num_following: int = 1) -> None:
        """ValueError for sizes that cannot work; a row is read with those that follow it."""
        own = type(self)
        config.check_range("reset_pool", self.reset_pool, 0, 1e9, 0)
        for name in ("total_steps", "num_envs", "num_steps", "gradient_steps"):
            config.check_positive(name, getattr(self, name), getattr(own, name))
        rows, what = self.num_envs * self.num_steps, "num_envs*num_steps"
        few = f"num_envs={own.num_envs} with num_steps={own.num_steps}"
        config.check_iterations("total_steps", self.total_steps, what, rows, few)
        config.check_divides("train_every", self.train_every, "num_steps", self.num_steps)
        written = max(self.train_every, num_following)
        check(self.num_envs, self.batch_size, self.buffer_size, self.learning_starts, written)

    @property
    def num_iterations(self) -> int:
        return -(-self.total_steps // (self.num_envs * self.num_steps))

    @property
    def num_rounds(self) -> int:
        """Times that an iteration plays and learns."""
        return self.num_steps // self.train_every

    @property
    def capacity(self) -> int:
        """Steps of each environment that are kept."""
        return self.buffer_size // self.num_envs

    @property
    def warm_up(self) -> int:
        """Rows without which nothing is learned."""
        return max(self.learning_starts, self.batch_size)

    @property
    def num_blocks(self) -> int:
        """Blocks of environments that rows are drawn from: what devices can share."""
        return min(self.num_envs, self.batch_size)

    @property
    def minibatch_rows(self) -> int:
        return self.batch_size


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


def cut_last(buffer: Replay, cut: jax.Array) -> Replay:
    """The last step of the environments `cut` (bool [B]) truncates its episode.

    So that n-step returns do not run on into the next one, whose first step will stand behind it.
    """
    last = (same_in_members(buffer.count) - 1) % buffer.capacity
    kept = buffer.rows.truncated
    there = kept.at[:, last].set(kept[:, last] | (cut & ~buffer.rows.terminated[:, last]))
    return buffer.replace(rows=buffer.rows.replace(truncated=there))


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


def following(buffer: Replay, where: Where, num_steps: int) -> Where:
    """[num_steps, n] each: where steps [n] lie, and those that came after them."""
    env, place = where
    step = jnp.arange(num_steps, dtype=jnp.int32)[:, None]
    return jnp.broadcast_to(env, (num_steps, *env.shape)), (place + step) % buffer.capacity


def take(rows: Any, where: Where) -> Any:
    """Leaves [..., *] of leaves [B, C, *]."""
    return jax.tree.map(lambda x: x.at[where].get(mode="promise_in_bounds"), rows)

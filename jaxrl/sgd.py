"""Epochs of shuffled minibatches, as one scan."""

from collections.abc import Callable
from math import gcd
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxrl.env import per_env_keys

C = TypeVar("C")


def group_size(num_steps: int, num_minibatches: int) -> int:
    """Environments whose rows are shuffled together: the fewest that split evenly.

    A minibatch takes the same number of rows from every group, and a group never straddles two
    devices. So the minibatches are the same on any number of devices, and no row has to travel.
    """
    return num_minibatches // gcd(num_steps, num_minibatches)


def shuffled_rows(
    key: jax.Array, env_index: jax.Array, num_steps: int, num_epochs: int, num_minibatches: int
) -> jax.Array:
    """int32 [num_epochs, num_minibatches, rows]: which of the rows t*B + b each minibatch takes.

    Every epoch holds each of this device's T*B rows once, in an order that depends on (key, epoch,
    global group) alone.
    """
    num_envs, size = env_index.shape[0], group_size(num_steps, num_minibatches)
    group, rows = num_envs // size, size * num_steps
    keys = per_env_keys(key, env_index[::size] // size)
    order = jax.vmap(lambda k: permutations(k, rows, num_epochs))(keys)  # [group, epoch, rows]
    start = jnp.arange(group, dtype=jnp.int32)[:, None, None] * size
    order = (order // size) * num_envs + start + order % size
    order = order.reshape(group, num_epochs, num_minibatches, rows // num_minibatches)
    return order.transpose(1, 2, 0, 3).reshape(num_epochs, num_minibatches, -1)


def permutations(key: jax.Array, n: int, count: int) -> jax.Array:
    """int32 [count, n]: random orders of 0 .. n-1, by a keyed bijection instead of a sort.

    Rounds of odd multiplication, addition and xor-shift are bijections of k bits; values of n and
    above are walked on until they fall below it (cycle walking, Black & Rogaway 2002).
    """
    bits = max((n - 1).bit_length(), 1)
    mask, half = (1 << bits) - 1, (bits + 1) // 2
    rounds = jax.random.bits(key, (4, 2, count, 1), jnp.uint32)

    def mix(x):
        for multiplier, offset in rounds:
            x = (x * (multiplier | 1) + offset) & mask
            x = x ^ (x >> half)
        return x

    def walk(x):
        return jnp.where(x >= n, mix(x), x)

    order = mix(jnp.broadcast_to(jnp.arange(n, dtype=jnp.uint32), (count, n)))
    if n <= mask:
        order = jax.lax.while_loop(lambda x: jnp.any(x >= n), walk, order)
    return order.astype(jnp.int32)


def epochs(
    step: Callable[[C, Any], tuple[C, Any]], carry: C, rows: Any, order: jax.Array, extra: Any
) -> tuple[C, Any]:
    """Run `step(carry, (minibatch, extra))` over the blocks of `rows` [N, ...] that `order` lists.

    `order` is that of `shuffled_rows`; `extra` has leaves [epochs * minibatches, ...], one entry
    for each block. Returns the last carry and the stacked second outputs.
    """

    def body(carry, inputs):
        index, extra = inputs
        return step(carry, (take_rows(rows, index), extra))

    return jax.lax.scan(body, carry, (order.reshape(-1, order.shape[-1]), extra))


ROWS_IN_CACHE = 512  # of two towers 64 wide, with what their backward pass keeps


def pieces_in_cache(rows: int) -> int:
    """The fewest equal pieces of at most ROWS_IN_CACHE rows; 1 where rows divide into none.

    A CPU then works in its cache: 65,536 rows in pieces of 512 take a third of the time that they
    take at once (two towers of 64, two cores).
    """
    fewest = -(-rows // ROWS_IN_CACHE)
    return next((n for n in range(fewest, 2 * fewest) if rows % n == 0), 1)


def take_rows(rows: Any, index: jax.Array) -> Any:
    """Rows `index` of every leaf; the indices are in bounds and differ from each other."""
    return jax.tree.map(
        lambda x: x.at[index].get(mode="promise_in_bounds", unique_indices=True), rows
    )

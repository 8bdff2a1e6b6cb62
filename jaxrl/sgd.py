"""Gradients over minibatches: summed over pieces and devices, in epochs of shuffled rows.

A loss is a mean carried as `Sums`. Numerators' gradients and denominators are added up over the
pieces of a minibatch and over devices, and divided at the very end: neither the size of a piece
nor the number of devices changes the result.
"""

from collections.abc import Callable
from functools import partial
from math import gcd
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxrl import config, mesh
from jaxrl.env import per_env_keys
from jaxrl.metrics import Metrics, Sums, until_broken

C = TypeVar("C")
Loss = Callable[[Any, Any], tuple[Sums, Metrics]]  # (params, rows) -> the loss, its parts
Total = Callable[[Any, Metrics], tuple[Any, Metrics]]  # both, summed over all devices
Idle = Callable[[Any], tuple[jax.Array, Sums]]  # rows -> whether they have no gradient, their loss


class Sizes:
    """What follows from the sizes in a Config: T*B rows an iteration, in epochs of minibatches."""

    total_steps: config.Count
    num_envs: int
    num_steps: int
    num_epochs: int
    num_minibatches: int
    reset_pool: int  # see `resets.pool_size`

    def check_sizes(self) -> None:
        """ValueError for a size that cannot work."""
        config.check_range("reset_pool", self.reset_pool, 0, 1e9, 0)
        for name in ("total_steps", "num_envs", "num_steps", "num_epochs", "num_minibatches"):
            config.check_positive(name, getattr(self, name), getattr(type(self), name))
        rows, what, own = self.num_envs * self.num_steps, "num_envs*num_steps", type(self)
        few = f"num_envs={own.num_envs} with num_steps={own.num_steps}"
        config.check_iterations("total_steps", self.total_steps, what, rows, few)
        what = "num_envs" if self.row_steps > 1 else what
        config.check_divides("num_minibatches", self.num_minibatches, what, rows // self.row_steps)

    @property
    def row_steps(self) -> int:
        """Steps of an environment that a row of a minibatch is: all T where their order counts."""
        return 1

    @property
    def num_iterations(self) -> int:
        return -(-self.total_steps // (self.num_envs * self.num_steps))

    @property
    def num_blocks(self) -> int:
        """Blocks of environments that are shuffled together: what devices can share."""
        return self.num_envs // block_size(self.num_steps // self.row_steps, self.num_minibatches)

    @property
    def minibatch_rows(self) -> int:
        return self.num_envs * self.num_steps // self.num_minibatches


@jax.named_scope("learner")
def gradient(
    loss: Loss,
    params: Any,
    rows: Any,
    size: int = 0,
    total: Total | None = None,
    idle: Idle | None = None,
) -> tuple[Any, Metrics]:
    """(gradient of the mean loss over all rows of all devices, metrics and `loss` over them).

    `loss(params, piece)` sees `size` rows at a time; with 0 as many as a CPU's cache holds, and on
    an accelerator all of them. `total` sums over devices; without it there is one. Pieces that are
    `idle` come last, are not computed, and add nothing to any metric but the loss.
    """

    def numerator(params, piece):
        value, metrics = loss(params, piece)
        return value.numerator, metrics | {"loss": value}

    grad_fn = jax.grad(numerator, has_aux=True)
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    count = num_rows // size if size else pieces_in_cache(rows)
    in_pieces = partial(_sum_over_pieces, grad_fn, count, idle)
    if size or count == 1:
        grads, metrics = in_pieces(params, rows)
    else:
        grads, metrics = jax.lax.platform_dependent(params, rows, cpu=in_pieces, default=grad_fn)
    grads, metrics = (grads, metrics) if total is None else total(grads, metrics)
    rate = 1.0 / jnp.maximum(metrics["loss"].denominator, 1.0)
    return jax.tree.map(lambda g: (g * rate).astype(g.dtype), grads), metrics


def schedule(kind: str, iteration: jax.Array, num_iterations: float | jax.Array) -> jax.Array:
    """float32 []: what a learning rate is times at an iteration; linear falls to 0 at the end."""
    left = 1.0 - iteration.astype(jnp.float32) / num_iterations
    return jnp.maximum(left, 0.0) if kind == "linear" else jnp.ones((), jnp.float32)


@jax.named_scope("optimiser")
def descend(
    direction: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any, rate: Any
) -> tuple[Any, Any]:
    """(params, optimiser state) after a step of length `rate` against what `direction` says."""
    updates, opt_state = direction.update(grads, opt_state, params)
    return jax.tree.map(lambda p, u: (p - rate * u).astype(p.dtype), params, updates), opt_state


def plain_step(
    loss: Loss, direction: optax.GradientTransformation, rate: Any, axis: str | None
) -> Callable[[tuple, tuple], tuple[tuple, Metrics]]:
    """The step of `epochs` over (params, optimiser state) for a loss that needs nothing else."""

    def step(carry, inputs):
        (params, opt_state), (rows, _) = carry, inputs
        grads, metrics = gradient(loss, params, rows, total=over_devices(axis))
        return descend(direction, grads, opt_state, params, rate), metrics

    return step


def norms(tree: Any) -> dict[str, jax.Array]:
    """The Euclidean norm of each part of parameters or gradients, by the part's name."""
    squares: dict[str, Any] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        name = _part(path)
        squares[name] = squares.get(name, 0.0) + jnp.sum(jnp.square(x.astype(jnp.float32)))
    return {name: jnp.sqrt(x) for name, x in squares.items()}


def _part(path: Any) -> str:
    return jax.tree_util.keystr(path[:1], simple=True)


def clip_each_by_norm(max_norm: Any) -> optax.GradientTransformation:
    """Scales the gradient of each part (of each network) down to a norm of its own."""

    def clip(grads, params):
        del params
        scale = {
            name: max_norm / jnp.maximum(norm, max_norm) for name, norm in norms(grads).items()
        }
        return jax.tree_util.tree_map_with_path(
            lambda path, g: g * scale[jax.tree_util.keystr(path[:1], simple=True)], grads
        )

    return optax.stateless(clip)


def over_devices(axis: str | None) -> Total:
    """`total` of `gradient` where every device of a mesh axis holds all parameters."""
    return lambda grads, metrics: mesh.psum((grads, metrics), axis)


def _sum_over_pieces(
    grad_fn: Callable[..., Any], count: int, idle: Idle | None, params: Any, rows: Any
) -> Any:
    if count == 1 and idle is None:
        return grad_fn(params, rows)

    def add(so_far, piece):
        return jax.tree.map(jnp.add, so_far, grad_fn(params, piece))

    pieces = in_pieces(rows, count)
    shapes = jax.eval_shape(grad_fn, params, jax.tree.map(lambda x: x[0], pieces))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    if idle is None:
        return jax.lax.scan(lambda so_far, piece: (add(so_far, piece), None), zeros, pieces)[0]
    still, value = jax.vmap(idle)(pieces)
    # A loop that ends early: a branch would hold the sum of gradients twice.
    grads, metrics = jax.lax.fori_loop(
        0,
        jnp.sum(~still, dtype=jnp.int32),
        lambda i, so_far: add(so_far, jax.tree.map(lambda x: x[i], pieces)),
        zeros,
    )
    unpaid = jax.tree.map(lambda x: jnp.sum(jnp.where(still, x, 0.0)), value)
    return grads, metrics | {"loss": jax.tree.map(jnp.add, metrics["loss"], unpaid)}


def in_rows(x: jax.Array, whole: bool) -> jax.Array:
    """[T, B, ...] as rows t*B + b [T*B, ...], or as the whole sequences of b [B, T, ...]."""
    return x.swapaxes(0, 1) if whole else x.reshape(-1, *x.shape[2:])


def in_pieces(rows: Any, count: int) -> Any:
    """Leaves [count, N / count, ...] of leaves [N, ...]."""
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), rows)


def map_pieces(f: Callable[[Any, Any], Any], params: Any, rows: Any, size: int = 0) -> Any:
    """f(params, rows), computed `size` rows at a time as in `gradient`; leaves [N, ...]."""
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    count = num_rows // size if size else pieces_in_cache(rows)

    def one_by_one(params, rows):
        out = jax.lax.map(partial(f, params), in_pieces(rows, count))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)

    if count == 1:
        return f(params, rows)
    if size:
        return one_by_one(params, rows)
    return jax.lax.platform_dependent(params, rows, cpu=one_by_one, default=f)


ROWS_IN_CACHE = 512  # of two towers 64 wide, with what their backward pass keeps
IMAGES_IN_CACHE = 2**20  # bytes, of those that rows hold: convolutions make many times as much


def pieces_in_cache(rows: Any) -> int:
    """The fewest equal pieces of at most ROWS_IN_CACHE rows; 1 where rows divide into none.

    A CPU then works in its cache: 65,536 rows in pieces of 512 take a third of the time that they
    take at once (two towers of 64, two cores). Of images [N, H, W, C] a piece holds fewer.
    """
    leaves = jax.tree.leaves(rows)
    count = leaves[0].shape[0]
    images = [x.size * x.dtype.itemsize // count for x in leaves if x.ndim == 4]
    most = min([ROWS_IN_CACHE, *(max(IMAGES_IN_CACHE // size, 1) for size in images)])
    fewest = -(-count // most)
    return next((n for n in range(fewest, 2 * fewest) if count % n == 0), 1)


def block_size(num_steps: int, num_minibatches: int) -> int:
    """Environments whose rows are shuffled together: the fewest that split evenly.

    A minibatch takes the same number of rows from every block, and a block never straddles two
    devices. So the minibatches are the same on any number of devices, and no row has to travel.
    """
    return num_minibatches // gcd(num_steps, num_minibatches)


def shuffled_rows(
    key: jax.Array, env_index: jax.Array, num_steps: int, num_epochs: int, num_minibatches: int
) -> jax.Array:
    """int32 [num_epochs, num_minibatches, rows]: which of the rows t*B + b each minibatch takes.

    Every epoch holds each of this device's T*B rows once, in an order that depends on (key, epoch,
    global block) alone.
    """
    num_envs, size = env_index.shape[0], block_size(num_steps, num_minibatches)
    block, rows = num_envs // size, size * num_steps
    keys = per_env_keys(key, env_index[::size] // size)
    order = jax.vmap(lambda k: permutations(k, rows, num_epochs))(keys)  # [block, epoch, rows]
    start = jnp.arange(block, dtype=jnp.int32)[:, None, None] * size
    order = (order // size) * num_envs + start + order % size
    order = order.reshape(block, num_epochs, num_minibatches, rows // num_minibatches)
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
    for each block. Returns the last carry and the stacked second outputs, zeros after the first
    that is not finite.
    """

    form: list[Callable] = []

    def body(carry, inputs):
        index, extra = inputs
        carry, out = step(carry, (take_rows(rows, index), extra))
        # As one vector: a loop that stacks two dozen scalars pays for each of them at every step,
        # on a CPU a quarter of the time of a small iteration.
        flat, unravel = ravel_pytree(out)
        form[:] = [unravel]
        return carry, flat

    carry, flat = jax.lax.scan(body, carry, (order.reshape(-1, order.shape[-1]), extra))
    return carry, jax.vmap(form[0])(until_broken(flat))


def take_rows(rows: Any, index: jax.Array) -> Any:
    """Rows `index` of every leaf; the indices are in bounds and differ from each other."""
    return jax.tree.map(
        lambda x: x.at[index].get(mode="promise_in_bounds", unique_indices=True), rows
    )

"""Parameters and optimiser state split over the devices of a mesh axis (ZeRO, arXiv:1910.02054).

Every device keeps one part of each large array. The whole model is gathered for playing, and for
each optimizer step; the sum of the gradients goes straight back to who keeps the part.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxrl import mesh
from jaxrl.lm.model.params import Params

MIN_SIZE = 2**12  # numbers in an array that is worth splitting


def split_axis(shape: tuple[int, ...], parts: int) -> int:
    """The largest axis that `parts` divides; -1 for an array that stays whole."""
    size = 1
    for n in shape:
        size *= n
    fitting = [(n, -i) for i, n in enumerate(shape) if n % parts == 0]
    return -max(fitting)[1] if parts > 1 and size >= MIN_SIZE and fitting else -1


def state_specs(tree: Any, parts: int) -> Any:
    """The layout of whole arrays' shapes on a mesh, with the seeds' axis in front."""

    def spec(x: Any) -> P:
        axis = split_axis(x.shape, parts)
        return P(mesh.SEED, *[None] * axis, mesh.DATA) if axis >= 0 else P(mesh.SEED)

    return jax.tree.map(spec, tree)


def part_of(tree: Any, axis: str) -> Any:
    """This device's part of whole arrays."""
    parts = mesh.axis_size(axis)

    def cut(x: jax.Array) -> jax.Array:
        at = split_axis(x.shape, parts)
        if at < 0:
            return x
        size = x.shape[at] // parts
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis) * size, size, at)

    return jax.tree.map(cut, tree)


@dataclass(frozen=True)
class Layout:
    """How parameters lie on the devices: `whole` says their shapes, None that none is split."""

    whole: Any  # jaxrl.lm.model.params.Params of jax.ShapeDtypeStruct, or None
    axis: str | None

    def _axes(self, like: Any) -> Any:
        """Which axis of each array is split, in the form of all of them or of what is trained."""
        parts = mesh.axis_size(self.axis)
        axes = jax.tree.map(lambda x: split_axis(x.shape, parts), self.whole)
        if isinstance(like, Params) and like.critic is None:  # a reference has none
            axes = axes.replace(critic=None)
        same = len(jax.tree.leaves(axes)) == len(jax.tree.leaves(like))
        return axes if same else axes.trained()  # adapters alone are fewer

    @property
    def is_split(self) -> bool:
        return self.whole is not None and self.axis is not None and mesh.axis_size(self.axis) > 1

    def gather(self, params: Any) -> Any:
        """All of the parameters, on every device."""
        if not self.is_split or params is None:
            return params

        def join(x: jax.Array, at: int) -> jax.Array:
            return x if at < 0 else jax.lax.all_gather(x, self.axis, axis=at, tiled=True)

        return jax.tree.map(join, params, self._axes(params))

    def sum(self, grads: Any, others: Any) -> tuple[Any, Any]:
        """Sums over all devices: of whole gradients, laid out as what is trained, and of others.

        Where nothing is split both are one collective.
        """
        if not self.is_split:
            return mesh.psum((grads, others), self.axis)

        def add(x: jax.Array, at: int) -> jax.Array:
            if at < 0:
                return jax.lax.psum(x, self.axis)
            return jax.lax.psum_scatter(x, self.axis, scatter_dimension=at, tiled=True)

        return jax.tree.map(add, grads, self._axes(grads)), mesh.psum(others, self.axis)

    def norms(self, tree: Any) -> Any:
        """Euclidean norms of the policy's and the critic's part of parameters or a gradient.

        In the form of `tree` with a float32 [] for each part, of None for a part that is not there.
        """
        axes = self._axes(tree) if self.is_split else jax.tree.map(lambda _: -1, tree)

        def squares(x: jax.Array, at: int) -> jax.Array:
            total = jnp.sum(jnp.square(x.astype(jnp.float32)))
            if not self.is_split:
                return total
            mine = at >= 0 or jax.lax.axis_index(self.axis) == 0
            return jnp.where(mine, total, 0.0)

        def norm(part: Any, at: Any) -> jax.Array | None:
            if part is None:
                return None
            total = sum(jax.tree.leaves(jax.tree.map(squares, part, at)))
            return jnp.sqrt(jax.lax.psum(total, self.axis) if self.is_split else total)

        return tree.replace(
            policy=norm(tree.policy, axes.policy), critic=norm(tree.critic, axes.critic)
        )

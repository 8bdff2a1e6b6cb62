"""Observations of any space as one vector: an encoder for each leaf, concatenated."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrl import spaces
from jaxrl.spaces import Box, Discrete, Space, is_space

MAX_ONE_HOT = 64  # a choice of more values is embedded
HUGE = 1e30  # bounds from here on stand for none
EMBEDDING = 32  # numbers that stand for one value of an embedded choice


class Encoder(nnx.Module):
    """Observations as float32 features [..., size], with any number of leading batch axes.

    Choices are one-hot, or embedded where they have many values; Boxes are flat, images and bytes
    scaled to [0, 1] by their bounds. With `convolve`, images go through convolutions; with
    `rescale`, reals with two finite bounds are scaled to [-1, 1]. The mask of legal actions is no
    feature.
    """

    def __init__(self, space: Space, rngs: nnx.Rngs, convolve: bool = False, rescale: bool = False):
        leaves = jax.tree.leaves(spaces.features_space(space), is_leaf=is_space)
        self.parts = nnx.List([_part(leaf, rngs, convolve, rescale) for leaf in leaves])
        self.space = space

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def has_parameters(self) -> bool:
        return bool(jax.tree.leaves(self))

    def __call__(self, obs: Any) -> jax.Array:
        leaves = spaces.features_of(self.space, obs)
        encoded = [part(x) for part, (_, x) in zip(self.parts, leaves, strict=True)]
        return jnp.concatenate(encoded, -1)


def _part(space: Any, rngs: nnx.Rngs, convolve: bool, rescale: bool) -> Any:
    if convolve and spaces.is_image(space):
        return Convolutions(space, rngs)
    return Numbers(space, rescale) if isinstance(space, Box) else Choices(space, rngs)


class Numbers(nnx.Module):
    """The entries of a Box in order."""

    def __init__(self, space: Box, rescale: bool = False):
        self.size = int(np.prod(space.shape, dtype=int))
        is_real = jnp.issubdtype(space.dtype, jnp.floating) and not spaces.has_pixels(space)
        self.space, self.rescale = space, rescale and is_real

    def __call__(self, x: jax.Array) -> jax.Array:
        batch = x.shape[: x.ndim - len(self.space.shape)]
        x = between_bounds(self.space, x) if self.rescale else in_unit(self.space, x)
        return x.reshape(*batch, self.size)


class Choices(nnx.Module):
    """A Discrete or MultiDiscrete: each choice one-hot, or embedded."""

    def __init__(self, space: Any, rngs: nnx.Rngs):
        self.is_one = isinstance(space, Discrete)
        self.nvec = (space.n,) if self.is_one else space.nvec
        self.tables = nnx.List(
            [nnx.Embed(n, EMBEDDING, rngs=rngs) for n in self.nvec if n > MAX_ONE_HOT]
        )
        self.size = sum(n if n <= MAX_ONE_HOT else EMBEDDING for n in self.nvec)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x[..., None] if self.is_one else x
        tables = iter(self.tables)
        encoded = [
            jax.nn.one_hot(x[..., i], n, dtype=jnp.float32)
            if n <= MAX_ONE_HOT
            else next(tables)(x[..., i])
            for i, n in enumerate(self.nvec)
        ]
        return jnp.concatenate(encoded, -1)


class Convolutions(nnx.Module):
    """One 3x3 layer for boards up to 16x16 (MinAtar's paper), else DQN's three (Nature 2015)."""

    def __init__(self, space: Box, rngs: nnx.Rngs):
        layers = _convolutions(space)
        self.size = int(np.prod(_output_shape(space, layers)))
        channels = (space.shape[-1], *(outputs for outputs, _, _ in layers))
        self.layers = nnx.List(
            [
                nnx.Conv(
                    inputs,
                    outputs,
                    kernel_size=(side, side),
                    strides=(stride, stride),
                    padding="VALID",
                    kernel_init=nnx.initializers.orthogonal(2**0.5),
                    rngs=rngs,
                )
                for inputs, (outputs, side, stride) in zip(channels, layers, strict=False)
            ]
        )
        self.space = space

    def __call__(self, x: jax.Array) -> jax.Array:
        batch = x.shape[:-3]
        x = in_unit(self.space, x).reshape(-1, *self.space.shape)
        for layer in self.layers:
            x = jax.nn.relu(convolved(layer, x))
        return x.reshape(*batch, self.size)


def convolved(layer: nnx.Conv, x: jax.Array) -> jax.Array:
    """What the layer makes of images [N, H, W, C]; on a CPU as one matrix product of patches.

    XLA's CPU has no fast gradient of a convolution: there the product is 7 times as fast for
    MinAtar's boards and 11 times for 84x84 pixels (two cores, jaxlib 0.10.2).
    """
    return jax.lax.platform_dependent(x, cpu=partial(_of_patches, layer), default=layer)


def _of_patches(layer: nnx.Conv, x: jax.Array) -> jax.Array:
    kernel, bias = layer.kernel[...], layer.bias
    height, width = kernel.shape[:2]
    down, right = layer.strides  # pyright: ignore
    rows, columns = (x.shape[1] - height) // down + 1, (x.shape[2] - width) // right + 1
    patches = [
        x[:, i : i + down * (rows - 1) + 1 : down, j : j + right * (columns - 1) + 1 : right]
        for i in range(height)
        for j in range(width)
    ]
    out = jnp.concatenate(patches, -1) @ kernel.reshape(-1, kernel.shape[-1])
    return out if bias is None else out + bias[...]


def _convolutions(space: Box) -> list[tuple[int, int, int]]:
    """(channels, side of the kernel, stride) of each layer."""
    is_board = max(space.shape[:2]) <= 16
    return [(16, 3, 1)] if is_board else [(32, 8, 4), (64, 4, 2), (64, 3, 1)]


def _output_shape(space: Box, layers: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    height, width, channels = space.shape
    for outputs, side, stride in layers:
        height, width = (height - side) // stride + 1, (width - side) // stride + 1
        channels = outputs
    return height, width, channels


def check_image(space: Box) -> None:
    """ValueError for an image of which the convolutions leave nothing."""
    if min(_output_shape(space, _convolutions(space))) < 1:
        raise ValueError(
            f"network=cnn needs images of at least 36x36, or boards of 3x3 to 16x16, not "
            f"{space.shape[0]}x{space.shape[1]}; try network=mlp."
        )


def between_bounds(space: Box, x: jax.Array) -> jax.Array:
    """Values of a Box as float32, those of entries with two finite bounds as in [-1, 1]."""
    bounded = (space.low > -HUGE) & (space.high < HUGE) & (space.high > space.low)
    low, high = np.where(bounded, space.low, -1.0), np.where(bounded, space.high, 1.0)
    middle, half = np.float32((low + high) / 2), np.float32((high - low) / 2)
    return (x.astype(jnp.float32) - middle) / half


def in_unit(space: Box, x: jax.Array) -> jax.Array:
    """Values of a Box as float32; images and bytes from between their bounds to [0, 1]."""
    x = x.astype(jnp.float32)
    if not spaces.has_pixels(space):
        return x
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    span = np.where(high > low, high - low, np.float32(1))
    if np.ptp(low) == 0 and np.ptp(span) == 0:  # one number, not one for each pixel
        low, span = low.flat[0], span.flat[0]
        x = x if low == 0 else x - low
        return x if span == 1 else x / span
    return (x - low) / span

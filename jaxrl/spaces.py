"""Spaces: what an observation or an action may be."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.text import Text


@dataclass(frozen=True)
class Discrete:
    """The integers 0 .. n-1, as int32 []."""

    n: int

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"Discrete n={self.n} must be at least 1; try 2.")

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    @property
    def low(self) -> np.ndarray:
        return np.zeros((), np.int32)

    @property
    def high(self) -> np.ndarray:
        return np.asarray(self.n - 1, np.int32)

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (), 0, self.n, jnp.int32)

    def contains(self, value: Any) -> jax.Array:
        """bool []: an integer of shape [] in 0 .. n-1."""
        value = jnp.asarray(value)
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.integer):
            return jnp.asarray(False)
        return (value >= 0) & (value < self.n)


@dataclass(frozen=True)
class MultiDiscrete:
    """A vector of integers, entry i in 0 .. nvec[i]-1, as int32 [len(nvec)]."""

    nvec: tuple[int, ...]

    def __post_init__(self):
        if not self.nvec or min(self.nvec) < 1:
            raise ValueError(f"MultiDiscrete nvec={self.nvec} must be sizes >= 1; try (2, 3).")

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    @property
    def low(self) -> np.ndarray:
        return np.zeros(self.shape, np.int32)

    @property
    def high(self) -> np.ndarray:
        return np.asarray(self.nvec, np.int32) - 1

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, self.shape, 0, jnp.asarray(self.nvec), jnp.int32)

    def contains(self, value: Any) -> jax.Array:
        """bool []: integers of the right shape, each in its range."""
        value = jnp.asarray(value)
        if value.shape != self.shape or not jnp.issubdtype(value.dtype, jnp.integer):
            return jnp.asarray(False)
        return jnp.all((value >= 0) & (value < jnp.asarray(self.nvec)))


@dataclass(frozen=True, eq=False)
class Box:
    """Arrays between `low` and `high` (inclusive; scalars or arrays that broadcast to `shape`)."""

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = np.float32

    def __post_init__(self):
        low, high = (np.broadcast_to(np.asarray(b), self.shape) for b in (self.low, self.high))
        if not np.all(low <= high):
            raise ValueError(f"Box low={self.low} must not exceed high={self.high}.")
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        object.__setattr__(self, "low", low.astype(self.dtype))
        object.__setattr__(self, "high", high.astype(self.dtype))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Box)
            and (self.shape, self.dtype) == (other.shape, other.dtype)
            and np.array_equal(self.low, other.low)
            and np.array_equal(self.high, other.high)
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype, self.low.tobytes(), self.high.tobytes()))

    @property
    def bounded(self) -> bool:
        """Whether every entry has a finite lower and upper bound."""
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    def sample(self, key: jax.Array) -> jax.Array:
        """Uniform between finite bounds; standard normal where a float bound is infinite."""
        if self.dtype == np.bool_:
            return jax.random.bernoulli(key, 0.5, self.shape) & self.high | self.low
        if np.issubdtype(self.dtype, np.integer):
            wide = np.int32 if self.dtype.itemsize < 4 else self.dtype
            low, high = self.low.astype(wide), self.high.astype(wide)
            # high + 1 would wrap where high is the dtype's largest: draw one lower, add it back.
            # (Of the whole range of a 32-bit dtype the smallest is then never drawn.)
            top = (high == np.iinfo(wide).max).astype(wide)
            low = np.maximum(low, np.iinfo(wide).min + top)
            value = jax.random.randint(key, self.shape, low - top, high - top + 1, wide) + top
            return value.astype(self.dtype)
        uniform_key, normal_key = jax.random.split(key)
        finite = np.isfinite(self.low) & np.isfinite(self.high)
        low, high = np.where(finite, self.low, 0), np.where(finite, self.high, 0)
        uniform = low + (high - low) * jax.random.uniform(uniform_key, self.shape, self.dtype)
        normal = jax.random.normal(normal_key, self.shape, self.dtype)
        return jnp.where(finite, uniform, jnp.clip(normal, self.low, self.high))

    def contains(self, value: Any) -> jax.Array:
        """bool []: the right shape and kind of dtype, no NaN, within the bounds."""
        value = jnp.asarray(value)
        if value.shape != self.shape or not np.can_cast(value.dtype, self.dtype, "same_kind"):
            return jnp.asarray(False)
        return jnp.all((value >= self.low) & (value <= self.high))


@dataclass(frozen=True)
class TextSpace:
    """Texts of at most `capacity` bytes (`jaxrl.text.Text`)."""

    capacity: int

    def __post_init__(self):
        if self.capacity < 1:
            raise ValueError(f"TextSpace capacity={self.capacity} must be at least 1; try 64.")

    def sample(self, key: jax.Array) -> Text:
        """Printable ASCII of any length, 0 and the capacity among them."""
        length_key, byte_key = jax.random.split(key)
        length = jax.random.randint(length_key, (), 0, self.capacity + 1, jnp.int32)
        letter = jax.random.randint(byte_key, (self.capacity,), 32, 127, jnp.int32)
        inside = jnp.arange(self.capacity) < length
        return Text(jnp.where(inside, letter, 0).astype(jnp.uint8), length, jnp.asarray(False))

    def contains(self, value: Any) -> jax.Array:
        """bool []: a Text of this capacity, 0 beyond its length, of which nothing was lost."""
        if not isinstance(value, Text) or value.bytes.shape != (self.capacity,):
            return jnp.asarray(False)
        if value.bytes.dtype != jnp.uint8 or value.length.dtype != jnp.int32:
            return jnp.asarray(False)
        beyond = jnp.arange(self.capacity) >= value.length
        clean = jnp.all(jnp.where(beyond, value.bytes == 0, True))
        return clean & (value.length >= 0) & (value.length <= self.capacity) & ~value.cut


Space = Any  # a Discrete, MultiDiscrete, Box or TextSpace, or a dict, tuple or list of them


def is_space(leaf: Any) -> bool:
    return isinstance(leaf, Discrete | MultiDiscrete | Box | TextSpace)


def by_leaf(space: Space) -> Space:
    """The space with a Box for each array of its values: a TextSpace becomes a Text of Boxes."""

    def boxes(leaf):
        if not isinstance(leaf, TextSpace):
            return leaf
        size = leaf.capacity
        byte, length = Box(0, 255, (size,), np.uint8), Box(0, size, (), np.int32)
        parts: Any = (byte, length, Box(False, False, (), np.bool_))
        return Text(*parts)

    return jax.tree.map(boxes, space, is_leaf=is_space)


def sample(space: Space, key: jax.Array) -> Any:
    """One value of a space or of a pytree of spaces; every leaf has a key of its own."""
    leaves, treedef = jax.tree.flatten(space, is_leaf=is_space)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten([leaf.sample(k) for leaf, k in zip(leaves, keys, strict=True)])


def contains(space: Space, value: Any) -> jax.Array:
    """bool []: every leaf of `value` lies in its space, and the structures agree."""
    leaves, treedef = jax.tree.flatten(space, is_leaf=is_space)
    try:
        values = treedef.flatten_up_to(value)
    except ValueError:
        return jnp.asarray(False)
    inside = [s.contains(v) for s, v in zip(leaves, values, strict=True)]
    return jnp.all(jnp.stack(inside))


def to_json(space: Space) -> Any:
    """A description that `from_json` reads back; written next to saved policies."""
    if isinstance(space, Discrete):
        return {"type": "Discrete", "n": space.n}
    if isinstance(space, MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": list(space.nvec)}
    if isinstance(space, Box):
        bounds = {k: getattr(space, k).astype(float).ravel().tolist() for k in ("low", "high")}
        bounds = {k: v[0] if v and len(set(v)) == 1 else v for k, v in bounds.items()}
        return {"type": "Box", "shape": list(space.shape), "dtype": space.dtype.name, **bounds}
    if isinstance(space, TextSpace):
        return {"type": "TextSpace", "capacity": space.capacity}
    if isinstance(space, dict):
        return {"type": "dict", "items": {k: to_json(v) for k, v in space.items()}}
    if isinstance(space, tuple | list):
        return {"type": "tuple", "items": [to_json(v) for v in space]}
    raise ValueError(
        f"{space!r} is not a space; use Discrete, MultiDiscrete, Box or a dict of them."
    )


def from_json(data: Any) -> Space:
    """The space that `to_json` described."""
    kind = data["type"]
    if kind == "Discrete":
        return Discrete(data["n"])
    if kind == "MultiDiscrete":
        return MultiDiscrete(tuple(data["nvec"]))
    if kind == "Box":
        shape = tuple(data["shape"])
        low, high = (
            np.broadcast_to(np.asarray(data[k]).reshape(-1), (int(np.prod(shape)),))
            for k in ("low", "high")
        )
        return Box(low.reshape(shape), high.reshape(shape), shape, np.dtype(data["dtype"]))
    if kind == "TextSpace":
        return TextSpace(data["capacity"])
    if kind == "dict":
        return {k: from_json(v) for k, v in data["items"].items()}
    return tuple(from_json(v) for v in data["items"])

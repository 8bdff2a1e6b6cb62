"""Spaces: what an observation or an action may be."""

import math
import operator
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, make_dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import files
from jaxrl.config import is_known
from jaxrl.text.text import Text

LEGAL = "legal"  # the entry of a dict of observations that masks actions, 1 = may be taken


def _integers(name: str, values: Iterable[Any]) -> tuple[int, ...]:
    """Python's integers, of NumPy's too; ValueError for anything else, and for what no int32 is."""
    try:
        found = tuple(int(operator.index(value)) for value in values)
    except TypeError:
        raise ValueError(f"{name}={values!r} must be integers; try (2, 3).") from None
    if max(found, default=0) >= 2**31:
        raise ValueError(f"{name}={values!r} must be below 2^31; try (2, 3).")
    return found


@dataclass(frozen=True)
class Discrete:
    """The integers 0 .. n-1, as int32 []."""

    n: int

    def __post_init__(self):
        object.__setattr__(self, "n", _integers("Discrete n", (self.n,))[0])
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
        object.__setattr__(self, "nvec", _integers("MultiDiscrete nvec", self.nvec))
        if min(self.nvec, default=0) < 1:
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
        return jax.random.randint(key, self.shape, 0, np.asarray(self.nvec, np.int32), jnp.int32)

    def contains(self, value: Any) -> jax.Array:
        """bool []: integers of the right shape, each in its range."""
        value = jnp.asarray(value)
        if value.shape != self.shape or not jnp.issubdtype(value.dtype, jnp.integer):
            return jnp.asarray(False)
        return jnp.all((value >= 0) & (value < np.asarray(self.nvec, np.int32)))


@dataclass(frozen=True, eq=False, repr=False)
class Box:
    """Arrays between `low` and `high` (inclusive; scalars or arrays that broadcast to `shape`).

    A bound may be infinite where the dtype is a float; in each entry there is a number between.
    """

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = np.float32

    def __post_init__(self):
        shape, dtype = _integers("Box shape", self.shape), np.dtype(self.dtype)
        if any(isinstance(b, jax.Array) and not is_known(b) for b in (self.low, self.high)):
            raise ValueError(
                "Box low and high must be numbers or arrays of NumPy; try np.zeros(2)."
            )
        low, high = (np.broadcast_to(np.asarray(b), shape) for b in (self.low, self.high))
        if not np.all(low <= high):
            raise ValueError(f"Box low={self.low} must not exceed high={self.high}.")
        with np.errstate(over="ignore", invalid="ignore"):  # refused or meant as infinite
            typed_low, typed_high = low.astype(dtype), high.astype(dtype)
        exact = dtype == np.bool_ or np.issubdtype(dtype, np.integer)
        if exact and not (np.all(typed_low == low) and np.all(typed_high == high)):
            raise ValueError(f"Box low={self.low}, high={self.high} are no bounds of {dtype.name}.")
        if np.any(typed_low == np.inf) or np.any(typed_high == -np.inf):
            raise ValueError(f"Box low={self.low}, high={self.high} leave no number between them.")
        for name, value in zip(
            ("shape", "dtype", "low", "high"), (shape, dtype, typed_low, typed_high), strict=True
        ):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """On one line, however large; bounds that differ by entry as their range."""
        low, high = (_range(bound) for bound in (self.low, self.high))
        return f"Box({low}, {high}, {self.shape}, {self.dtype.name})"

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
        """Uniform between finite bounds, exponential from the only one, else standard normal."""
        dtype = jax.dtypes.canonicalize_dtype(self.dtype)
        if dtype == np.bool_:
            return jax.random.bernoulli(key, np.float32(0.5), self.shape) & self.high | self.low
        if np.issubdtype(dtype, np.integer):
            return self._sample_integers(key, np.dtype(np.int32) if dtype.itemsize < 4 else dtype)
        uniform_key, tail_key, normal_key = jax.random.split(key, 3)
        below, above = np.isfinite(self.low), np.isfinite(self.high)
        largest = float(jnp.finfo(dtype).max)  # a number: rounding may not lead to infinity
        low, high = (np.clip(bound, -largest, largest) for bound in (self.low, self.high))
        unit = jax.random.uniform(uniform_key, self.shape, jnp.float32)
        tail = jax.random.exponential(tail_key, self.shape, jnp.float32)
        value = jax.random.normal(normal_key, self.shape, jnp.float32)
        value = jnp.where(below, low + tail, jnp.where(above, high - tail, value))
        # Not low + unit * (high - low), whose difference can be too large a number.
        value = jnp.where(below & above, low * (1 - unit) + high * unit, value)
        return jnp.clip(value.astype(dtype), low.astype(dtype), high.astype(dtype))

    def _sample_integers(self, key: jax.Array, wide: np.dtype) -> jax.Array:
        low, high = self.low.astype(wide), self.high.astype(wide)
        # high + 1 would wrap where high is the dtype's largest: draw one lower, add it back.
        # (Of the whole range of a 32-bit dtype the smallest is then never drawn.)
        top = (high == np.iinfo(wide).max).astype(wide)
        low = np.maximum(low, np.iinfo(wide).min + top)
        value = jax.random.randint(key, self.shape, low - top, high - top + 1, wide) + top
        return value.astype(jax.dtypes.canonicalize_dtype(self.dtype))

    def contains(self, value: Any) -> jax.Array:
        """bool []: the right shape and kind of dtype, no NaN, within the bounds."""
        value = jnp.asarray(value)
        if value.shape != self.shape or not np.can_cast(value.dtype, self.dtype, "same_kind"):
            return jnp.asarray(False)
        with np.errstate(over="ignore"):  # bounds beyond a float32 are infinite without x64
            dtype = jax.dtypes.canonicalize_dtype(self.dtype)
            low, high = self.low.astype(dtype), self.high.astype(dtype)
        return jnp.all((value >= low) & (value <= high))


def _range(bound: np.ndarray) -> str:
    """A bound that all entries share, else the smallest and the largest."""
    if not bound.size or np.min(bound) == np.max(bound):
        return str(bound.flat[0]) if bound.size else "none"
    return f"{float(np.min(bound)):.4g}..{float(np.max(bound)):.4g}"


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


def legal_space(space: Space) -> Any:
    """The space of the entry `legal` of a dict of observations; None where there is none."""
    return space.get(LEGAL) if isinstance(space, dict) else None


def features_space(space: Space) -> Space:
    """The space without the mask of legal actions, which is no feature."""
    if legal_space(space) is None:
        return space
    return type(space)((name, part) for name, part in space.items() if name != LEGAL)


def features_of(space: Space, obs: Any) -> list[tuple[Any, jax.Array]]:
    """Each leaf of the space with its part of an observation, in order, without `legal`."""
    if legal_space(space) is not None:
        obs = type(obs)((name, part) for name, part in obs.items() if name != LEGAL)
        space = features_space(space)
    leaves, treedef = jax.tree.flatten(space, is_leaf=is_space)
    return list(zip(leaves, treedef.flatten_up_to(obs), strict=True))


def is_image(space: Any) -> bool:
    """Whether a leaf is [H, W, C]: a Box with three axes, channels last."""
    return isinstance(space, Box) and len(space.shape) == 3


def has_pixels(space: Any) -> bool:
    """Whether a leaf holds an image or bytes with bounds to scale it by (bits need none)."""
    if not isinstance(space, Box) or space.dtype == np.bool_ or not space.low.size:
        return False
    largest = np.maximum(np.abs(space.low.astype(float)), np.abs(space.high.astype(float)))
    return (is_image(space) or space.dtype == np.uint8) and bool(np.all(largest < 2**24))


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
    """A description that `from_json` reads back as an equal space; written next to saved policies.

    ValueError for what cannot be read back.
    """
    if isinstance(space, Discrete):
        return {"type": "Discrete", "n": space.n}
    if isinstance(space, MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": list(space.nvec)}
    if isinstance(space, Box):
        bounds = {k: _bound_to_json(getattr(space, k)) for k in ("low", "high")}
        return {"type": "Box", "shape": list(space.shape), "dtype": space.dtype.name, **bounds}
    if isinstance(space, TextSpace):
        return {"type": "TextSpace", "capacity": space.capacity}
    if type(space) in DICTS.values():
        if not all(type(name) in (str, int) for name in space):
            raise ValueError(f"{space!r} has names that are neither str nor int; use strings.")
        # Pairs, not an object: JSON would turn the names that are numbers into strings.
        items = [[name, to_json(part)] for name, part in space.items()]
        return {"type": type(space).__name__, "items": items}
    if type(space) in SEQUENCES.values():
        return {"type": type(space).__name__, "items": [to_json(part) for part in space]}
    raise ValueError(
        f"{space!r} is not a space; use Discrete, MultiDiscrete, Box, or a dict, tuple or list of "
        "them (a named tuple as a dict)."
    )


DICTS: dict[str, Any] = {"dict": dict, "OrderedDict": OrderedDict}
SEQUENCES: dict[str, Any] = {"tuple": tuple, "list": list}


def _bound_to_json(bound: np.ndarray) -> Any:
    """A number where all entries are equal; floats in full, integers as such."""
    values = bound.astype(float) if jnp.issubdtype(bound.dtype, np.inexact) else bound
    flat = values.ravel().tolist()
    return flat[0] if flat and len(set(flat)) == 1 else flat


SAVED = {
    kind: make_dataclass(kind, [("type", str), *fields.items()])
    for kind, fields in {
        "Discrete": {"n": int},
        "MultiDiscrete": {"nvec": tuple[int, ...]},
        "Box": {"shape": tuple[int, ...], "dtype": str, "low": Any, "high": Any},
        "TextSpace": {"capacity": int},
        **{kind: {"items": list[tuple[str | int, Any]]} for kind in DICTS},
        **{kind: {"items": list[Any]} for kind in SEQUENCES},
    }.items()
}


def from_json(data: Any, where: str = "space") -> Space:
    """The space that `to_json` described; ValueError, which names the field, for what is none."""
    kind = data.get("type") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in SAVED:
        raise ValueError(f"{where}.type={str(kind)[:60]!r} is none of {', '.join(SAVED)}.")
    data = files.as_type(SAVED[kind], data, where)
    if kind == "Discrete":
        return Discrete(data.n)
    if kind == "MultiDiscrete":
        return MultiDiscrete(data.nvec)
    if kind == "Box":
        return _box_from_json(data, where)
    if kind == "TextSpace":
        return TextSpace(data.capacity)
    if kind in DICTS:
        return DICTS[kind]((k, from_json(part, f"{where}.{k}")) for k, part in data.items)
    return SEQUENCES[kind](from_json(x, f"{where}.{i}") for i, x in enumerate(data.items))


def _box_from_json(data: Any, where: str) -> Box:
    count, most = math.prod(data.shape), 2**24
    if min(data.shape, default=0) < 0 or count > most:
        raise ValueError(f"{where}.shape={data.shape} must be sizes, {most} entries at most.")
    try:
        dtype = np.dtype(data.dtype)
    except (TypeError, ValueError):
        dtype = np.dtype(object)
    if dtype != np.bool_ and not any(jnp.issubdtype(dtype, k) for k in (jnp.integer, jnp.floating)):
        raise ValueError(f"{where}.dtype={data.dtype!r} is no dtype of numbers; try 'float32'.")
    bounds = []
    for name, value in (("low", data.low), ("high", data.high)):
        flat = value if isinstance(value, list) else [value]
        if len(flat) not in (1, count) or not all(type(x) in (bool, int, float) for x in flat):
            raise ValueError(f"{where}.{name} must be a number, or a list of {count} numbers.")
        try:
            bounds.append(np.broadcast_to(np.asarray(flat, dtype), (count,)).reshape(data.shape))
        except OverflowError:
            raise ValueError(f"{where}.{name} has numbers beyond {dtype.name}.") from None
    return Box(bounds[0], bounds[1], data.shape, dtype)

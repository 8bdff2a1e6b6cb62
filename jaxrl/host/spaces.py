"""Gymnasium's spaces as ours, and arrays from the one to the other."""

from typing import Any

import numpy as np

from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space

NARROW = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}


def ours(space: Any, what: str, bounds: bool = True) -> Space:
    """Our form of a Gymnasium space; ValueError for one that has none.

    Without `bounds` reals have none: those that are declared are not always kept.
    """
    kind = type(space).__name__
    if kind == "Discrete":
        return Discrete(int(space.n))
    if kind == "MultiDiscrete" and space.nvec.ndim == 1:
        return MultiDiscrete(tuple(int(n) for n in space.nvec))
    if kind == "MultiBinary":
        return Box(False, True, tuple(space.shape), np.bool_)
    if kind == "Dict":
        return {name: ours(part, what, bounds) for name, part in space.spaces.items()}
    if kind == "Tuple":
        return tuple(ours(part, what, bounds) for part in space.spaces)
    if kind == "Box":
        dtype = np.dtype(NARROW.get(space.dtype, space.dtype))
        if not bounds and np.issubdtype(dtype, np.floating):
            return Box(-np.inf, np.inf, tuple(space.shape), dtype)
        return Box(*_narrow(space, dtype), tuple(space.shape), dtype)
    raise ValueError(
        f"{what} {space} has no form here: use Box, Discrete, MultiDiscrete, MultiBinary, or a "
        "Dict or Tuple of them."
    )


def _narrow(space: Any, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Bounds in the dtype; what a float32 cannot hold is infinite, what an int32 cannot is cut."""
    if np.issubdtype(dtype, np.floating):
        most = float(np.finfo(dtype).max)
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        return np.where(low <= -most, -np.inf, low), np.where(high >= most, np.inf, high)
    if dtype == np.bool_:
        return space.low, space.high
    info = np.iinfo(dtype)
    return np.clip(space.low, info.min, info.max), np.clip(space.high, info.min, info.max)


def observed(gym: Any, space: Space, x: Any) -> Any:
    """A batch of observations [N, ...] of a Gymnasium space as one of ours: copied."""
    if isinstance(space, dict):
        return {name: observed(gym.spaces[name], space[name], x[name]) for name in space}
    if isinstance(space, tuple):
        return tuple(observed(*parts) for parts in zip(gym.spaces, space, x, strict=True))
    start = getattr(gym, "start", 0)
    return (np.asarray(x) - start if np.any(start) else np.array(x)).astype(space.dtype, copy=False)


def single(gym: Any, space: Space, x: Any) -> Any:
    """One observation as `step` gives it, in a batch of one."""

    def batch(gym: Any, x: Any) -> Any:
        if isinstance(getattr(gym, "spaces", None), dict):
            return {name: batch(part, x[name]) for name, part in gym.spaces.items()}
        if hasattr(gym, "spaces"):
            return tuple(batch(*parts) for parts in zip(gym.spaces, x, strict=True))
        return np.asarray(x)[None]

    return observed(gym, space, batch(gym, x))


def starts(gym: Any) -> bool:
    """Whether choices of the space, or of a part of it, do not count from 0."""
    parts = getattr(gym, "spaces", None)
    if parts is not None:
        return any(starts(part) for part in (parts.values() if hasattr(parts, "values") else parts))
    return bool(np.any(getattr(gym, "start", 0)))


def acted(gym: Any, action: np.ndarray) -> Any:
    """A batch of our actions [N, ...] as Gymnasium's space takes it."""
    return (action + getattr(gym, "start", 0)).astype(gym.dtype, copy=False)


def outside(space: Space, x: Any, path: str = "") -> str | None:
    """Which part of a batch of observations [N, ...] does not lie in the space, in words."""
    if isinstance(space, dict | tuple):
        items = space.items() if isinstance(space, dict) else enumerate(space)
        parts = (outside(part, x[name], f"{path}[{name!r}]") for name, part in items)
        return next((part for part in parts if part), None)
    if x.shape[1:] != space.shape:
        return (
            f"observation{path} has the shape {x.shape[1:]}, not {space.shape} as its space; give "
            "both the same."
        )
    if np.issubdtype(space.dtype, np.inexact) and not np.isfinite(x).all():
        odd = x[~np.isfinite(x)][0]
        return f"observation{path} holds {odd}; what an environment shows must be finite."
    if isinstance(space, Box) and _all_values(space):
        return None
    low, high = (np.broadcast_to(bound, x.shape) for bound in (space.low, space.high))
    bad = np.argwhere((x < low) | (x > high))
    if not len(bad):
        return None
    at = tuple(bad[0])
    entry = ", ".join(str(i) for i in at[1:])
    return (
        f"observation{path}[{entry}] is {x[at]}, outside of {low[at]} to {high[at]}; declare a "
        "space that holds what the environment shows, infinite bounds for example."
    )


def _all_values(space: Box) -> bool:
    """Whether every number of the dtype lies in it."""
    if space.dtype == np.bool_:
        return True
    if np.issubdtype(space.dtype, np.floating):
        return bool(np.all(space.low == -np.inf) and np.all(space.high == np.inf))
    info = np.iinfo(space.dtype)
    return bool(np.all(space.low == info.min) and np.all(space.high == info.max))

"""Spaces of ours as Gymnasium's, and values both ways."""

from typing import Any

import gymnasium
import numpy as np

from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, TextSpace, is_space
from jaxrl.text import Text


class Utf8(gymnasium.spaces.Text):
    """Strings of at most `max_length` bytes in UTF-8, of any characters; samples are ASCII."""

    def __init__(self, max_length: int):
        super().__init__(max_length, min_length=0, charset="".join(map(chr, range(32, 127))))

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x.encode()) <= self.max_length

    def __repr__(self) -> str:
        return f"Utf8({self.max_length})"


def to_gymnasium(space: Space) -> gymnasium.Space:
    """The same space in Gymnasium's terms; a list is a Tuple there."""
    if isinstance(space, Discrete):
        return gymnasium.spaces.Discrete(space.n)
    if isinstance(space, MultiDiscrete):
        return gymnasium.spaces.MultiDiscrete(list(space.nvec))
    if isinstance(space, Box):
        return gymnasium.spaces.Box(space.low, space.high, space.shape, space.dtype.type)
    if isinstance(space, TextSpace):
        return Utf8(space.capacity)
    if isinstance(space, dict):
        return gymnasium.spaces.Dict({name: to_gymnasium(part) for name, part in space.items()})
    return gymnasium.spaces.Tuple([to_gymnasium(part) for part in space])


def to_numpy(space: Space, value: Any) -> Any:
    """A value of ours, or a batch of them, as Gymnasium has it: new arrays, integers as int64."""
    if isinstance(space, Discrete | MultiDiscrete):
        return np.array(value, np.int64)[()]  # a number where there is no axis
    if isinstance(space, Box):
        return np.array(value)
    if isinstance(space, TextSpace):
        return _strings(np.asarray(value.bytes), np.asarray(value.length))
    if isinstance(space, dict):
        return {name: to_numpy(part, value[name]) for name, part in space.items()}
    return tuple(to_numpy(part, x) for part, x in zip(space, value, strict=True))


def apart(space: Space, batch: Any) -> list[Any]:
    """The values of a batch that `to_numpy` gave."""
    if isinstance(space, Box):
        return [batch[i, ...] for i in range(len(batch))]  # arrays, those without an axis too
    if is_space(space):
        return list(batch)
    if isinstance(space, dict):
        rows = zip(*(apart(part, batch[name]) for name, part in space.items()), strict=True)
        return [dict(zip(space, row, strict=True)) for row in rows]
    return list(zip(*(apart(part, x) for part, x in zip(space, batch, strict=True)), strict=True))


def _strings(data: np.ndarray, length: np.ndarray) -> Any:
    if data.ndim > 1:
        return tuple(_strings(row, n) for row, n in zip(data, length, strict=True))
    return data[: int(length)].tobytes().decode("utf-8", errors="replace")


def from_numpy(space: Space, value: Any, batch: tuple[int, ...] = ()) -> Any:
    """An action as our environments take it; ValueError for a wrong shape or integer.

    Reals beyond their bounds pass: what they mean is up to the rules.
    """
    if isinstance(space, TextSpace):
        return _text(space.capacity, value, batch)
    if isinstance(space, dict):
        return {name: from_numpy(part, value[name], batch) for name, part in space.items()}
    if isinstance(space, tuple | list):
        parts = zip(space, value, strict=True)
        return type(space)(from_numpy(part, x, batch) for part, x in parts)
    x = np.asarray(value)
    shape = batch + space.shape
    if x.shape != shape:
        raise ValueError(f"action has shape {x.shape} and must have {shape}; try {np.zeros(shape)}")
    if isinstance(space, Discrete | MultiDiscrete):
        most = space.n - 1 if isinstance(space, Discrete) else space.high
        if x.dtype.kind not in "iu" or not np.all((x >= 0) & (x <= most)):
            raise ValueError(f"action={_brief(x)} must be integers of {space}; try {space.low}.")
    return x.astype(space.dtype)


def _brief(x: np.ndarray) -> str:
    return " ".join(np.array2string(x, threshold=8).split())


def _text(capacity: int, value: Any, batch: tuple[int, ...]) -> Text:
    """Of one string or of a batch; what does not fit is lost, which `cut` says."""
    texts = [value] if not batch else list(value)
    if len(texts) != int(np.prod(batch)) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"action={value!r:.60} must be {batch or 'one'} str; try '1'.")
    said = [text.encode("utf-8", errors="replace") for text in texts]
    data = np.zeros((len(said), capacity), np.uint8)
    for row, raw in zip(data, said, strict=True):
        row[: len(raw)] = np.frombuffer(raw[:capacity], np.uint8)
    size = np.array([len(raw) for raw in said], np.int32)
    parts: Any = data, np.minimum(size, capacity), size > capacity
    return Text(*parts) if batch else Text(*(part[0] for part in parts))

"""Values of spaces as a person reads and gives them: texts, Python, JSON, pictures."""

import base64
import io
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, TextSpace, is_space
from jaxrl.text import Text, literal, to_str
from jaxrl.text.chat import short

MOST_ROWS = 64  # numbers of an observation that are listed one by one
MOST_LETTERS = 300  # of a text in the log
MOST_CHOICES = 1000  # of a Discrete space, which the page can offer
CHANNELS = np.array(  # Okabe and Ito's palette, which the colour-blind tell apart
    [
        (0, 114, 178),
        (230, 159, 0),
        (0, 158, 115),
        (213, 94, 0),
        (204, 121, 167),
        (86, 180, 233),
        (240, 228, 66),
        (138, 140, 145),
    ],
    np.uint8,
)
EMPTY = np.array((35, 38, 45), np.uint8)


def brief(value: Any) -> str:
    """An observation in a line."""
    if isinstance(value, Text):
        return short(to_str(value), MOST_LETTERS)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {brief(part)}" for name, part in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(brief, value)) + ")"
    x = np.asarray(value)
    if x.size > MOST_ROWS:
        return f"{x.dtype.name}{list(x.shape)}"
    return " ".join(np.array2string(x, precision=4, suppress_small=True, threshold=12).split())


def literal_of(space: Space, value: Any) -> str:
    """A value in Python, as Gymnasium's `step` takes it."""
    if isinstance(space, TextSpace):
        return repr(to_str(value))
    if isinstance(space, dict):
        parts = (f"{name!r}: {literal_of(part, value[name])}" for name, part in space.items())
        return "{" + ", ".join(parts) + "}"
    if isinstance(space, tuple | list):
        parts = (literal_of(part, x) for part, x in zip(space, value, strict=True))
        return f"({', '.join(parts)},)"
    x = np.asarray(value)
    if isinstance(space, Discrete):
        return str(int(x))
    words = np.array2string(x, separator=", ", threshold=x.size + 1, floatmode="unique")
    return f"np.array({' '.join(words.split())}, np.{x.dtype.name})"


def rows(space: Space, value: Any, name: str = "") -> list[tuple[str, str]]:
    """(name, number) of an observation, where these are few; texts and pictures have none."""
    if isinstance(space, dict):
        parts = [(f"{name}.{k}" if name else k, space[k], value[k]) for k in space]
    elif isinstance(space, tuple | list):
        parts = [(f"{name}[{i}]", *x) for i, x in enumerate(zip(space, value, strict=True))]
    else:
        x = np.asarray(jax.tree.leaves(value)[0])
        if isinstance(space, TextSpace) or x.size > MOST_ROWS:
            return []
        numbers = [f"{number:.4g}" for number in x.ravel().tolist()]
        places = [f"[{', '.join(map(str, i))}]" if i else "" for i in np.ndindex(x.shape)]
        name = name or "obs"
        return [(name + place, number) for place, number in zip(places, numbers, strict=True)]
    return [row for part in parts for row in rows(part[1], part[2], part[0])]


def given(space: Space, value: Any) -> Any:
    """The action that JSON says; ValueError for one that does not lie in the space."""
    if isinstance(space, TextSpace):
        return _said(space, value)
    if not isinstance(space, Discrete | MultiDiscrete | Box):
        raise ValueError(f"actions of {space} cannot be given by hand; let another player drive.")
    try:
        x = np.asarray(value)
    except ValueError:  # lists of different lengths
        x = np.asarray("")
    kinds = "iuf" if space.dtype.kind == "f" else "iu"
    if x.dtype.kind not in kinds or x.shape != space.shape:
        raise ValueError(f"action={value!r:.60} must be of {space}; try {_example(space)}.")
    with np.errstate(over="ignore"):
        inside = np.all((x >= space.low) & (x <= space.high))
    if not inside:
        raise ValueError(f"action={value!r:.60} lies outside of {space}; try {_example(space)}.")
    return x.astype(space.dtype)


def _example(space: Any) -> Any:
    return np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype).tolist()


def _said(space: TextSpace, value: Any) -> Text:
    if not isinstance(value, str):
        raise ValueError(f"action={value!r:.60} must be a text; try '1'.")
    size = len(value.encode())
    if size > space.capacity:
        raise ValueError(f"a move has at most {space.capacity} bytes, this has {size}; shorten it.")
    return literal(value, space.capacity)


def inputs(space: Space, names: tuple[str, ...]) -> dict[str, Any]:
    """What the page needs to let a person give an action."""
    if isinstance(space, Discrete):
        if space.n > MOST_CHOICES:
            return {"kind": "number", "most": space.n - 1}
        return {"kind": "choice", "names": list(names) or [""] * space.n}
    if isinstance(space, TextSpace):
        return {"kind": "text", "bytes": space.capacity}
    if isinstance(space, MultiDiscrete | Box) and len(space.shape) == 1 and space.low.size <= 64:
        whole = space.dtype.kind != "f"
        bounds = {
            name: [float(b) if np.isfinite(b) else None for b in getattr(space, name)]
            for name in ("low", "high")
        }
        return {"kind": "vector", "whole": whole} | bounds
    return {"kind": "none", "space": str(space)}


def drawn(space: Space, value: Any) -> np.ndarray | None:
    """An observation as a small picture, a cell a pixel; None for one that is no picture."""
    if isinstance(space, dict):
        parts = (drawn(space[name], value[name]) for name in space)
        return next((part for part in parts if part is not None), None)
    if not (is_space(space) and isinstance(space, Box) and len(space.shape) in (2, 3)):
        return None
    x = np.asarray(value)
    if x.dtype == np.uint8 and x.ndim == 3 and x.shape[-1] == 3:
        return x
    if x.ndim == 2 or x.shape[-1] == 1:
        x = x.reshape(x.shape[:2]).astype(float)
        span = max(float(np.ptp(x)), 1e-9)
        grey = (255 * (x - x.min()) / span).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)
    colours = CHANNELS[np.argmax(x, -1) % len(CHANNELS)]
    return np.where(np.any(x, -1, keepdims=True), colours, EMPTY)


def png(pixels: np.ndarray) -> str:
    """uint8 [H, W, 3] as an address that an <img> takes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()

"""What a distribution draws and what an environment takes: one mapping, for training and play."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space

Scaling = Literal["none", "clip", "rescale", "tanh"]


def scaling(space: Space, squash: bool = False) -> Scaling:
    """How what is drawn becomes an action of the space, entry by entry.

    "none": choices, and reals without bounds, stay as they are. "rescale": [-1, 1] (clipped) onto
    two finite bounds; an entry with a single one is clipped to it. "clip": no entry has two.
    "tanh", with `squash`: all reals onto (-1, 1) and from there onto two finite bounds.
    ValueError for a space that has no distribution, or that cannot be squashed.
    """
    real = isinstance(space, Box) and jnp.issubdtype(space.dtype, jnp.floating)
    if real and np.prod(space.shape, dtype=int) > 0:
        if squash and not space.bounded:
            raise ValueError(
                f"squash=True needs actions with finite bounds, not {space}; leave it out."
            )
        below, above = np.isfinite(space.low), np.isfinite(space.high)
        if squash:
            return "tanh"
        if np.any(below & above):
            return "rescale"
        return "clip" if np.any(below | above) else "none"
    if not isinstance(space, Discrete | MultiDiscrete):
        raise ValueError(
            f"no distribution for the action space {space}: use Discrete, MultiDiscrete or a float "
            "Box."
        )
    if squash:
        raise ValueError(f"squash=True needs a Box of actions, not {space}; leave it out.")
    return "none"


def drawn_space(space: Space, scaling: Scaling) -> Space:
    """The space of what is drawn: choices as they are, reals as a float32 vector [A].

    Where its bounds are finite, what lies outside is clipped to them.
    """
    if not isinstance(space, Box):
        return space
    low, high = (bound.astype(np.float32).ravel() for bound in (space.low, space.high))
    if scaling == "tanh":
        low, high = -np.inf, np.inf
    elif scaling == "rescale":
        both = np.isfinite(low) & np.isfinite(high)
        low, high = np.where(both, -1.0, low), np.where(both, 1.0, high)
    return Box(low, high, (int(np.prod(space.shape, dtype=int)),))


def to_env(action: jax.Array, space: Space, scaling: Scaling) -> jax.Array:
    """Actions as drawn [..., A] as actions [..., *space.shape], always inside the space."""
    if not isinstance(space, Box):
        return action
    dtype = jax.dtypes.canonicalize_dtype(space.dtype)
    action = action.reshape(*action.shape[:-1], *space.shape)
    if scaling == "none":
        return action.astype(dtype)
    low, high = space.low, space.high
    if scaling == "tanh":
        action = _onto(jnp.tanh(action), low, high)
    elif scaling == "rescale":
        both = np.isfinite(low) & np.isfinite(high)
        finite = np.where(both, low, 0), np.where(both, high, 0)
        action = jnp.where(both, _onto(jnp.clip(action, -1.0, 1.0), *finite), action)
    return jnp.clip(action.astype(dtype), low, high)  # last, for what rounding leads outside


def _onto(unit: jax.Array, low: Any, high: Any) -> jax.Array:
    """[-1, 1] onto [low, high], linearly; their difference may be too large for a float."""
    share = (unit + 1.0) / 2.0
    return low * (1.0 - share) + high * share

"""Pictures of many states at once, by the environment's own `render` or its suite's renderer."""

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl.env import Environment, Wrapper

PIECE = 32  # pictures that are drawn side by side


def frames(env: Environment, states: Any) -> list[np.ndarray]:
    """A picture, uint8 [H, W, 3], of each of these states [N, ...].

    Environments of a suite that draws on the host have `frames(states)` themselves, others a
    `render` that is compiled. ValueError, or an ImportError of what is missing, where there is
    neither.
    """
    while isinstance(env, Wrapper):
        env, states = env.env, env.inside(states)
    own = getattr(env, "frames", None)
    if own is not None:
        return own(states)
    count = jax.tree.leaves(states)[0].shape[0]
    draw = jax.jit(partial(jax.vmap(_render, (None, 0)), env))
    found: list[np.ndarray] = []
    for first in range(0, count, PIECE):
        index = np.minimum(first + np.arange(PIECE), count - 1)  # of one size: compiled once
        piece = jax.tree.map(lambda x: x[index], states)  # noqa: B023
        found += list(np.asarray(draw(piece)))
    return found[:count]


def _render(env: Environment, state: Any) -> jax.Array:
    return env.render(state)

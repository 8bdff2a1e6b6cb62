"""Pictures of many states at once, by the environment's own `render` or its suite's renderer."""

from collections.abc import Callable, Iterator
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
    inner, of_inner = bare(env, states)
    if hasattr(inner, "frames"):
        return inner.frames(of_inner)  # pyright: ignore
    return list(in_pieces(jax.jit(partial(jax.vmap(drawn, (None, 0)), env)), states))


def bare(env: Environment, states: Any) -> tuple[Environment, Any]:
    """The environment inside of all wrappers, and its states."""
    while isinstance(env, Wrapper):
        env, states = env.of_state(states), env.inside(states)
    return env, states


def in_pieces(draw: Callable[[Any], Any], states: Any) -> Iterator[np.ndarray]:
    """draw(states [PIECE, ...]) of all of them [N, ...], one picture after the other."""
    count = jax.tree.leaves(states)[0].shape[0]
    for first in range(0, count, PIECE):
        index = np.minimum(first + np.arange(PIECE), count - 1)  # of one size: compiled once
        piece = draw(jax.tree.map(lambda x: x[index], states))  # noqa: B023
        yield from np.asarray(piece)[: count - first]


def drawn(env: Environment, state: Any) -> jax.Array:
    """The picture of one state by the environment inside of all wrappers."""
    env, state = bare(env, state)
    return env.render(state)

"""Wrappers of one environment: time limit, episode statistics, frames and actions.

The supported order, inside out: the environment, what changes its observations and actions,
`TimeLimit`, `EpisodeStats`. Nothing resets itself: see `jaxrl.resets`.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import actions, frames, spaces
from jaxrl.env import TimeStep, Wrapper, static
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space


def tree_where(condition: jax.Array, on_true: Any, on_false: Any) -> Any:
    """Leafwise `jnp.where` with a condition of shape []."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), on_true, on_false)


class TimeLimitState(flax.struct.PyTreeNode):
    inner: Any
    t: jax.Array  # int32 []: steps taken in this episode


class TimeLimit(Wrapper):
    """Sets `truncated` on step `max_steps` of an episode and leaves `terminated` alone."""

    max_steps: int = 1000

    def reset(self, key: jax.Array) -> tuple[TimeLimitState, TimeStep]:
        inner, ts = self.env.reset(key)
        return TimeLimitState(inner, jnp.zeros((), jnp.int32)), ts

    def step(
        self, state: TimeLimitState, action: Any, key: jax.Array
    ) -> tuple[TimeLimitState, TimeStep]:
        inner, ts = self.env.step(state.inner, action, key)
        t = state.t + 1
        return TimeLimitState(inner, t), ts.replace(truncated=ts.truncated | (t >= self.max_steps))

    def inside(self, state: TimeLimitState) -> Any:
        return state.inner


class EpisodeStatsState(flax.struct.PyTreeNode):
    inner: Any
    episode_return: jax.Array  # float32 []: undiscounted sum of rewards so far
    episode_length: jax.Array  # int32 []


class EpisodeStats(Wrapper):
    """Adds `episode_return` and `episode_length` to the metrics: of the episode up to this step."""

    def reset(self, key: jax.Array) -> tuple[EpisodeStatsState, TimeStep]:
        inner, ts = self.env.reset(key)
        state = EpisodeStatsState(inner, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
        return state, self._report(state, ts)

    def step(
        self, state: EpisodeStatsState, action: Any, key: jax.Array
    ) -> tuple[EpisodeStatsState, TimeStep]:
        inner, ts = self.env.step(state.inner, action, key)
        state = EpisodeStatsState(inner, state.episode_return + ts.reward, state.episode_length + 1)
        return state, self._report(state, ts)

    def inside(self, state: EpisodeStatsState) -> Any:
        return state.inner

    def render(self, state: EpisodeStatsState) -> jax.Array:
        """The environment's picture under a line with the steps and the return so far."""
        picture = self.env.render(state.inner)
        return frames.headed(
            picture, {"step": (state.episode_length, 0), "return": (state.episode_return, 2)}
        )

    @staticmethod
    def _report(state: EpisodeStatsState, ts: TimeStep) -> TimeStep:
        own = {
            "episode_return": state.episode_return,
            "episode_length": state.episode_length.astype(jnp.float32),
        }
        if taken := own.keys() & ts.metrics.keys():
            raise ValueError(f"metric {min(taken)!r} is EpisodeStats' own; give it another name.")
        return ts.replace(metrics=ts.metrics | own)


class FrameStackState(flax.struct.PyTreeNode):
    inner: Any
    frames: Any  # the observation shown last


class FrameStack(Wrapper):
    """The last `num_frames` observations, oldest first, leaf by leaf.

    Images [H, W, C] are stacked in their channels, [H, W, C * num_frames]; other leaves along a new
    first axis. A mask of legal actions is shown as it is. An episode starts with its first
    observation repeated.
    """

    num_frames: int = static(4)

    def __post_init__(self):
        if self.num_frames < 1:
            raise ValueError(f"num_frames={self.num_frames} must be at least 1; try 4.")
        leaves = jax.tree.leaves(self.env.observation_space, is_leaf=spaces.is_space)
        if not all(isinstance(leaf, Box | Discrete) for leaf in leaves):
            raise ValueError(
                "FrameStack needs observations of Boxes and Discrete, not "
                f"{self.env.observation_space}."
            )

    @property
    def observation_space(self) -> Space:
        return self._by_leaf(self._stacked_space, self.env.observation_space)

    def reset(self, key: jax.Array) -> tuple[FrameStackState, TimeStep]:
        inner, ts = self.env.reset(key)

        def repeat(space, x):
            if spaces.is_image(space):
                return jnp.tile(x, (1, 1, self.num_frames))
            return jnp.repeat(x[None], self.num_frames, 0)

        frames = self._by_leaf(repeat, ts.obs)
        return FrameStackState(inner, frames), ts.replace(obs=frames, final_obs=frames)

    def step(
        self, state: FrameStackState, action: Any, key: jax.Array
    ) -> tuple[FrameStackState, TimeStep]:
        inner, ts = self.env.step(state.inner, action, key)

        def push(space, frames, x):
            if spaces.is_image(space):
                return jnp.concatenate([frames[..., space.shape[-1] :], x], -1)
            return jnp.concatenate([frames[1:], x[None]])

        frames = self._by_leaf(push, state.frames, ts.obs)
        return FrameStackState(inner, frames), ts.replace(obs=frames, final_obs=frames)

    def inside(self, state: FrameStackState) -> Any:
        return state.inner

    def _stacked_space(self, space: Any, _: Any) -> Space:
        n = self.num_frames
        if isinstance(space, Discrete):
            return MultiDiscrete((space.n,) * n)
        if spaces.is_image(space):
            low, high = (np.tile(bound, (1, 1, n)) for bound in (space.low, space.high))
        else:
            low, high = (np.repeat(bound[None], n, 0) for bound in (space.low, space.high))
        return Box(low, high, low.shape, space.dtype)

    def _by_leaf(self, f: Callable, *trees: Any) -> Any:
        """f(space, *parts) for every leaf but the mask of legal actions, the last tree's there."""
        space = self.env.observation_space
        if spaces.legal_space(space) is None:
            return jax.tree.map(f, space, *trees, is_leaf=spaces.is_space)
        parts = {
            name: jax.tree.map(f, part, *(tree[name] for tree in trees), is_leaf=spaces.is_space)
            for name, part in space.items()
            if name != spaces.LEGAL
        }
        parts[spaces.LEGAL] = trees[-1][spaces.LEGAL]
        return type(space)((name, parts[name]) for name in space)


class ScaleAction(Wrapper):
    """Takes actions as a distribution draws them, and gives the environment what lies in its space.

    Reals come as one vector: those with two finite bounds in [-1, 1] (clipped), or with `squash`
    before a tanh; those with one bound are clipped to it: see `actions.scaling`.
    """

    squash: bool = static(False)

    def __post_init__(self):
        actions.scaling(self.env.action_space, self.squash)  # refuses what cannot be served

    @property
    def action_space(self) -> Space:
        """Of what is drawn."""
        space = self.env.action_space
        return actions.drawn_space(space, actions.scaling(space, self.squash))

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        return self.env.reset(key)

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        space = self.env.action_space
        action = actions.to_env(action, space, actions.scaling(space, self.squash))
        return self.env.step(state, action, key)

"""Wrappers of one environment: time limit, episode statistics, frames and actions.

The supported order, inside out: the environment, what changes its observations and actions,
`TimeLimit`, `EpisodeStats`. Nothing resets itself: see `jaxrl.resets`.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, Wrapper, static
from jaxrl.spaces import Box, Space


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

    @staticmethod
    def _report(state: EpisodeStatsState, ts: TimeStep) -> TimeStep:
        metrics = ts.metrics | {
            "episode_return": state.episode_return,
            "episode_length": state.episode_length.astype(jnp.float32),
        }
        return ts.replace(metrics=metrics)


class FrameStackState(flax.struct.PyTreeNode):
    inner: Any
    frames: jax.Array  # [num_frames, ...], oldest first


class FrameStack(Wrapper):
    """The last `num_frames` observations along a new first axis, oldest first.

    An episode starts with its first observation repeated. Needs a Box observation space.
    """

    num_frames: int = static(4)

    def __post_init__(self):
        if not isinstance(self.env.observation_space, Box):
            raise ValueError(
                f"FrameStack needs a Box observation space, not {self.env.observation_space}."
            )

    @property
    def observation_space(self) -> Space:
        space = self.env.observation_space
        low, high = (np.repeat(b[None], self.num_frames, 0) for b in (space.low, space.high))
        return Box(low, high, (self.num_frames, *space.shape), space.dtype)

    def reset(self, key: jax.Array) -> tuple[FrameStackState, TimeStep]:
        inner, ts = self.env.reset(key)
        frames = jnp.repeat(ts.obs[None], self.num_frames, 0)
        return FrameStackState(inner, frames), ts.replace(obs=frames, final_obs=frames)

    def step(
        self, state: FrameStackState, action: Any, key: jax.Array
    ) -> tuple[FrameStackState, TimeStep]:
        inner, ts = self.env.step(state.inner, action, key)
        frames = jnp.concatenate([state.frames[1:], ts.obs[None]])
        return FrameStackState(inner, frames), ts.replace(obs=frames, final_obs=frames)


class ClipAction(Wrapper):
    """Clips a continuous action to the environment's bounds; its own space is unbounded."""

    @property
    def action_space(self) -> Space:
        space = self.env.action_space
        return Box(-np.inf, np.inf, space.shape, space.dtype)

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        return self.env.reset(key)

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        space = self.env.action_space
        return self.env.step(state, jnp.clip(action, space.low, space.high), key)


class RescaleAction(Wrapper):
    """Actions in [-1, 1], clipped, then mapped linearly onto the environment's finite bounds."""

    def __post_init__(self):
        space = self.env.action_space
        if not isinstance(space, Box) or not space.bounded:
            raise ValueError(
                f"RescaleAction needs a Box action space with finite bounds, not {space}."
            )

    @property
    def action_space(self) -> Space:
        space = self.env.action_space
        return Box(-1.0, 1.0, space.shape, space.dtype)

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        return self.env.reset(key)

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        return self.env.step(state, rescale(action, self.env.action_space), key)


def rescale(action: jax.Array, space: Box) -> jax.Array:
    """[-1, 1] (clipped) onto [space.low, space.high], linearly."""
    unit = (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0
    return space.low + unit * (space.high - space.low)


def is_continuous(env: Environment) -> bool:
    """Whether actions are real numbers."""
    return isinstance(env.action_space, Box)

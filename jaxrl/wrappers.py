"""Wrappers of one environment: time limit, episode statistics, auto-reset, frames and actions.

The supported order, inside out: the environment, what changes its observations and actions,
`TimeLimit`, `EpisodeStats`, `AutoReset`.
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


class AutoResetState(flax.struct.PyTreeNode):
    inner: Any
    pool: Any  # `pool_size` fresh resets, (state, obs), each leaf [pool_size, ...]
    used: jax.Array  # int32 []: how many of the pool's resets were taken since it was filled


class AutoReset(Wrapper):
    """Starts the next episode in the step that ends one; `final_obs` keeps where the action led.

    A reset is not computed at every step: `pool_size` fresh ones are computed by `refill`, once
    per rollout, and taken one after the other. An episode that starts when all are taken begins
    with the pool's oldest again, and the step's metric `pool_exhausted` is 1: fill more.
    """

    pool_size: int = static(4)

    def reset(self, key: jax.Array) -> tuple[AutoResetState, TimeStep]:
        first_key, pool_key = jax.random.split(key)
        inner, ts = self.env.reset(first_key)
        pool, used = self._fill(pool_key)
        return AutoResetState(inner, pool, used), self._report(ts, jnp.zeros((), jnp.bool_))

    def refill(self, state: AutoResetState, key: jax.Array) -> AutoResetState:
        """The same state with a new pool; call it at the start of each rollout."""
        pool, used = self._fill(key)
        return state.replace(pool=pool, used=used)

    def step(
        self, state: AutoResetState, action: Any, key: jax.Array
    ) -> tuple[AutoResetState, TimeStep]:
        stepped, ts = self.env.step(state.inner, action, key)
        slot = state.used % self.pool_size
        fresh = jax.tree.map(lambda x: x[slot], state.pool)
        inner, obs = tree_where(ts.done, fresh, (stepped, ts.obs))
        exhausted = ts.done & (state.used >= self.pool_size)
        used = state.used + ts.done.astype(jnp.int32)
        ts = self._report(ts.replace(obs=obs), exhausted)
        return AutoResetState(inner, state.pool, used), ts

    def _fill(self, key: jax.Array) -> tuple[Any, jax.Array]:
        inner, ts = jax.vmap(self.env.reset)(jax.random.split(key, self.pool_size))
        return (inner, ts.obs), jnp.zeros((), jnp.int32)

    @staticmethod
    def _report(ts: TimeStep, exhausted: jax.Array) -> TimeStep:
        return ts.replace(metrics=ts.metrics | {"pool_exhausted": exhausted.astype(jnp.float32)})


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

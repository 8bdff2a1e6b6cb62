"""Episodes one after the other, as the programs that Gymnasium's two interfaces call."""

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import Environment, TimeStep
from jaxrl.metrics import hidden
from jaxrl.wrappers import EpisodeStats


class Play(flax.struct.PyTreeNode):
    """Where one environment stands; the key of a reset or step is a function of the numbers."""

    state: Any  # of the environment in EpisodeStats
    seed: jax.Array  # uint32 []
    episode: jax.Array  # int32 []: counted since the seed was given
    t: jax.Array  # int32 []: steps taken in this episode

    @property
    def key(self) -> jax.Array:
        """fold_in(fold_in(key(seed), episode), t)."""
        episode_key = jax.random.fold_in(jax.random.key(self.seed), self.episode)
        return jax.random.fold_in(episode_key, self.t)


def metrics_of(env: Environment) -> list[str]:
    """The metrics that a report ends with."""
    return _told(jax.eval_shape(lambda: EpisodeStats(env).reset(jax.random.key(0)))[1])


def _told(ts: TimeStep) -> list[str]:
    return sorted(name for name in ts.metrics if not hidden(name))


def report(ts: TimeStep) -> jax.Array:
    """float32 [3 + metrics]: reward, terminated, truncated, metrics; one array is one transfer."""
    flags = [ts.terminated.astype(jnp.float32), ts.truncated.astype(jnp.float32)]
    return jnp.stack([ts.reward, *flags, *(ts.metrics[name] for name in _told(ts))])


def _begin(env: Environment, seed: jax.Array, episode: jax.Array) -> tuple[Play, TimeStep]:
    play = Play(None, seed, episode, jnp.zeros((), jnp.int32))
    state, ts = EpisodeStats(env).reset(play.key)
    return play.replace(state=state), ts


def _advance(env: Environment, play: Play, action: Any) -> tuple[Play, TimeStep]:
    play = play.replace(t=play.t + 1)
    state, ts = EpisodeStats(env).step(play.state, action, play.key)
    return play.replace(state=state), ts


def _restart(
    env: Environment, play: Play, obs: Any, over: jax.Array
) -> tuple[Play, Any]:
    """New episodes where `over` [B], a few at a time: a reset may cost more than a step."""
    num_envs = over.shape[0]
    few = min(num_envs, max(8, num_envs // 16))

    def some(carry):
        play, obs, over = carry
        index = jnp.nonzero(over, size=few, fill_value=num_envs)[0]
        seed, episode = play.seed[index], play.episode[index] + 1
        fresh, ts = jax.vmap(_begin, (None, 0, 0))(env, seed, episode)
        play, obs = jax.tree.map(
            lambda x, new: x.at[index].set(new, mode="drop"), (play, obs), (fresh, ts.obs)
        )
        return play, obs, over.at[index].set(False, mode="drop")

    play, obs, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[2]), some, (play, obs, over))
    return play, obs


@jax.jit
def begin(env: Environment, seed: jax.Array, episode: jax.Array) -> tuple[Play, Any]:
    """The first state and observation of an episode."""
    play, ts = _begin(env, seed, episode)
    return play, ts.obs


@partial(jax.jit, donate_argnums=1)
def advance(env: Environment, play: Play, action: Any) -> tuple[Play, Any, jax.Array]:
    """A step: observation and report."""
    play, ts = _advance(env, play, action)
    return play, ts.obs, report(ts)


@jax.jit
def begin_all(env: Environment, seed: jax.Array, episode: jax.Array) -> tuple[Play, Any]:
    """As `begin` for arrays [B]."""
    play, ts = jax.vmap(_begin, (None, 0, 0))(env, seed, episode)
    return play, ts.obs


restart = jax.jit(_restart)


@partial(jax.jit, donate_argnums=1, static_argnames="same_step")
def advance_all(
    env: Environment, play: Play, action: Any, waiting: jax.Array, *, same_step: bool
) -> tuple[Play, Any, Any, jax.Array]:
    """A step everywhere: observation, where the action led, and reports [3 + metrics, B].

    With `same_step` what has ended begins anew in this step; else what is `waiting` [B] does so
    instead of a step, and its report is of no use.
    """
    play, ts = jax.vmap(_advance, (None, 0, 0))(env, play, action)
    play, obs = _restart(env, play, ts.obs, ts.done if same_step else waiting)
    return play, obs, ts.obs, jax.vmap(report, out_axes=1)(ts)

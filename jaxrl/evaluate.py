"""Evaluation: whole fresh episodes with a fixed policy."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import Environment, per_env_keys
from jaxrl.wrappers import EpisodeStats, tree_where


class Evaluation(flax.struct.PyTreeNode):
    """What became of N episodes; leaves [N]."""

    episode_return: jax.Array  # float32: undiscounted
    metrics: dict[str, jax.Array]  # what the environment said at the end; episode_length, steps
    finished: jax.Array  # bool: False where max_steps cut it short


def evaluate(
    act: Callable[..., Any],
    env: Environment,
    key: jax.Array,
    num_episodes: int,
    max_steps: int = 100_000,
    memory: Any = None,
    first: int | jax.Array = 0,
) -> Evaluation:
    """Play `num_episodes` fresh episodes side by side, each to its end; `first` is one's index.

    `act(obs, key) -> action` sees one observation. With `memory`, that of an episode's begin, it is
    `act(memory, obs, key) -> (memory, action)`. `env` is a raw environment with its time limit;
    what is played depends on (key, episode index) alone.
    """
    env = EpisodeStats(env)
    reset_key, play_key = jax.random.split(key)
    episode = first + jnp.arange(num_episodes)
    remember = (lambda memory, *seen: (memory, act(*seen))) if memory is None else act
    state, ts = jax.vmap(env.reset)(per_env_keys(reset_key, episode))
    play_keys = per_env_keys(play_key, episode)

    def play(carry, key, t):
        state, ts, memory = carry
        act_key, env_key = jax.random.split(jax.random.fold_in(key, t))
        memory, action = remember(memory, ts.obs, act_key)
        return tree_where(ts.done, carry, (*env.step(state, action, env_key), memory))

    def body(carry):
        episodes, t = carry
        return jax.vmap(play, (0, 0, None))(episodes, play_keys, t), t + 1

    def unfinished(carry):
        (_, ts, _), t = carry
        return jnp.any(~ts.done) & (t < max_steps)

    memory = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_episodes, *x.shape)), memory)
    start = (state, ts, memory)
    (_, ts, _), _ = jax.lax.while_loop(unfinished, body, (start, jnp.zeros((), jnp.int32)))
    metrics = dict(ts.metrics)
    return Evaluation(metrics.pop("episode_return"), metrics, ts.done)

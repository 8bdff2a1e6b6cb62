"""Fresh resets kept ready, so that an episode can begin in the step that ends another.

A reset is not computed at every step: some are computed once per update, outside the loop over
steps, and taken one after the other. The pool is no part of a state that is kept.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import Environment, TimeStep, per_env_keys
from jaxrl.wrappers import tree_where

POOL_BYTES = 2**30  # that a run's pool may take where its size was not asked for


class ResetPool(flax.struct.PyTreeNode):
    """Fresh resets of one environment."""

    state: Any  # leaves [size, ...]
    obs: Any  # the same
    used: jax.Array  # int32 []: how many were taken

    @property
    def size(self) -> int:
        return jax.tree.leaves(self.obs)[0].shape[self.used.ndim]


def pool_size(cfg: Any, env: Environment) -> int:
    """Fresh resets of each environment in an iteration: `reset_pool`, or an eighth of its steps.

    By itself a pool takes at most POOL_BYTES, all environments together (so that the number of
    devices changes nothing), or else a single reset of each.
    """
    if cfg.reset_pool:
        return cfg.reset_pool
    state, ts = jax.eval_shape(env.reset, jax.random.key(0))
    one = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state, ts.obs)))
    room = POOL_BYTES // (cfg.num_envs * max(one, 1))
    return max(1, min(room, max(2, cfg.num_steps // 8)))


def fill(env: Environment, key: jax.Array, size: int) -> ResetPool:
    """A full pool of one environment."""
    state, ts = jax.vmap(env.reset)(jax.random.split(key, size))
    return ResetPool(state, ts.obs, jnp.zeros((), jnp.int32))


def fill_all(env: Environment, key: jax.Array, env_index: jax.Array, size: int) -> ResetPool:
    """A full pool for each of the environments with these global indices [B]."""
    return jax.vmap(lambda k: fill(env, k, size))(per_env_keys(key, env_index))


def step(
    env: Environment, state: Any, action: Any, key: jax.Array, pool: ResetPool
) -> tuple[Any, TimeStep, ResetPool]:
    """A step of one environment; where it ends the episode, `obs` is already the next one's first.

    `final_obs` keeps where the action led. An episode that starts when all resets are taken begins
    with the oldest again, and the step's metric `pool_exhausted` is 1: fill more.
    """
    stepped, ts = env.step(state, action, key)
    fresh = jax.tree.map(lambda x: x[pool.used % pool.size], (pool.state, pool.obs))
    state, obs = tree_where(ts.done, fresh, (stepped, ts.obs))
    exhausted = (ts.done & (pool.used >= pool.size)).astype(jnp.float32)
    ts = ts.replace(obs=obs, metrics=ts.metrics | {"pool_exhausted": exhausted})
    return state, ts, pool.replace(used=pool.used + ts.done.astype(jnp.int32))

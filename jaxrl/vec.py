"""Many copies of one environment, stepped together and restarted when their episodes end."""

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl import config, resets, spaces
from jaxrl.env import Environment, TimeStep, per_env_keys, static
from jaxrl.wrappers import EpisodeStats


class VecState(flax.struct.PyTreeNode):
    """Leaves [B, ...]."""

    inner: Any  # of the environments
    pool: resets.ResetPool


class VecEnv(flax.struct.PyTreeNode):
    """`num_envs` copies of `env` with episode statistics and auto-reset, batched with vmap.

    Every array of a state, TimeStep or action has a first axis B = num_envs. What happens in
    environment i is a function of (key, i) as long as no pool runs out.

    With `auto_refill`, the step that finds a used-up pool first refills those of all environments,
    so every episode starts from a new state; from then on the numbers of environment i depend on
    how many others there are, because they decide when. The refill is a `lax.cond` over the batch:
    under a vmap of your own (over seeds, say) it becomes a select, which costs B * pool_size
    resets at every step. There, and where the numbers must not depend on num_envs, turn
    `auto_refill` off and call `refill` once per rollout, with a pool of at least as many resets as
    one environment may need in it; the metric `pool_exhausted` counts those that were missing.
    """

    env: Environment
    num_envs: int = flax.struct.field(pytree_node=False)  # B
    pool_size: int = static(4)  # fresh resets kept ready for each environment
    auto_refill: bool = static(True)

    def __post_init__(self):
        for name, example in (("num_envs", 64), ("pool_size", 4)):
            config.check_size(name, getattr(self, name), example)

    @property
    def observation_space(self) -> spaces.Space:
        """Of one environment."""
        return self.env.observation_space

    @property
    def action_space(self) -> spaces.Space:
        """Of one environment."""
        return self.env.action_space

    def sample_actions(self, key: jax.Array) -> Any:
        """A random action for each environment [B]."""
        return jax.vmap(lambda k: spaces.sample(self.action_space, k))(self._keys(key))

    def reset(self, key: jax.Array) -> tuple[VecState, TimeStep]:
        """New episodes everywhere, with full pools."""
        reset_key, pool_key = jax.random.split(key)
        inner, ts = jax.vmap(self._single.reset)(self._keys(reset_key))
        ts = ts.replace(metrics=ts.metrics | {"pool_exhausted": jnp.zeros_like(ts.reward)})
        return VecState(inner, self._fill(pool_key)), ts

    def refill(self, state: VecState, key: jax.Array) -> VecState:
        """The same state with new pools of fresh resets."""
        return state.replace(pool=self._fill(key))

    def step(self, state: VecState, action: Any, key: jax.Array) -> tuple[VecState, TimeStep]:
        """One step everywhere; where an episode ended, `obs` is already the next one's first."""
        step_key, refill_key = jax.random.split(key)
        if self.auto_refill:
            empty = jnp.any(state.pool.used >= self.pool_size)
            state = jax.lax.cond(empty, self.refill, lambda state, _: state, state, refill_key)
        inner, ts, pool = jax.vmap(partial(resets.step, self._single))(
            state.inner, action, self._keys(step_key), state.pool
        )
        return VecState(inner, pool), ts

    @property
    def _single(self) -> EpisodeStats:
        return EpisodeStats(self.env)

    def _fill(self, key: jax.Array) -> resets.ResetPool:
        index = jnp.arange(self.num_envs)
        return resets.fill_all(self._single, key, index, self.pool_size)

    def _keys(self, key: jax.Array) -> jax.Array:
        return per_env_keys(key, jnp.arange(self.num_envs))

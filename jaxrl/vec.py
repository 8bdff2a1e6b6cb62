"""Many copies of one environment, stepped together and restarted when their episodes end."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl import spaces
from jaxrl.env import Environment, TimeStep, per_env_keys, static
from jaxrl.wrappers import AutoReset, AutoResetState, EpisodeStats


class VecEnv(flax.struct.PyTreeNode):
    """`num_envs` copies of `env` under EpisodeStats and AutoReset, batched with vmap.

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
        if self.num_envs < 1:
            raise ValueError(f"num_envs={self.num_envs} must be at least 1; try 64.")
        if self.pool_size < 1:
            raise ValueError(f"pool_size={self.pool_size} must be at least 1; try 4.")
        if resets_itself(self.env):
            raise ValueError(
                f"env={type(self.env).__name__} already has an AutoReset inside, which VecEnv adds "
                "itself; try VecEnv(TimeLimit(env), num_envs)."
            )

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

    def reset(self, key: jax.Array) -> tuple[AutoResetState, TimeStep]:
        """New episodes everywhere, with full pools."""
        return jax.vmap(self._single.reset)(self._keys(key))

    def refill(self, state: AutoResetState, key: jax.Array) -> AutoResetState:
        """The same state with new pools of fresh resets."""
        return jax.vmap(self._single.refill)(state, self._keys(key))

    def step(
        self, state: AutoResetState, action: Any, key: jax.Array
    ) -> tuple[AutoResetState, TimeStep]:
        """One step everywhere; where an episode ended, `obs` is already the next one's first."""
        step_key, refill_key = jax.random.split(key)
        if self.auto_refill:
            empty = jnp.any(state.used >= self.pool_size)
            state = jax.lax.cond(empty, self.refill, lambda state, _: state, state, refill_key)
        return jax.vmap(self._single.step)(state, action, self._keys(step_key))

    @property
    def _single(self) -> AutoReset:
        return AutoReset(EpisodeStats(self.env), self.pool_size)

    def _keys(self, key: jax.Array) -> jax.Array:
        return per_env_keys(key, jnp.arange(self.num_envs))


def resets_itself(env: Any) -> bool:
    """Whether there is an AutoReset among the wrappers of `env`."""
    while isinstance(env, Environment):
        if isinstance(env, AutoReset):
            return True
        env = getattr(env, "env", None)
    return False

"""The rollout: a policy plays T steps in B environments, as one scan."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import per_env_keys
from jaxrl.wrappers import AutoReset

SMALL_OBS = 32  # numbers in one observation

Act = Callable[[Any, Any], tuple[Any, Any, Any]]  # (obs, noise) -> (action, env_action, aux)


class Transition(flax.struct.PyTreeNode):
    """Leaves [T, B, ...] once stacked by `rollout`."""

    obs: Any
    action: Any
    aux: Any  # whatever `act` wants kept: the log-prob
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_obs: Any  # where the action led, before any auto-reset


class Carry(flax.struct.PyTreeNode):
    """What one rollout hands to the next; leaves [B, ...]."""

    env_state: Any
    obs: Any


def begin(env: AutoReset, key: jax.Array, env_index: jax.Array) -> Carry:
    """First states of the environments with these global indices [B]."""
    env_state, ts = jax.vmap(env.reset)(per_env_keys(key, env_index))
    return Carry(env_state, ts.obs)


def rollout(
    env: AutoReset,
    carry: Carry,
    act: Act,
    draw_noise: Callable[[jax.Array, tuple[int, ...]], Any],
    key: jax.Array,
    env_index: jax.Array,
    num_steps: int,
) -> tuple[Carry, Transition, dict[str, jax.Array]]:
    """T steps with auto-reset, after filling every environment's pool of fresh resets.

    `act(obs, noise)` sees batches [B, ...]; its noise is drawn here for the whole rollout. Every
    random number is a function of (key, global environment index, step): the number of
    environments on this device does not matter. Returns the carry, the transitions [T, B, ...]
    and per-environment sums [B] over the rollout: of each metric over the episodes that ended
    (`episode_return`, ...), their number (`episodes`), and the `pool_exhausted` count.
    """
    reset_key, noise_key, step_key = jax.random.split(key, 3)
    env_state = jax.vmap(env.refill)(carry.env_state, per_env_keys(reset_key, env_index))
    noise = jax.vmap(lambda k: draw_noise(k, (num_steps,)), out_axes=1)(
        per_env_keys(noise_key, env_index)
    )
    env_keys = per_env_keys(step_key, env_index)

    def step(carry, inputs):
        (env_state, obs, sums), (noise, t) = carry, inputs
        action, env_action, aux = act(obs, noise)
        keys = jax.vmap(lambda k: jax.random.fold_in(k, t))(env_keys)
        env_state, ts = jax.vmap(env.step)(env_state, env_action, keys)
        transition = Transition(
            obs, action, aux, ts.reward, ts.terminated, ts.truncated, ts.final_obs
        )
        return (env_state, ts.obs, add_episode(sums, ts)), transition

    sums = {name: jnp.zeros(env_index.shape) for name in _metric_names(env)}
    start = (env_state, carry.obs, sums)
    xs = noise, jnp.arange(num_steps)
    unroll = _unroll(carry.obs)
    (env_state, obs, sums), transitions = jax.lax.scan(step, start, xs, unroll=unroll)
    return Carry(env_state, obs), transitions, sums


def _unroll(obs: Any) -> int:
    """Steps of the loop compiled in a row: several where observations [B, ...] are small, else one.

    Four steps of CartPole in a row halve the rollout's time on a CPU. Of a board game they make XLA
    fuse each step into its readers in the next ones, and compute it again there, for ever.
    """
    numbers = sum(x[0].size for x in jax.tree.leaves(obs))
    return 4 if numbers <= SMALL_OBS else 1


def _metric_names(env: AutoReset) -> list[str]:
    _, ts = jax.eval_shape(env.reset, jax.random.key(0))
    return sorted({*ts.metrics, "episodes", "truncations"})


def add_episode(sums: dict[str, jax.Array], ts: Any) -> dict[str, jax.Array]:
    """Add the metrics of the episodes that end in this step; leaves [B]."""
    done = ts.done.astype(jnp.float32)
    ended = {name: done * value for name, value in ts.metrics.items()}
    ended["episodes"] = done
    ended["truncations"] = (ts.truncated & ~ts.terminated).astype(jnp.float32)
    return {name: total + ended[name] for name, total in sums.items()}

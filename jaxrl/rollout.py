"""The rollout: a policy plays T steps in B environments, as one scan."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl import resets
from jaxrl.env import Environment, TimeStep, per_env_keys
from jaxrl.metrics import HIDDEN, Metrics, Sums
from jaxrl.resets import ResetPool
from jaxrl.wrappers import tree_where

SMALL_OBS = 32  # numbers in one observation


class Decision(flax.struct.PyTreeNode):
    """What a policy decides for observations [B, ...]."""

    action: Any  # as drawn; the environment's wrapper takes it to the environment's units
    aux: Any = ()  # whatever the algorithm wants kept: the log-prob


Act = Callable[[Any, Any, Any], tuple[Any, Decision]]  # (memory, obs, noise) -> memory, decision


class Transition(flax.struct.PyTreeNode):
    """Leaves [T, B, ...] once stacked by `rollout`."""

    obs: Any
    action: Any
    aux: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_obs: Any  # where the action led, before any auto-reset

    @property
    def done(self) -> jax.Array:
        """bool: the episode is over, for either reason."""
        return self.terminated | self.truncated


class Carry(flax.struct.PyTreeNode):
    """What one rollout hands to the next; leaves [B, ...]."""

    env_state: Any
    obs: Any
    memory: Any = ()  # of a recurrent policy; zeros where an episode begins


class Ended(flax.struct.PyTreeNode):
    """Per-environment sums [B] over the episodes that ended in a rollout."""

    metrics: dict[str, jax.Array]  # what the environment said at the end: episode_return, ...
    episodes: jax.Array  # how many
    truncations: jax.Array  # of them, those that the clock ended
    pool_exhausted: jax.Array  # of them, those that were followed by a reset taken before
    broken: dict[str, jax.Array] = flax.struct.field(default_factory=dict)  # see first_broken

    def means(self, total: Callable[[Any], Any]) -> Metrics:
        """Means over the episodes of all environments; `total` sums over devices."""
        sums = total(jax.tree.map(jnp.sum, self))
        over_episodes = sums.metrics | {"truncated_share": sums.truncations}
        once = jnp.ones((), jnp.float32)
        return {name: Sums(x, sums.episodes) for name, x in over_episodes.items()} | {
            "episodes": Sums(sums.episodes, once),
            "pool_exhausted": Sums(sums.pool_exhausted, once),
            **{HIDDEN + name: Sums(x, once) for name, x in sums.broken.items()},
        }


def begin(env: Environment, key: jax.Array, env_index: jax.Array, memory: Any = ()) -> Carry:
    """First states of the environments with these global indices [B]."""
    env_state, ts = jax.vmap(env.reset)(per_env_keys(key, env_index))
    return Carry(env_state, ts.obs, memory)


@jax.named_scope("rollout")
def rollout(
    env: Environment,
    carry: Carry,
    pool: ResetPool,
    act: Act,
    draw_noise: Callable[[jax.Array, tuple[int, ...]], Any],
    key: jax.Array,
    env_index: jax.Array,
    num_steps: int,
) -> tuple[Carry, ResetPool, Transition, Ended]:
    """T steps; where an episode ends, the next begins from the pool (`resets.fill_all`).

    `act(memory, obs, noise)` sees batches [B, ...]; its noise is drawn here for the whole rollout.
    Every random number is a function of (key, global environment index, step): the number of
    environments on this device does not matter. A pool may serve several rollouts in a row.
    Returns carry and pool for the next one, transitions [T, B, ...] and sums over what ended.
    """
    noise_key, step_key = jax.random.split(key)
    noise = jax.vmap(lambda k: draw_noise(k, (num_steps,)), out_axes=1)(
        per_env_keys(noise_key, env_index)
    )
    env_keys = per_env_keys(step_key, env_index)
    fresh = pool.replace(used=None)  # the same at every step, so no part of what a step hands on

    def step(carry, inputs):
        (before, used, ended, unpaid), (noise, t) = carry, inputs
        memory, chosen = act(before.memory, before.obs, noise)
        keys = jax.vmap(lambda k: jax.random.fold_in(k, t))(env_keys)
        env_state, ts, pool = jax.vmap(partial(resets.step, env))(
            before.env_state, chosen.action, keys, fresh.replace(used=used)
        )
        after = Carry(env_state, ts.obs, forget(memory, ts.done))
        outcome = (ts.reward, ts.terminated, ts.truncated, ts.final_obs)
        transition = Transition(before.obs, chosen.action, chosen.aux, *outcome)
        unpaid = jnp.where(jnp.isfinite(ts.reward), unpaid, jnp.minimum(unpaid, t))
        return (after, pool.used, add_ended(ended, ts), unpaid), transition

    never = jnp.full(env_index.shape, num_steps, jnp.int32)
    start = (carry, pool.used, nothing_ended(env, env_index), never)
    xs = noise, jnp.arange(num_steps, dtype=jnp.int32)
    unroll = _unroll(carry.obs)
    (carry, used, ended, unpaid), steps = jax.lax.scan(step, start, xs, unroll=unroll)
    ended = ended.replace(broken=first_broken(steps, unpaid))
    return carry, pool.replace(used=used), steps, ended


def first_broken(steps: Transition, unpaid: jax.Array) -> dict[str, jax.Array]:
    """float32 [B] each: 1 where the environment's first number that is not finite was of this part.

    Within a step in the order of cause; an action is broken where what was kept of it is, too.
    `unpaid` int32 [B] is the first step whose reward is broken, T without one. The loop sees that:
    to read all rewards once more made a small iteration of CartPole, which pays 1 for ever, a
    quarter longer on a CPU.
    """
    shape = steps.terminated.shape
    parts = (steps.obs, (steps.action, steps.aux), steps.next_obs)
    when = [*(_first_broken(part, shape) for part in parts), unpaid]
    place = [len(when) * t + i for i, t in enumerate(when)]
    never = len(when) * shape[0]
    first = reduce(jnp.minimum, place)
    obs, action, next_obs, reward = ((x == first) & (x < never) for x in place)
    named = {"observation": obs | next_obs, "action": action, "reward": reward}
    return {name: x.astype(jnp.float32) for name, x in named.items()}


def _first_broken(tree: Any, shape: tuple[int, ...]) -> jax.Array:
    """int32 [B]: the first step at which a float in leaves [T, B, ...] is not finite; T: none."""
    found = jnp.zeros(shape, jnp.bool_)
    for x in jax.tree.leaves(tree):
        if jnp.issubdtype(x.dtype, jnp.floating):
            found |= jnp.any(~jnp.isfinite(x), tuple(range(2, x.ndim)))
    step = jnp.arange(shape[0], dtype=jnp.int32)[:, None]
    return jnp.min(jnp.where(found, step, shape[0]), 0)


def forget(memory: Any, done: jax.Array) -> Any:
    """Memory [B, ...] with zeros where an episode is over."""
    return jax.vmap(tree_where)(done, jax.tree.map(jnp.zeros_like, memory), memory)


def nothing_ended(env: Environment, env_index: jax.Array) -> Ended:
    """Sums of 0 for these environments [B]."""
    _, ts = jax.eval_shape(env.reset, jax.random.key(0))
    zero = jnp.zeros(env_index.shape, jnp.float32)
    return Ended({name: zero for name in sorted(ts.metrics)}, zero, zero, zero)


def add_ended(ended: Ended, ts: TimeStep) -> Ended:
    """Add the metrics of the episodes that end in this step; leaves [B]."""
    done = ts.done.astype(jnp.float32)
    now = dict(ts.metrics)
    exhausted = now.pop("pool_exhausted")
    truncated = (ts.truncated & ~ts.terminated).astype(jnp.float32)
    # A metric of an episode that goes on may be anything, NaN too.
    metrics = {name: jnp.where(ts.done, x, 0).astype(jnp.float32) for name, x in now.items()}
    return jax.tree.map(jnp.add, ended, Ended(metrics, done, truncated, exhausted))


def _unroll(obs: Any) -> int:
    """Steps of the loop compiled in a row: several where observations [B, ...] are small, else one.

    Four steps of CartPole in a row halve the rollout's time on a CPU. Of a board game they make XLA
    fuse each step into its readers in the next ones, and compute it again there, for ever.
    """
    numbers = sum(x[0].size for x in jax.tree.leaves(obs))
    return 4 if numbers <= SMALL_OBS else 1

"""Episodes one after the other, as the programs that Gymnasium's two interfaces call."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import Environment, TimeStep
from jaxrl.metrics import hidden
from jaxrl.wrappers import EpisodeStats

# On a CPU one operation after the other on one thread: handing such small ones over costs more than
# they do (docs/decisions/003).
ONE_THREAD = {
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "xla_cpu_multi_thread_eigen": False,
}


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


def begin(env: Environment, seed: jax.Array, episode: jax.Array) -> tuple[Play, TimeStep]:
    """The first state of an episode."""
    play = Play(None, seed, episode, jnp.zeros((), jnp.int32))
    state, ts = EpisodeStats(env).reset(play.key)
    return play.replace(state=state), ts


def advance(env: Environment, play: Play, action: Any) -> tuple[Play, TimeStep]:
    """One step."""
    play = play.replace(t=play.t + 1)
    state, ts = EpisodeStats(env).step(play.state, action, play.key)
    return play.replace(state=state), ts


def restart(env: Environment, play: Play, obs: Any, over: jax.Array) -> tuple[Play, Any]:
    """The next episodes where `over` [B], a few at a time: a reset may cost more than a step."""
    num_envs = over.shape[0]
    few = min(num_envs, max(8, num_envs // 16))

    def some(carry):
        play, obs, over = carry
        index = jnp.nonzero(over, size=few, fill_value=num_envs)[0]
        seed, episode = play.seed[index], play.episode[index] + 1
        fresh, ts = jax.vmap(begin, (None, 0, 0))(env, seed, episode)
        play, obs = jax.tree.map(
            lambda x, new: x.at[index].set(new, mode="drop"), (play, obs), (fresh, ts.obs)
        )
        return play, obs, over.at[index].set(False, mode="drop")

    play, obs, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[2]), some, (play, obs, over))
    return play, obs


def told(ts: TimeStep) -> list[str]:
    """The metrics that a report ends with."""
    return sorted(name for name in ts.metrics if not hidden(name))


def report(ts: TimeStep) -> jax.Array:
    """float32 [3 + metrics]: reward, terminated, truncated, metrics; one array is one transfer."""
    flags = [ts.terminated.astype(jnp.float32), ts.truncated.astype(jnp.float32)]
    return jnp.stack([ts.reward, *flags, *(ts.metrics[name] for name in told(ts))])


class Programs(NamedTuple):
    """Of the environments of one structure, each compiled when it is called first.

    `numbers` are an environment's leaves and `play` a Play's: lists, as walking through classes
    takes longer than a small environment's step.
    """

    metrics: list[str]  # of a report
    begin: Callable  # (numbers, seed, episode) -> play, obs
    advance: Callable  # (numbers, play, action) -> play, obs, report
    begin_all: Callable  # (numbers, seed [B]) -> play, obs
    restart_all: Callable  # (numbers, play, obs, over, seed, reseeded) -> play, obs
    advance_all: Callable  # (numbers, play, action, waiting, same_step) -> play, obs, led, report


def programs_of(env: Environment) -> tuple[Programs, list[jax.Array]]:
    """The programs and the environment's numbers."""
    leaves, structure = jax.tree.flatten(env)
    numbers = [jnp.asarray(x) for x in leaves]
    return _programs(structure, tuple(jax.typeof(x) for x in numbers)), numbers


@cache
def _programs(structure: Any, avals: tuple[Any, ...]) -> Programs:
    env_of = structure.unflatten
    zero = jnp.zeros((), jnp.uint32), jnp.zeros((), jnp.int32)
    play, ts = jax.eval_shape(lambda numbers: begin(env_of(numbers), *zero), avals)
    play_of = jax.tree.structure(play).unflatten
    options = ONE_THREAD if jax.default_backend() == "cpu" else None
    jit = partial(jax.jit, compiler_options=options)

    @jit
    def begin_one(numbers, seed, episode):
        play, ts = begin(env_of(numbers), seed, episode)
        return jax.tree.leaves(play), ts.obs

    @partial(jit, donate_argnums=1)
    def advance_one(numbers, play, action):
        play, ts = advance(env_of(numbers), play_of(play), action)
        return jax.tree.leaves(play), ts.obs, report(ts)

    @jit
    def begin_all(numbers, seed):
        play, ts = jax.vmap(begin, (None, 0, None))(env_of(numbers), seed, zero[1])
        return jax.tree.leaves(play), ts.obs

    @jit
    def restart_all(numbers, play, obs, over, seed, reseeded):
        play, renewed = play_of(play), over & reseeded
        play = play.replace(
            seed=jnp.where(renewed, seed, play.seed),
            episode=jnp.where(renewed, -1, play.episode),
        )
        play, obs = restart(env_of(numbers), play, obs, over)
        return jax.tree.leaves(play), obs

    @partial(jit, donate_argnums=1, static_argnums=4)
    def advance_all(numbers, play, action, waiting, same_step):
        env = env_of(numbers)
        play, ts = jax.vmap(advance, (None, 0, 0))(env, play_of(play), action)
        play, obs = restart(env, play, ts.obs, ts.done if same_step else waiting)
        return jax.tree.leaves(play), obs, ts.obs, jax.vmap(report, out_axes=1)(ts)

    return Programs(told(ts), begin_one, advance_one, begin_all, restart_all, advance_all)

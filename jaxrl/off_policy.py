"""Off-policy learning: steps are played into a replay, and batches drawn from it to learn."""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxrl import config, mesh, replay, resets, rollout, sgd, spaces
from jaxrl.env import Environment, per_env_keys
from jaxrl.metrics import Metrics
from jaxrl.replay import Replay
from jaxrl.rollout import Act, Carry, Ended

L = TypeVar("L")
Noise = Callable[[jax.Array, tuple[int, ...]], Any]  # (key, shape) -> noise


class Sizes:
    """What follows from the sizes in a Config: T steps of B environments, then gradient steps."""

    total_steps: config.Count
    num_envs: int
    num_steps: int
    gradient_steps: int  # gradient_steps / (num_envs*num_steps) is the update-to-data ratio
    batch_size: int
    buffer_size: int
    learning_starts: int
    reset_pool: int

    def check_sizes(self) -> None:
        """ValueError for a size that cannot work."""
        own = type(self)
        config.check_range("reset_pool", self.reset_pool, 0, 1e9, 0)
        for name in ("total_steps", "num_envs", "num_steps", "gradient_steps"):
            config.check_positive(name, getattr(self, name), getattr(own, name))
        rows, few = self.num_envs * self.num_steps, f"num_envs={own.num_envs}"
        config.check_iterations("total_steps", self.total_steps, "num_envs*num_steps", rows, few)
        sizes = (self.batch_size, self.buffer_size, self.learning_starts)
        replay.check(self.num_envs, *sizes, self.num_steps)

    @property
    def num_iterations(self) -> int:
        return -(-self.total_steps // (self.num_envs * self.num_steps))

    @property
    def capacity(self) -> int:
        """Steps of each environment that the replay keeps: no more than are played."""
        return min(self.buffer_size // self.num_envs, self.num_iterations * self.num_steps)

    @property
    def num_blocks(self) -> int:
        """What devices can share: environments, and rows of a batch."""
        return min(self.num_envs, self.batch_size)

    @property
    def pool_size(self) -> int:
        """Fresh resets of each environment in an iteration."""
        return self.reset_pool or max(2, self.num_steps // 8)

    @property
    def minibatch_rows(self) -> int:
        return self.batch_size


class Row(flax.struct.PyTreeNode):
    """One step of an environment."""

    obs: Any
    action: Any  # as drawn
    reward: jax.Array
    next_obs: Any  # where the action led; where `terminated` is not set, it has a value
    terminated: jax.Array


class World(flax.struct.PyTreeNode):
    """Environments, and what was played in them."""

    carry: Carry
    buffer: Replay

    @property
    def num_envs(self) -> int:
        """On this device."""
        return self.buffer.num_envs


def layout() -> World:
    """Where a World [K, ...] lies on a mesh: environments are split over devices."""
    split: Any = P(mesh.SEED, mesh.DATA)
    return World(split, Replay(split, P(mesh.SEED)))  # pyright: ignore


def begin(env: Environment, key: jax.Array, cfg: Sizes, axis: str | None) -> World:
    """First states of this device's environments, and an empty replay."""
    index = mesh.global_index(cfg.num_envs // mesh.axis_size(axis), axis)
    carry = rollout.begin(env, key, index)
    _, ts = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.eval_shape(lambda: spaces.sample(env.action_space, jax.random.key(0)))
    row = Row(ts.obs, action, ts.reward, ts.final_obs, ts.terminated)
    return World(carry, replay.empty(row, index.shape[0], cfg.capacity))


def begun(world: World, cfg: Sizes, axis: str | None) -> jax.Array:
    """bool []: learning_starts steps were played; the same for all members, so a branch on it is."""
    return world.buffer.filled * (world.num_envs * mesh.axis_size(axis)) >= cfg.learning_starts


def play(
    env: Environment, world: World, act: Act, noise: Noise, key: jax.Array, cfg: Sizes, axis: Any
) -> tuple[World, Ended]:
    """T steps of each environment into the replay."""
    pool_key, play_key = jax.random.split(key)
    index = mesh.global_index(world.num_envs, axis)
    pool = resets.fill_all(env, pool_key, index, cfg.pool_size)
    carry, _, steps, ended = rollout.rollout(
        env, world.carry, pool, act, noise, play_key, index, cfg.num_steps
    )
    rows = Row(steps.obs, steps.action, steps.reward, steps.next_obs, steps.terminated)
    return World(carry, replay.add(world.buffer, rows)), ended


def learn(
    step: Callable[[L, tuple[Any, jax.Array]], tuple[L, Metrics]],
    learner: L,
    world: World,
    noise: Noise,
    key: jax.Array,
    cfg: Sizes,
    axis: str | None,
) -> tuple[L, Metrics]:
    """The gradient steps of an iteration, none before `learning_starts`.

    `step(learner, ((rows, noise), i))` sees this device's share of a batch; noise of a row depends
    on its place in the whole batch. Metrics are sums over the steps.
    """
    index = mesh.global_index(cfg.batch_size // mesh.axis_size(axis), axis)

    def one(learner, inputs):
        key, i = inputs
        row_key, noise_key = jax.random.split(key)
        rows, _ = replay.sample(world.buffer, row_key, cfg.batch_size, axis)
        drawn = jax.vmap(lambda k: noise(k, ()))(per_env_keys(noise_key, index))
        return step(learner, ((rows, drawn), i))

    def several(learner):
        count = cfg.gradient_steps
        steps = jax.random.split(key, count), jnp.arange(count, dtype=jnp.int32)
        learner, parts = sgd.in_turn(one, learner, steps)
        return learner, jax.tree.map(lambda x: jnp.sum(x, 0), parts)

    _, shapes = jax.eval_shape(several, learner)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.cond(begun(world, cfg, axis), several, lambda x: (x, nothing), learner)


def check_bounded(name: str, space: Any) -> None:
    """ValueError, which says who serves them, for actions that are no Box with finite bounds."""
    if isinstance(space, spaces.Box) and space.bounded:
        return
    other = {spaces.Discrete: "DQN or SAC"}.get(type(space), "PPO")
    raise ValueError(f"{name} needs a Box of actions with finite bounds, not {space}; try {other}.")

"""Off-policy learning: steps are played into a replay, and batches drawn from it to learn."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxrl import config, mesh, replay, resets, rollout, sgd, spaces
from jaxrl.env import Environment, per_env_keys
from jaxrl.metrics import Metrics
from jaxrl.replay import Replay
from jaxrl.rollout import Act, Carry

L = TypeVar("L")
Noise = Callable[[jax.Array, tuple[int, ...]], Any]  # (key, shape) -> noise


@config.pytree_dataclass
class ActorCriticConfig:
    """Options that actors with critics share; steps, rows and batches are of all environments."""

    total_steps: config.Count = 20_000  # environment steps, rounded up to whole iterations
    num_envs: int = 1  # environments stepped in parallel, B
    num_steps: int = 1  # steps of each environment per iteration, T
    gradient_steps: int = 1  # per iteration: / (num_envs*num_steps) is the update-to-data ratio
    batch_size: int = 256  # rows of a gradient step, a multiple of num_envs or a divisor
    buffer_size: int = 1_000_000  # rows that are kept, the newest; at most all that are played
    learning_starts: int = 100  # environment steps before the first gradient step
    learning_rate: float = 1e-3  # of Adam, for all networks
    gamma: float = 0.99  # discount per step
    tau: float = 0.005  # share of the networks in their targets' next value
    hidden: tuple[int, ...] = (256, 256)  # widths of each network's hidden layers
    activation: Literal["tanh", "relu", "silu"] = "relu"
    reset_pool: int = 0  # resets an environment may need in an iteration; 0: num_steps / 8

    def __post_init__(self):
        own = type(self)
        config.check_range("reset_pool", self.reset_pool, 0, 1e9, 0)
        for name in ("total_steps", "num_envs", "num_steps", "gradient_steps", "learning_rate"):
            config.check_positive(name, getattr(self, name), getattr(own, name))
        for name in ("gamma", "tau"):
            config.check_range(name, getattr(self, name), 0.0, 1.0, getattr(own, name))
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


def begin(env: Environment, key: jax.Array, cfg: ActorCriticConfig, axis: str | None) -> World:
    """First states of this device's environments, and an empty replay."""
    index = mesh.global_index(cfg.num_envs // mesh.axis_size(axis), axis)
    carry = rollout.begin(env, key, index)
    _, ts = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.eval_shape(lambda: spaces.sample(env.action_space, jax.random.key(0)))
    row = Row(ts.obs, action, ts.reward, ts.final_obs, ts.terminated)
    return World(carry, replay.empty(row, index.shape[0], cfg.capacity))


def begun(world: World, cfg: ActorCriticConfig, axis: str | None) -> jax.Array:
    """bool []: learning_starts steps were played. Members share it: a branch on it stays one."""
    return world.buffer.filled * (world.num_envs * mesh.axis_size(axis)) >= cfg.learning_starts


def play(
    env: Environment,
    world: World,
    act: Act,
    noise: Noise,
    key: jax.Array,
    cfg: ActorCriticConfig,
    axis: Any,
) -> tuple[World, Metrics]:
    """T steps of each environment into the replay; metrics of the episodes that ended."""
    pool_key, play_key = jax.random.split(key)
    index = mesh.global_index(world.num_envs, axis)
    pool = resets.fill_all(env, pool_key, index, cfg.pool_size)
    carry, _, steps, ended = rollout.rollout(
        env, world.carry, pool, act, noise, play_key, index, cfg.num_steps
    )
    rows = Row(steps.obs, steps.action, steps.reward, steps.next_obs, steps.terminated)
    log = ended.means(lambda sums: mesh.psum(sums, axis))
    return World(carry, replay.add(world.buffer, rows)), log


def learn(
    step: Callable[[L, tuple[Any, jax.Array]], tuple[L, Metrics]],
    learner: L,
    world: World,
    noise: Noise,
    key: jax.Array,
    cfg: ActorCriticConfig,
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


def check_actions(name: str, space: Any, or_discrete: bool = False) -> None:
    """ValueError, which says who serves them, for actions that are no Box with finite bounds."""
    if isinstance(space, spaces.Box) and space.bounded:
        return
    if isinstance(space, spaces.Discrete) and or_discrete:
        return
    served = "a Box of actions with finite bounds" + " or Discrete ones" * or_discrete
    other = "DQN, SAC or PPO" if isinstance(space, spaces.Discrete) else "PPO"
    raise ValueError(f"{name} needs {served}, not {space}; try {other}.")

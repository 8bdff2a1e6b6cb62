"""Actors and critics that learn off policy: rounds of play into a replay and of gradient steps."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl import config, mesh, metrics, replay, resets, rollout, spaces
from jaxrl.env import Environment, per_env_keys
from jaxrl.hosted import Hosted, Played, round_keys
from jaxrl.networks import NetworkSpec, actors
from jaxrl.replay import Replay
from jaxrl.rollout import Carry, Decision

L = TypeVar("L")
Noise = Callable[[jax.Array, tuple[int, ...]], Any]  # (key, shape) -> noise


@config.pytree_dataclass
class ActorCriticConfig(replay.Sizes):
    """Options that actors with critics share."""

    total_steps: config.Count = 20_000  # environment steps, rounded up to whole iterations
    num_envs: int = 1  # environments stepped in parallel, B
    num_steps: int = 32  # steps of each environment per iteration
    train_every: int = 1  # steps of each environment between two rounds of gradient steps
    gradient_steps: int = 1  # of a round: / (num_envs*train_every) is the update-to-data ratio
    batch_size: int = 256  # rows of a gradient step: a multiple of num_envs, or a divisor
    buffer_size: int = 1_000_000  # newest steps that the replay keeps, of all environments
    learning_starts: int = 100  # steps of all environments before the first gradient step
    learning_rate: float = 1e-3  # of Adam, for all networks
    gamma: float = 0.99  # discount per step
    tau: float = 0.005  # share of the networks in their targets' next value
    network: str = "mlp"  # of actor and critics: mlp, cnn (images), or my_module:MyActor
    hidden: tuple[int, ...] = (64, 64)  # widths of each network's hidden layers
    activation: Literal["tanh", "relu", "silu"] = "relu"
    reset_pool: int = 0  # fresh resets per environment and iteration; 0: num_steps / 8

    def __post_init__(self):
        self.check_sizes()
        own = type(self)
        config.check_positive("learning_rate", self.learning_rate, own.learning_rate)
        for name in ("gamma", "tau"):
            config.check_range(name, getattr(self, name), 0.0, 1.0, getattr(own, name))

    @property
    def capacity(self) -> int:
        """Steps of each environment that are kept: no more than are played."""
        return min(super().capacity, self.num_iterations * self.num_steps)


def network_spec(cfg: ActorCriticConfig, env: Environment, kind: type) -> NetworkSpec:
    """What an actor for a wrapped environment's spaces is built from, one of a kind in `actors`."""
    squash = kind is actors.SoftActor and isinstance(env.action_space, spaces.Box)
    both = env.observation_space, env.action_space
    spec = NetworkSpec(*both, cfg.network, cfg.hidden, cfg.activation, squash)
    return spec.of_class(kind.__module__, kind.__name__)


class Row(flax.struct.PyTreeNode):
    """One step of an environment."""

    obs: Any
    action: Any  # as drawn
    reward: jax.Array
    next_obs: Any  # where the action led, which has a value unless `terminated`
    terminated: jax.Array


def begin(
    env: Environment, key: jax.Array, cfg: ActorCriticConfig, axis: str | None
) -> tuple[Carry, Replay]:
    """First states of this device's environments, and an empty replay."""
    index = mesh.global_index(cfg.num_envs // mesh.axis_size(axis), axis)
    carry = rollout.begin(env, key, index)
    _, ts = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.eval_shape(lambda: spaces.sample(env.action_space, jax.random.key(0)))
    row = Row(ts.obs, action, ts.reward, ts.final_obs, ts.terminated)
    return carry, replay.empty(row, index.shape[0], cfg.capacity)


def iterate(
    env: Environment,
    learner: L,
    carry: Carry,
    buffer: Replay,
    act: Callable[..., tuple[Any, Decision]],
    step: Callable[[L, Any], tuple[L, metrics.Metrics]],
    noises: tuple[Noise, Noise],
    key: jax.Array,
    cfg: ActorCriticConfig,
    axis: str | None,
) -> tuple[L, Carry, Replay, metrics.Metrics]:
    """An iteration of rounds; (learner, carry, buffer, metrics).

    `act(learner, warm, memory, obs, noise)` plays; `warm` is whether learning has begun.
    `step(learner, (rows, noise))` is a gradient step with this device's share of a batch. `noises`
    are of a step that is played and of a row, which depends on its place in the whole batch alone.
    """
    pool_key, rounds_key = jax.random.split(key)
    index = mesh.global_index(buffer.num_envs, axis)
    pool = resets.fill_all(env, pool_key, index, resets.pool_size(cfg, env))

    def one_round(before, key):
        learner, carry, pool, buffer = before
        play_key, learn_key = jax.random.split(key)
        player = partial(act, learner, is_warm(buffer, cfg))
        carry, pool, steps, ended = rollout.rollout(
            env, carry, pool, player, noises[0], play_key, index, cfg.train_every
        )
        learner, buffer, parts = absorb(
            learner, buffer, steps, step, noises[1], learn_key, cfg, axis
        )
        return (learner, carry, pool, buffer), (ended, parts)

    before = learner, carry, pool, buffer
    keys = jax.random.split(rounds_key, cfg.num_rounds)
    (learner, carry, _, buffer), (ended, parts) = jax.lax.scan(one_round, before, keys)
    ended = jax.tree.map(lambda x: jnp.sum(x, 0), ended)
    log = metrics.add_up(metrics.until_broken(parts))
    log = metrics.merged(log, ended.means(lambda sums: mesh.psum(sums, axis)))
    return learner, carry, buffer, log


def absorb(
    learner: L,
    buffer: Replay,
    steps: rollout.Transition,
    step: Callable[[L, Any], tuple[L, metrics.Metrics]],
    noise: Noise,
    key: jax.Array,
    cfg: ActorCriticConfig,
    axis: str | None,
) -> tuple[L, Replay, metrics.Metrics]:
    """A round's transitions [T, B, ...] into the replay, then its gradient steps."""
    rows = Row(steps.obs, steps.action, steps.reward, steps.next_obs, steps.terminated)
    buffer = replay.add(buffer, rows)
    learner, parts = learn(step, learner, buffer, noise, key, cfg, axis)
    return learner, buffer, parts


def hosted(
    cfg: ActorCriticConfig,
    act: Callable[..., tuple[Any, Decision]],
    step: Callable[..., tuple[Any, metrics.Metrics]],
    noises: tuple[Noise, Noise],
    put: Callable[[Any, Any, Replay], Any],
) -> Hosted:
    """The parts of `iterate` for environments on the host; `put(state, learner, buffer)`.

    A row needs none of its neighbours, so a lost episode leaves nothing to mend.
    """

    def learned(state: Any, played: Played, key: jax.Array, axis: str | None) -> tuple:
        before = state.learner, state.buffer, played.steps
        learner, buffer, parts = absorb(
            *before, partial(step, axis=axis), noises[1], key, cfg, axis
        )
        return put(state, learner, buffer), parts

    return Hosted(
        num_rounds=cfg.num_rounds,
        num_steps=cfg.train_every,
        keys=lambda key, i: round_keys(key, cfg.num_rounds, i),
        player=lambda state: (state.learner, is_warm(state.buffer, cfg)),
        act=lambda player, *seen: act(*player, *seen),
        noise=noises[0],
        learn=learned,
    )


def is_warm(buffer: Replay, cfg: ActorCriticConfig) -> jax.Array:
    """bool []: enough was played to learn from; members share it, so a branch on it stays one."""
    return buffer.filled * cfg.num_envs >= cfg.learning_starts


def learn(
    step: Callable[[L, Any], tuple[L, metrics.Metrics]],
    learner: L,
    buffer: Replay,
    noise: Noise,
    key: jax.Array,
    cfg: ActorCriticConfig,
    axis: str | None,
) -> tuple[L, metrics.Metrics]:
    """The gradient steps of a round, none before the replay is warm; sums over them."""
    index = mesh.global_index(cfg.batch_size // mesh.axis_size(axis), axis)

    def one(learner, key):
        row_key, noise_key = jax.random.split(key)
        rows, _ = replay.sample(buffer, row_key, cfg.batch_size, axis)
        drawn = jax.vmap(lambda k: noise(k, ()))(per_env_keys(noise_key, index))
        return step(learner, (rows, drawn))

    def several(learner):
        learner, parts = jax.lax.scan(one, learner, jax.random.split(key, cfg.gradient_steps))
        return learner, metrics.add_up(metrics.until_broken(parts))

    shapes = jax.eval_shape(several, learner)[1]
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.cond(is_warm(buffer, cfg), several, lambda same: (same, nothing), learner)


def check_actions(name: str, space: Any, or_discrete: bool = False) -> None:
    """ValueError, which says who serves them, for actions that are no Box with finite bounds."""
    if isinstance(space, spaces.Box) and space.bounded:
        return
    if isinstance(space, spaces.Discrete) and or_discrete:
        return
    served = "a Box of actions with finite bounds" + " or Discrete ones" * or_discrete
    other = "DQN, SAC or PPO" if isinstance(space, spaces.Discrete) else "PPO"
    raise ValueError(f"{name} needs {served}, not {space}; try {other}.")

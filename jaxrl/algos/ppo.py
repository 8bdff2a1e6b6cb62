"""Proximal policy optimisation (arXiv:1707.06347), discrete and continuous.

Differences from the paper, each an option: Adam's epsilon 1e-5, advantages normalised per
minibatch, observations and rewards normalised, value clipping, early stop on KL, gradient clip
(arXiv:2006.05990 and arXiv:2005.12729 measure them). Truncated episodes bootstrap from the value
of their last observation, which most implementations set to 0.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from jaxrl import actions, config, losses, mesh, networks, normalize, returns, sgd
from jaxrl.env import Environment
from jaxrl.networks import ActorCritic, NetworkSpec
from jaxrl.policy import Policy
from jaxrl.rollout import Carry, Transition, begin, rollout
from jaxrl.wrappers import AutoReset, EpisodeStats, ScaleAction, tree_where


@dataclass(frozen=True)
class Config:
    total_steps: int = 500_000  # environment steps in all, rounded up to whole iterations
    num_envs: int = 16  # environments stepped in parallel, B
    num_steps: int = 128  # steps of each environment per iteration, T
    num_epochs: int = 4  # passes over an iteration's T*B rows
    num_minibatches: int = 4  # optimizer steps per pass
    learning_rate: float = 2.5e-3  # of Adam
    lr_schedule: Literal["linear", "constant"] = "linear"  # linear: down to 0 at total_steps
    gamma: float = 0.99  # discount per step, in [0, 1]
    gae_lambda: float = 0.95  # in [0, 1]: 0 is one-step, 1 is Monte Carlo
    clip_eps: float = 0.2  # ratio kept within 1 +- clip_eps
    value_clip: float = 0.0  # new values kept this near to the old ones; 0: off
    value_coef: float = 0.5  # weight of the value loss
    entropy_coef: float = 0.01  # weight of the entropy bonus
    max_grad_norm: float = 0.5  # gradients are scaled down to this norm
    grad_clip: Literal["global", "network"] = "global"  # one norm, or one for each network
    target_kl: float = 0.0  # skip the rest of an iteration's minibatches above this KL; 0: off
    advantage_norm: Literal["minibatch", "batch", "none"] = "minibatch"  # over all devices
    accumulate: int = 0  # pieces a minibatch's gradient is computed in; 0: what fits a CPU's cache
    normalize_obs: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return
    network: str = "mlp"  # mlp, cnn or my_module:MyNet
    hidden: tuple[int, ...] = (64, 64)  # widths of each tower's hidden layers
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    squash: bool = False  # tanh-squashed Gaussian for continuous actions
    reset_pool: int = 0  # fresh resets per environment and iteration; 0: num_steps / 8

    def __post_init__(self):
        for field in ("total_steps", "num_envs", "num_steps", "num_epochs", "num_minibatches"):
            config.check_positive(field, getattr(self, field), getattr(Config, field))
        for field in ("learning_rate", "max_grad_norm", "clip_eps"):
            config.check_positive(field, getattr(self, field), getattr(Config, field))
        for field in ("gamma", "gae_lambda"):
            config.check_range(field, getattr(self, field), 0.0, 1.0, getattr(Config, field))
        for field in ("value_clip", "value_coef", "entropy_coef", "target_kl", "reset_pool"):
            config.check_range(field, getattr(self, field), 0.0, 1e9, getattr(Config, field))
        for width in self.hidden:
            config.check_positive("hidden", width, 64)
        rows = self.num_envs * self.num_steps
        config.check_divides("num_minibatches", self.num_minibatches, "num_envs*num_steps", rows)
        if self.accumulate:
            rows //= self.num_minibatches
            config.check_divides("accumulate", self.accumulate, "rows per minibatch", rows)

    @property
    def num_iterations(self) -> int:
        return -(-self.total_steps // (self.num_envs * self.num_steps))


class State(flax.struct.PyTreeNode):
    """Everything that must survive a crash; of one seed."""

    policy: ActorCritic
    opt_state: Any
    carry: Carry  # environments and their last observations, leaves [B, ...]
    obs_stats: Any  # RunningStats per observation leaf, or None
    reward_stats: normalize.RunningStats
    discounted: jax.Array  # float32 [B]: discounted reward since each episode began
    iteration: jax.Array  # int32 []


class Rows(flax.struct.PyTreeNode):
    """What the loss reads; leaves [N, ...]."""

    obs: Any  # normalised
    action: Any
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array


def specs() -> State:
    """How a State is laid out on a mesh, seeds stacked in front: environments are split."""
    replicated, split = P(mesh.SEED), P(mesh.SEED, mesh.DATA)
    return State(replicated, replicated, split, replicated, replicated, split, replicated)  # pyright: ignore


def network_spec(cfg: Config, env: Environment) -> NetworkSpec:
    """What the network for a wrapped environment is built from; ValueError if it does not fit."""
    space = env.observation_space
    seen = normalize.normalized_space(space) if cfg.normalize_obs else space
    return NetworkSpec(seen, env.action_space, cfg.network, cfg.hidden, cfg.activation, cfg.squash)


def make_policy(key: jax.Array, *, cfg: Config, env: Environment) -> Any:
    """A fresh network for the (wrapped) environment's spaces."""
    network = networks.build(network_spec(cfg, env), key)
    if not callable(getattr(network, "value", None)):
        raise ValueError(f"network={cfg.network} needs a method value(obs) for PPO.")
    return network


def wrap(env: Environment, cfg: Config) -> AutoReset:
    """The environment as `update` wants it: actions as drawn, statistics, auto-reset."""
    env = EpisodeStats(ScaleAction(env, squash=cfg.squash))
    return AutoReset(env, pool_size=cfg.reset_pool or max(2, cfg.num_steps // 8))


def optimizer(cfg: Config) -> optax.GradientTransformation:
    """Adam behind a clip by norm, of all parameters or of each network."""
    rate = cfg.learning_rate
    if cfg.lr_schedule == "linear":
        steps = cfg.num_iterations * cfg.num_epochs * cfg.num_minibatches
        rate = optax.linear_schedule(cfg.learning_rate, 0.0, steps)
    clip = optax.clip_by_global_norm(cfg.max_grad_norm)
    if cfg.grad_clip == "network":
        networks = ("actor", "critic", "log_std")
        clip = optax.partition(
            {name: optax.clip_by_global_norm(cfg.max_grad_norm) for name in networks},
            lambda params: jax.tree_util.tree_map_with_path(lambda path, _: path[0].name, params),
        )
    return optax.chain(clip, optax.adam(rate, eps=1e-5))


def init(key: jax.Array, *, cfg: Config, env: AutoReset, axis: str | None = None) -> State:
    """A fresh State; `env` comes from `wrap`, `axis` is the mesh axis the environments lie on."""
    policy_key, env_key = jax.random.split(key)
    policy = make_policy(policy_key, cfg=cfg, env=env)
    num_local = cfg.num_envs // mesh.axis_size(axis)
    return State(
        policy=policy,
        opt_state=optimizer(cfg).init(policy),  # pyright: ignore
        carry=begin(env, env_key, mesh.global_index(num_local, axis)),
        obs_stats=normalize.RunningStats.init_for(env.observation_space)
        if cfg.normalize_obs
        else None,
        reward_stats=normalize.RunningStats.init(),
        discounted=jnp.zeros(num_local),
        iteration=jnp.zeros((), jnp.int32),
    )


def act(policy: Any, obs_stats: Any, obs: Any, noise: Any) -> tuple[Any, Any, jax.Array]:
    """(action as sampled, the same for the environment, log-prob) for a batch of observations."""
    pi = policy.distribution(normalize.normalize_obs(obs_stats, obs))
    action = pi.sample(noise)
    return action, action, pi.log_prob(action)


def update(
    state: State, key: jax.Array, *, cfg: Config, env: AutoReset, axis: str | None = None
) -> tuple[State, dict[str, jax.Array]]:
    """One iteration: T*B environment steps, advantages, epochs of minibatches.

    Pure; scan it, vmap it over seeds, shard it. Metrics are float32 scalars, equal on all devices.
    """
    rollout_key, shuffle_key = jax.random.split(key)
    env_index = mesh.global_index(state.discounted.shape[0], axis)
    player = partial(act, state.policy, state.obs_stats)
    carry, steps, sums = rollout(
        env, state.carry, player, state.policy.noise, rollout_key, env_index, cfg.num_steps
    )
    state, steps = scale_rewards(state, steps, cfg, axis)
    rows = prepare(state, steps, cfg)
    order = sgd.shuffled_rows(
        shuffle_key, env_index, cfg.num_steps, cfg.num_epochs, cfg.num_minibatches
    )
    (policy, opt_state, _), learning = sgd.epochs(
        partial(minibatch_step, cfg=cfg, axis=axis),
        (state.policy, state.opt_state, jnp.ones((), jnp.bool_)),
        rows,
        order,
        advantage_moments(rows.advantage, order, cfg, axis),
    )
    if state.obs_stats is not None:  # only now: the loss must see the rollout's normalisation
        obs_stats = normalize.update_obs_stats(state.obs_stats, steps.obs, axis)
        state = state.replace(obs_stats=obs_stats)
    state = state.replace(
        policy=policy, opt_state=opt_state, carry=carry, iteration=state.iteration + 1
    )
    return state, summarize(policy, learning, rows, sums, axis)


def scale_rewards(
    state: State, steps: Transition, cfg: Config, axis: str | None
) -> tuple[State, Transition]:
    """Rewards over the running std of the discounted return, if asked for."""
    if not cfg.normalize_reward:
        return state, steps
    done = steps.terminated | steps.truncated
    carried, running = returns.discounted_sum(state.discounted, steps.reward, done, cfg.gamma)
    stats = state.reward_stats.update(running, axis)
    steps = steps.replace(reward=normalize.scale(stats, steps.reward))
    return state.replace(reward_stats=stats, discounted=carried), steps


def prepare(state: State, steps: Transition, cfg: Config) -> Rows:
    """Values, advantages and value targets of the rollout, as rows t*B + b."""
    obs = normalize.normalize_obs(state.obs_stats, steps.obs)
    next_obs = normalize.normalize_obs(state.obs_stats, steps.next_obs)
    value, next_value = values(state.policy, obs), values(state.policy, next_obs)
    advantage = returns.gae(
        steps.reward,
        value,
        next_value,
        steps.terminated,
        steps.truncated,
        cfg.gamma,
        cfg.gae_lambda,
    )
    rows = Rows(obs, steps.action, steps.aux, value, advantage, advantage + value)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)


def values(policy: ActorCritic, obs: Any) -> jax.Array:
    """V(obs) [T, B], on a CPU in pieces that its cache holds."""
    shape = jax.eval_shape(policy.value, obs).shape
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), obs)
    count = sgd.pieces_in_cache(shape[0] * shape[1])

    def in_pieces(policy, rows):
        pieces = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), rows)
        return jax.lax.map(policy.value, pieces).reshape(shape)

    def whole(policy, rows):
        return policy.value(rows).reshape(shape)

    if count == 1:
        return whole(policy, rows)
    return jax.lax.platform_dependent(policy, rows, cpu=in_pieces, default=whole)


def advantage_moments(
    advantage: jax.Array, order: jax.Array, cfg: Config, axis: str | None
) -> tuple[jax.Array, jax.Array]:
    """(mean, std) each [epochs * minibatches] that a minibatch's advantages are normalised by.

    Over the whole minibatch of all devices: one all-reduce for all minibatches of the iteration.
    """
    count = order.shape[0] * order.shape[1]
    if cfg.advantage_norm == "none":
        return jnp.zeros(count), jnp.ones(count)
    blocks = advantage[None] if cfg.advantage_norm == "batch" else advantage[order]
    mean = mesh.pmean(jnp.mean(blocks, -1), axis)
    var = mesh.pmean(jnp.mean(jnp.square(blocks - mean[..., None]), -1), axis)
    shape = order.shape[:2]
    return jnp.broadcast_to(mean, shape).ravel(), jnp.broadcast_to(jnp.sqrt(var), shape).ravel()


def loss(policy: ActorCritic, batch: Rows, cfg: Config) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean loss over the batch, and its parts; advantages come normalised."""
    pi, value = policy.distribution_and_value(batch.obs)
    log_prob, entropy = pi.log_prob(batch.action), jnp.mean(pi.entropy())
    surrogate = losses.clipped_surrogate(log_prob, batch.log_prob, batch.advantage, cfg.clip_eps)
    if cfg.value_clip > 0:
        value_error = losses.clipped_value_loss(value, batch.value, batch.target, cfg.value_clip)
    else:
        value_error = losses.value_loss(value, batch.target)
    policy_loss, value_loss = jnp.mean(surrogate), jnp.mean(value_error)
    total = policy_loss + cfg.value_coef * value_loss - cfg.entropy_coef * entropy
    ratio_error = jnp.abs(jnp.expm1(log_prob - batch.log_prob))
    return total, {
        "loss": total,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": jnp.mean(losses.approx_kl(log_prob, batch.log_prob)),
        "clip_fraction": jnp.mean((ratio_error > cfg.clip_eps).astype(jnp.float32)),
        "ratio_error": jnp.mean(ratio_error),
    }


def gradient(policy: ActorCritic, batch: Rows, cfg: Config) -> tuple[ActorCritic, dict]:
    """Gradient of `loss` over the batch and its metrics, in `accumulate` pieces.

    With accumulate=0 a CPU takes pieces that its cache holds, an accelerator the whole.
    """
    count = cfg.accumulate or sgd.pieces_in_cache(batch.advantage.shape[0])
    in_pieces = partial(_gradient, cfg=cfg, count=count)
    if cfg.accumulate or count == 1:
        return in_pieces(policy, batch)
    whole = partial(_gradient, cfg=cfg, count=1)
    return jax.lax.platform_dependent(policy, batch, cpu=in_pieces, default=whole)


def _gradient(
    policy: ActorCritic, batch: Rows, *, cfg: Config, count: int
) -> tuple[ActorCritic, dict]:
    grad_fn = jax.grad(loss, has_aux=True)
    if count == 1:
        return grad_fn(policy, batch, cfg)

    def add(total, piece):
        return jax.tree.map(jnp.add, total, grad_fn(policy, piece, cfg)), None

    pieces = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
    shapes = jax.eval_shape(partial(grad_fn, cfg=cfg), policy, jax.tree.map(lambda x: x[0], pieces))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, pieces)
    return jax.tree.map(lambda x: x / count, total)


def minibatch_step(
    carry: tuple, inputs: tuple[Rows, tuple[jax.Array, jax.Array]], *, cfg: Config, axis: str | None
) -> tuple[tuple, dict[str, jax.Array]]:
    """One optimizer step; its only collective is the mean of gradients and metrics."""
    policy, opt_state, live = carry
    batch, (mean, std) = inputs
    batch = batch.replace(advantage=(batch.advantage - mean) / (std + 1e-8))
    grads, metrics = mesh.pmean(gradient(policy, batch, cfg), axis)
    updates, new_opt_state = optimizer(cfg).update(grads, opt_state, policy)
    new_policy = optax.apply_updates(policy, updates)
    metrics["grad_norm_actor"] = optax.tree.norm((grads.actor, grads.log_std))
    metrics["grad_norm_critic"] = optax.tree.norm(grads.critic)
    if cfg.target_kl > 0:
        live = live & (metrics["approx_kl"] <= cfg.target_kl)
        new_policy, new_opt_state = tree_where(
            live, (new_policy, new_opt_state), (policy, opt_state)
        )
        metrics["minibatches_skipped"] = 1.0 - live.astype(jnp.float32)
    return (new_policy, new_opt_state, live), metrics


def summarize(
    policy: ActorCritic,
    learning: dict[str, jax.Array],
    rows: Rows,
    sums: dict[str, jax.Array],
    axis: str | None,
) -> dict[str, jax.Array]:
    """An iteration's metrics: means over minibatches, and over the episodes that ended.

    Episode metrics are NaN where no episode ended. `first_ratio_error` is the first minibatch's
    mean |ratio - 1|: sampler and learner must agree on the log-prob.
    """
    metrics = {name: jnp.mean(value) for name, value in learning.items() if name != "ratio_error"}
    metrics["first_ratio_error"] = learning["ratio_error"][0]
    error = rows.target - rows.value
    moments = [(jnp.mean(x), jnp.mean(x**2)) for x in (rows.target, error)]
    local = (moments, jnp.mean(rows.value), {name: jnp.sum(x) for name, x in sums.items()})
    moments, metrics["value"], episode = mesh.pmean(local, axis)
    metrics["param_norm"] = optax.tree.norm(policy)
    metrics["explained_variance"] = returns.explained_variance(*moments)
    count = episode.pop("episodes")
    devices = mesh.axis_size(axis)
    metrics["episodes"] = count * devices
    metrics["pool_exhausted"] = episode.pop("pool_exhausted") * devices
    metrics["truncated_share"] = episode.pop("truncations") / count
    return metrics | {name: total / count for name, total in episode.items()}


def trained_policy(state: State, *, cfg: Config, env: Environment) -> Policy:
    """The policy by itself, for the raw environment `env`; works on states stacked over seeds."""
    space = env.action_space
    spec = network_spec(cfg, wrap(env, cfg))
    scaling = actions.scaling(space, cfg.squash)
    return Policy(state.policy, state.obs_stats, spec, space, scaling)

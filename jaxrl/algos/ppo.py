"""Proximal policy optimisation (arXiv:1707.06347), discrete and continuous.

Differences from the paper, each an option: Adam's epsilon 1e-5, advantages normalised per
minibatch, observations and rewards normalised, value clipping, early stop on KL, gradient clip
(arXiv:2006.05990 and arXiv:2005.12729 measure them). Truncated episodes bootstrap from the value
of their last observation, which most implementations set to 0.

Of a policy with a memory a row is all that one environment played in an iteration. The loss plays
it again from the memory that it began with (a constant, of older weights: gradients reach back to
there), forgetting where episodes begin. Where an action led is valued with what the policy would
remember had it seen that, too.
"""

import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxrl import config, losses, mesh, networks, on_policy, sgd
from jaxrl.hosted import Hosted
from jaxrl.metrics import Metrics, Sums, add_up, mean, merged, quotient, value
from jaxrl.on_policy import (
    Batch,
    Options,
    State,
    advance,
    begin_learning,
    of_values,
    play,
    prepare,
    scale_rewards,
)
from jaxrl.rollout import Carry, Ended, Transition
from jaxrl.wrappers import EpisodeStats, tree_where


@config.pytree_dataclass
class Config(Options):
    recalls = True
    total_steps: config.Count = 500_000  # environment steps in all, rounded up to whole iterations
    num_envs: int = 16  # environments stepped in parallel, B
    num_steps: int = 128  # steps of each environment per iteration, T
    num_epochs: int = 4  # passes over an iteration's T*B rows
    num_minibatches: int = 4  # optimizer steps per pass
    learning_rate: float = 2.5e-3  # of Adam
    lr_schedule: Literal["linear", "constant"] = "linear"  # linear: down to 0 at total_steps
    gamma: float = 0.99  # discount per step, in [0, 1]
    gae_lambda: float = 0.95  # in [0, 1]: 0 is one-step, 1 is Monte Carlo
    clip_eps: float = 0.2  # ratio kept within 1 +- clip_eps
    value_clip: float | None = None  # new values kept this near to the old ones; None: off
    value_coef: float = 0.5  # weight of the value loss
    entropy_coef: float = 0.01  # weight of the entropy bonus
    max_grad_norm: float = 0.5  # gradients are scaled down to this norm
    grad_clip: Literal["global", "network"] = "global"  # one norm, or one for each network
    target_kl: float | None = None  # above it the rest of an iteration is skipped; None: off
    advantage_norm: Literal["minibatch", "batch", "none"] = "minibatch"  # over all devices
    accumulate: int = 0  # pieces a minibatch's gradient is computed in; 0: what fits a CPU's cache
    normalize_obs: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return
    network: str = "mlp"  # mlp, cnn, gru, lstm or my_module:MyNet
    hidden: tuple[int, ...] = (64, 64)  # widths of each tower's hidden layers
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    squash: bool = False  # tanh-squashed Gaussian for continuous actions
    reset_pool: int = 0  # fresh resets per environment and iteration; 0: num_steps / 8

    def __post_init__(self):
        self.check_options(("max_grad_norm", "clip_eps"), shares=("gae_lambda",))
        for field in ("value_clip", "target_kl"):
            config.check_positive(field, getattr(self, field), 0.2)
        for field in ("value_coef", "entropy_coef", "accumulate"):
            config.check_range(field, getattr(self, field), 0.0, 1e9, getattr(Config, field))
        if self.minibatch_rows == 1 and self.advantage_norm == "minibatch":
            fewer = max(1, self.num_minibatches // 2)
            raise ValueError(
                f"num_minibatches={self.num_minibatches} leaves one row in each, whose advantage "
                f"minus its own mean is 0: nothing is learned; try {fewer} or advantage_norm=batch."
            )
        if self.accumulate:
            name, rows = "rows per minibatch", self.minibatch_rows // self.row_steps
            config.check_divides("accumulate", self.accumulate, name, rows)

    @property
    def num_blocks(self) -> int:
        """Each device computes its share of a minibatch in as many pieces."""
        rows = self.minibatch_rows // self.row_steps
        return math.gcd(super().num_blocks, rows // self.accumulate if self.accumulate else 0)

    @property
    def row_steps(self) -> int:
        return self.num_steps if networks.has_memory(networks.class_of(self.network)) else 1


def optimizer(cfg: Config) -> optax.GradientTransformation:
    """Adam's direction, behind a clip by norm; the step's length is `sgd.descend`'s."""
    clip = {"global": optax.clip_by_global_norm, "network": sgd.clip_each_by_norm}[cfg.grad_clip]
    return optax.chain(clip(cfg.max_grad_norm), optax.scale_by_adam(eps=1e-5))


def init(key: jax.Array, *, cfg: Config, env: EpisodeStats, axis: str | None = None) -> State:
    """A fresh State; `env` comes from `wrap`, `axis` is the mesh axis the environments lie on."""
    return begin_learning(key, optimizer(cfg), cfg, env, axis)


def update(
    state: State, key: jax.Array, *, cfg: Config, env: EpisodeStats, axis: str | None = None
) -> tuple[State, Metrics]:
    """One iteration: T*B environment steps, advantages, epochs of minibatches.

    Pure; scan it, vmap it over members, shard it. Metrics are Sums, equal on all devices.
    """
    *play_keys, learn_key = jax.random.split(key, 3)
    played = play(state, *play_keys, cfg=cfg, env=env, axis=axis)
    return learn(state, *played, learn_key, cfg=cfg, axis=axis)


def learn(
    state: State,
    carry: Carry,
    steps: Transition,
    ended: Ended,
    key: jax.Array,
    *,
    cfg: Config,
    axis: str | None = None,
) -> tuple[State, Metrics]:
    """What follows a rollout, wherever it was played: everything of an iteration that learns."""
    env_index = mesh.global_index(state.discounted.shape[0], axis)
    state, steps = scale_rewards(state, steps, cfg, axis)
    rows = prepare(state, steps, cfg)
    shape = cfg.num_steps // cfg.row_steps, cfg.num_epochs, cfg.num_minibatches
    order = sgd.shuffled_rows(key, env_index, *shape)
    rate = cfg.learning_rate * sgd.schedule(cfg.lr_schedule, state.iteration, cfg.num_iterations)
    (policy, opt_state, _), learning = sgd.epochs(
        partial(minibatch_step, rate=rate, cfg=cfg, axis=axis),
        (state.policy, state.opt_state, jnp.ones((), jnp.bool_)),
        rows,
        order,
        advantage_moments(rows.advantage, order, cfg, axis),
    )
    state = advance(state, (policy, opt_state), carry, steps, axis)
    metrics = summarize(policy, learning, rows, axis) | {"learning_rate": value(rate)}
    return state, merged(metrics, ended.means(lambda sums: mesh.psum(sums, axis)))


def hosted(cfg: Config, env: EpisodeStats) -> Hosted:
    """The parts of an iteration for environments that are stepped outside of the program."""
    return on_policy.hosted(cfg, env, learn, lambda key: jax.random.split(key, 3)[1:])


def advantage_moments(
    advantage: jax.Array, order: jax.Array, cfg: Config, axis: str | None
) -> tuple[jax.Array, jax.Array]:
    """(mean, std) each [epochs * minibatches] that a minibatch's advantages are normalised by.

    Over the whole minibatch of all devices: two all-reduces for all minibatches of the iteration.
    """
    count = order.shape[0] * order.shape[1]
    if cfg.advantage_norm == "none":
        return jnp.zeros(count, jnp.float32), jnp.ones(count, jnp.float32)
    if cfg.advantage_norm == "batch":
        blocks = advantage.reshape(1, -1)
    else:
        blocks = advantage[order].reshape(*order.shape[:2], -1)
    mean = mesh.pmean(jnp.mean(blocks, -1), axis)
    var = mesh.pmean(jnp.mean(jnp.square(blocks - mean[..., None]), -1), axis)
    shape = order.shape[:2]
    return jnp.broadcast_to(mean, shape).ravel(), jnp.broadcast_to(jnp.sqrt(var), shape).ravel()


def loss(policy: Any, batch: Batch, cfg: Config) -> tuple[Sums, Metrics]:
    """The loss over the batch, and its parts; advantages come normalised."""
    _, seen = networks.recall(policy, batch.obs, batch.past)
    pi, value = networks.distribution_and_value(policy, *seen)
    log_prob, entropy = pi.log_prob(batch.action), pi.entropy()
    surrogate = losses.clipped_surrogate(log_prob, batch.log_prob, batch.advantage, cfg.clip_eps)
    if cfg.value_clip is None:
        value_loss = losses.value_loss(value, batch.target)
    else:
        value_loss = losses.clipped_value_loss(value, batch.value, batch.target, cfg.value_clip)
    ratio_error = jnp.abs(jnp.expm1(log_prob - batch.log_prob))
    parts = {
        "policy_loss": surrogate,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": losses.approx_kl(log_prob, batch.log_prob),
        "clip_fraction": ratio_error > cfg.clip_eps,
        "ratio_error": ratio_error,
    }
    total = surrogate + cfg.value_coef * value_loss - cfg.entropy_coef * entropy
    return mean(total), {name: mean(x) for name, x in parts.items()}


def minibatch_step(
    carry: tuple,
    inputs: tuple[Batch, tuple[jax.Array, jax.Array]],
    *,
    rate: jax.Array,
    cfg: Config,
    axis: str | None,
) -> tuple[tuple, Metrics]:
    """One optimizer step; its only collective is the sum of gradients and metrics."""
    policy, opt_state, live = carry
    batch, (centre, std) = inputs
    batch = batch.replace(advantage=(batch.advantage - centre) / (std + 1e-8))
    grads, metrics = sgd.gradient(
        partial(loss, cfg=cfg),
        policy,
        batch,
        batch.advantage.shape[0] // cfg.accumulate if cfg.accumulate else 0,
        sgd.over_devices(axis),
    )
    moved = sgd.descend(optimizer(cfg), grads, opt_state, policy, rate)
    for name, norm in sgd.norms(grads).items():
        metrics[f"grad_norm_{name}"] = value(norm)
    if cfg.target_kl is not None:
        live = live & (quotient(metrics["approx_kl"]) <= cfg.target_kl)
        moved = tree_where(live, moved, (policy, opt_state))
        metrics["minibatches_skipped"] = value(~live)
    return (*moved, live), metrics


def summarize(policy: Any, learning: Metrics, rows: Batch, axis: str | None) -> Metrics:
    """An iteration's metrics of learning, summed over its minibatches.

    `first_ratio_error` is the first minibatch's mean |ratio - 1|: sampler and learner must agree on
    the log-prob.
    """
    first = jax.tree.map(lambda x: x[0], learning["ratio_error"])
    metrics = {name: x for name, x in learning.items() if name != "ratio_error"}
    return add_up(metrics) | {"first_ratio_error": first} | of_values(policy, rows, axis)


layout, wrap, make_policy = on_policy.layout, on_policy.wrap, on_policy.make_policy
trained_policy, with_policy = on_policy.trained_policy, on_policy.with_policy

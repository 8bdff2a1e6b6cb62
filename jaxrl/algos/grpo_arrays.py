"""Group relative policy optimisation (arXiv:2402.03300) where observations are arrays: no critic.

From a state of an environment G branches are played with different keys, and each is judged by what
it was paid, compared with its group. As in the vine of TRPO (arXiv:1502.05477, section 5.2) groups
start along trajectories: an environment goes on along the first of its branches, which is a rollout
of the policy like any other, so that all states of an episode are starts, not the first ones alone,
and a branch may be far shorter than an episode. With `num_steps` of an episode's length or more,
every group starts at a fresh reset.

A branch ends with its episode, or is cut at its horizon, `num_steps`, or by the clock. There is no
critic to tell what would have followed: it is worth its discounted rewards so far. So what pays
off only later than the horizon is not learned. Steps that a branch does not play, because its
episode was over, count among `total_steps`, and no others learn from them.
"""

from functools import partial
from math import gcd
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from jaxrl import advantages, config, distributions, losses, mesh, networks, normalize, sgd
from jaxrl.metrics import Metrics, Sums, add_up, mean, merged, value
from jaxrl.on_policy import ActorOptions, act, network_spec, trained_policy, with_policy, wrap
from jaxrl.resets import fill_all, pool_size
from jaxrl.rollout import Carry, Transition, begin, rollout


@config.pytree_dataclass
class Config(ActorOptions):
    total_steps: config.Count = 500_000  # steps of all branches, rounded up to whole iterations
    num_envs: int = 64  # branches played side by side, B
    group_size: int = 8  # branches from the same state, G; it divides num_envs
    num_steps: int = 128  # steps of a branch at most, its horizon, T
    num_epochs: int = 4  # passes over what the branches played
    num_minibatches: int = 8  # steps of Adam per pass
    learning_rate: float = 1e-3  # of Adam
    lr_schedule: Literal["linear", "constant"] = "linear"  # linear: 0 after the last iteration
    gamma: float = 0.99  # discount per step of a branch
    divide_by_std: bool = True  # advantages over the group's standard deviation
    clip_eps: float = 0.2  # ratios beyond 1 +- this have no gradient
    entropy_coef: float = 0.01  # of the entropy bonus
    max_grad_norm: float = 0.5  # gradients are scaled down to it
    normalize_obs: bool = False  # by running mean and variance
    network: str = "mlp"  # mlp, cnn or my_module:MyNet; a critic in it is never read
    hidden: tuple[int, ...] = (64, 64)  # widths of the policy's hidden layers
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    squash: bool = False  # continuous actions through tanh
    reset_pool: int = 0  # resets a branch may need in an iteration; 0: num_steps / 8

    def __post_init__(self):
        self.check_options(("clip_eps", "max_grad_norm"))
        config.check_range("entropy_coef", self.entropy_coef, 0.0, 1e9, Config.entropy_coef)
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size} must be at least 2; try 8.")
        config.check_divides("group_size", self.group_size, "num_envs", self.num_envs)

    @property
    def num_groups(self) -> int:
        return self.num_envs // self.group_size

    @property
    def num_blocks(self) -> int:
        """What devices can share: groups stay whole, and so do blocks of shuffled rows."""
        return gcd(self.num_groups, super().num_blocks)


class State(flax.struct.PyTreeNode):
    """What must survive a crash; of one member."""

    policy: Any
    opt_state: Any
    carry: Carry  # the states that the next groups start at, leaves [P, ...]
    obs_stats: Any  # RunningStats per observation leaf, or None
    iteration: jax.Array  # int32 []


class Rows(flax.struct.PyTreeNode):
    """Steps of the branches, leaves [N, ...]."""

    obs: Any  # normalised
    action: Any
    log_prob: jax.Array
    advantage: jax.Array  # of the whole branch
    played: jax.Array  # bool: of its own episode, not of the one after it


def layout() -> State:
    """Where a State [K, ...] lies on a mesh: the starts are split over devices."""
    return State(*[P(mesh.SEED)] * 2, P(mesh.SEED, mesh.DATA), *[P(mesh.SEED)] * 2)  # pyright: ignore


def make_policy(key: jax.Array, *, cfg: Config, env: Any) -> Any:
    """A fresh network for the environment's spaces; it may do without a value."""
    return networks.build(network_spec(cfg, env), key)


def direction(cfg: Config) -> optax.GradientTransformation:
    """Adam's, behind a clip by norm."""
    return optax.chain(optax.clip_by_global_norm(cfg.max_grad_norm), optax.scale_by_adam(eps=1e-5))


def init(key: jax.Array, *, cfg: Config, env: Any, axis: str | None = None) -> State:
    """A fresh State: every group starts at a reset of its own."""
    policy_key, env_key = jax.random.split(key)
    policy = make_policy(policy_key, cfg=cfg, env=env)
    group = mesh.global_index(cfg.num_groups // mesh.axis_size(axis), axis)
    stats = normalize.RunningStats.init_for(env.observation_space) if cfg.normalize_obs else None
    carry, start = begin(env, env_key, group), jnp.zeros((), jnp.int32)
    return State(policy, direction(cfg).init(policy), carry, stats, start)


def update(state: State, key: jax.Array, *, cfg: Config, env: Any, axis: Any = None) -> tuple:
    """(State, Metrics): branches from every start, their comparison, epochs of minibatches."""
    pool_key, play_key, order_key = jax.random.split(key, 3)
    branch = mesh.global_index(cfg.num_envs // mesh.axis_size(axis), axis)
    pool = fill_all(env, pool_key, branch, pool_size(cfg, env))
    starts = jax.tree.map(lambda x: jnp.repeat(x, cfg.group_size, 0), state.carry)
    player = partial(act, state.policy, state.obs_stats)
    draw = partial(distributions.noise, env.action_space)
    ends, _, steps, ended = rollout(
        env, starts, pool, player, draw, play_key, branch, cfg.num_steps
    )
    rows, log = compare(state.obs_stats, steps, cfg, axis)
    rate = cfg.learning_rate * sgd.schedule(cfg.lr_schedule, state.iteration, cfg.num_iterations)
    step = sgd.plain_step(partial(loss, cfg=cfg), direction(cfg), rate, axis)
    order = sgd.shuffled_rows(order_key, branch, cfg.num_steps, cfg.num_epochs, cfg.num_minibatches)
    (policy, opt_state), parts = sgd.epochs(step, (state.policy, state.opt_state), rows, order, ())
    log |= {"first_ratio_error": jax.tree.map(lambda x: x[0], parts["ratio_error"])}
    log |= add_up(parts) | {"learning_rate": value(rate)}
    first = partial(jax.tree.map, lambda x: x[:: cfg.group_size])  # they alone go on: see above
    log = merged(log, first(ended).means(lambda sums: mesh.psum(sums, axis)))
    stats = state.obs_stats
    stats = stats if stats is None else normalize.update_obs_stats(stats, steps.obs, axis)
    return State(policy, opt_state, first(ends), stats, state.iteration + 1), log


def compare(
    obs_stats: Any, steps: Transition, cfg: Config, axis: str | None
) -> tuple[Rows, Metrics]:
    """The branches [T, B] as rows t*B + b, each step with the advantage of its branch."""
    ends = jnp.cumsum(steps.done, 0)
    played = ends - steps.done == 0
    discount = cfg.gamma ** jnp.arange(cfg.num_steps, dtype=jnp.float32)[:, None]
    worth = jnp.sum(jnp.where(played, discount * steps.reward, 0.0), 0)
    relative = advantages.group_advantage(worth, cfg.group_size, cfg.divide_by_std)
    log = {
        "branch_return": mean(worth),
        "branch_cut": mean(ends[-1] == 0),
        "branch_played": mean(played),
        "uniform_groups": Sums(*advantages.uniform_groups(worth, cfg.group_size)),
    }
    obs = normalize.normalize_obs(obs_stats, steps.obs)
    advantage = jnp.broadcast_to(relative, played.shape)
    rows = Rows(obs, steps.action, steps.aux, advantage, played)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows), mesh.psum(log, axis)


def loss(policy: Any, rows: Rows, cfg: Config) -> tuple[Sums, Metrics]:
    """The clipped surrogate with an entropy bonus, over the steps that were played."""
    pi = policy.distribution(rows.obs)
    log_prob, entropy = pi.log_prob(rows.action), pi.entropy()
    surrogate = losses.clipped_surrogate(log_prob, rows.log_prob, rows.advantage, cfg.clip_eps)
    ratio_error = jnp.abs(jnp.expm1(log_prob - rows.log_prob))
    parts = {
        "policy_loss": surrogate,
        "entropy": entropy,
        "approx_kl": losses.approx_kl(log_prob, rows.log_prob),
        "clip_fraction": ratio_error > cfg.clip_eps,
        "ratio_error": ratio_error,
    }
    total = surrogate - cfg.entropy_coef * entropy
    return mean(total, rows.played), {name: mean(x, rows.played) for name, x in parts.items()}


__all__ = ["Config", "State", "init", "trained_policy", "update", "with_policy", "wrap"]

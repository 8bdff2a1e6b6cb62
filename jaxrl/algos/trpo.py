"""Trust region policy optimisation (arXiv:1502.05477), the whole step inside the program.

Differences from the paper: a critic and generalized advantages (arXiv:1506.02438) instead of sums
of rewards, advantages normalised over the batch, damping, and truncated episodes bootstrap from
where they ended. From sb3-contrib's, whose defaults these are: the KL is the paper's, of the old
policy to the new one, and not the other way round. With layers that actor and critic share (a
network of your own) the critic's steps move the policy too, outside of the trust region.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxrl import advantages, config, losses, mesh, metrics, on_policy, sgd
from jaxrl.on_policy import Batch, State


@config.pytree_dataclass
class Config(on_policy.Options):
    total_steps: config.Count = 500_000  # environment steps played, rounded up to whole iterations
    num_envs: int = 16  # environments stepped side by side, B
    num_steps: int = 128  # steps of each environment per trust region step, T
    target_kl: float = 0.01  # radius of the trust region: mean KL of an iteration's step at most
    cg_steps: int = 15  # of conjugate gradient, each a product with the Fisher matrix
    cg_damping: float = 0.1  # added to the Fisher matrix's diagonal
    line_search_steps: int = 10  # lengths that are tried before the policy stays as it is
    line_search_shrink: float = 0.8  # each is this times the one before
    num_epochs: int = 10  # passes of the critic over the rows
    num_minibatches: int = 16  # of its optimizer steps per pass
    learning_rate: float = 1e-3  # of the critic's Adam
    gamma: float = 0.99  # discount of each step
    gae_lambda: float = 0.95  # from 0, one step, to 1, the whole return
    normalize_obs: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return
    network: str = "mlp"  # mlp, cnn or my_module:MyNet
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, of policy and critic each
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    squash: bool = False  # continuous actions through tanh
    reset_pool: int = 0  # resets an environment may need in an iteration; 0: num_steps / 8

    def __post_init__(self):
        above_0 = ("target_kl", "cg_steps", "line_search_steps", "line_search_shrink")
        self.check_options(above_0, shares=("gae_lambda", "line_search_shrink"))
        config.check_range("cg_damping", self.cg_damping, 0.0, 1e9, Config.cg_damping)


def critic_direction() -> optax.GradientTransformation:
    """Adam's; the policy's parameters have no gradient there, and stay."""
    return optax.scale_by_adam(eps=1e-5)


def init(key: jax.Array, *, cfg: Config, env: Any, axis: str | None = None) -> State:
    """A fresh State; the optimizer's part is the critic's."""
    return on_policy.begin_learning(key, critic_direction(), cfg, env, axis)


def update(state: State, key: jax.Array, *, cfg: Config, env: Any, axis: Any = None) -> tuple:
    """(State, Metrics) after T*B steps, one step of the policy and epochs of the critic."""
    play_key, order_key = jax.random.split(key)
    carry, steps, ended = on_policy.play(
        state, *jax.random.split(play_key), cfg=cfg, env=env, axis=axis
    )
    state, steps = on_policy.scale_rewards(state, steps, cfg, axis)
    rows = on_policy.prepare(state, steps, cfg)
    everything = jnp.ones(rows.advantage.shape, jnp.bool_)
    judged = rows.replace(advantage=advantages.whiten(rows.advantage, everything, axis))
    policy, log = improve(state.policy, judged, cfg, axis)
    fit = sgd.plain_step(critic_loss, critic_direction(), cfg.learning_rate, axis)
    sizes = cfg.num_steps, cfg.num_epochs, cfg.num_minibatches
    order = sgd.shuffled_rows(order_key, mesh.global_index(steps.reward.shape[1], axis), *sizes)
    learner, fitted = sgd.epochs(fit, (policy, state.opt_state), rows, order, ())
    log |= metrics.add_up(fitted) | on_policy.of_values(learner[0], rows, axis)
    state = on_policy.advance(state, learner, carry, steps, axis)
    return state, metrics.merged(log, ended.means(lambda sums: mesh.psum(sums, axis)))


@jax.named_scope("trust_region")
def improve(policy: Any, rows: Batch, cfg: Config, axis: str | None) -> tuple[Any, metrics.Metrics]:
    """(the policy after a step of at most `target_kl`, metrics); all sums are over all devices."""
    total = sgd.over_devices(axis)
    grads, log = sgd.gradient(surrogate, policy, rows, total=total)
    downhill, unravel = ravel_pytree(jax.tree.map(jnp.negative, grads))

    def fisher(vector: jax.Array) -> jax.Array:
        product = fisher_product(policy, unravel(vector), rows, total)
        return ravel_pytree(product)[0] + cfg.cg_damping * vector

    step = conjugate_gradient(fisher, downhill, cfg.cg_steps)
    curvature = step @ fisher(step)
    length = jnp.where(curvature > 0, jnp.sqrt(2.0 * cfg.target_kl / curvature), 0.0)

    def moved(share: jax.Array) -> Any:
        return jax.tree.map(lambda p, s: p + share * length * s, policy, unravel(step))

    share, found = line_search(lambda share: measure(policy, moved(share), rows, axis), cfg)
    log["first_ratio_error"] = log.pop("ratio_error")
    log |= {name: metrics.value(x) for name, x in found.items()}
    log |= {"step_share": metrics.value(share), "grad_norm": metrics.value(optax.tree.norm(grads))}
    return moved(share), log


def fisher_product(policy: Any, vector: Any, rows: Batch, total: sgd.Total) -> Any:
    """Fisher's matrix of the policy times a vector, both in the policy's structure.

    The derivative along the vector of the slope of the mean KL, which is 0 here.
    """

    def slope(policy):
        return sgd.gradient(divergence, policy, rows, total=total)[0]

    return jax.jvp(slope, (policy,), (vector,))[1]


def conjugate_gradient(
    product: Callable[[jax.Array], jax.Array], b: jax.Array, num_steps: int, tol: float = 1e-10
) -> jax.Array:
    """x with product(x) = b, nearly: at most `num_steps` steps from 0 (Hestenes & Stiefel 1952).

    `product` is one with a symmetric positive matrix; it ends where |b - product(x)|^2 < tol.
    """

    def step(carry):
        i, x, residual, direction, square = carry
        along = product(direction)
        curvature = direction @ along
        rate = jnp.where(curvature > 0, square / curvature, 0.0)
        x, residual = x + rate * direction, residual - rate * along
        now = residual @ residual
        return i + 1, x, residual, residual + now / square * direction, now

    def unsolved(carry):
        return (carry[0] < num_steps) & (carry[-1] >= tol)

    return jax.lax.while_loop(unsolved, step, (0, jnp.zeros_like(b), b, b, b @ b))[1]


def line_search(
    measured: Callable[[jax.Array], tuple[jax.Array, jax.Array]], cfg: Config
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(the first share of the full step that helps and stays near, what it came to); else 0.

    `measured(share)` is (improvement of the surrogate, mean KL).
    """

    def attempt(carry):
        tries, _, _ = carry
        share = jnp.float32(cfg.line_search_shrink) ** tries
        gain, kl = measured(share)
        fits = (gain > 0) & (kl <= cfg.target_kl)
        found = {"improvement": jnp.where(fits, gain, 0.0), "kl": jnp.where(fits, kl, 0.0)}
        return tries + 1, jnp.where(fits, share, 0.0), found

    def searching(carry):
        return (carry[0] < cfg.line_search_steps) & (carry[1] == 0)

    zero = jnp.zeros((), jnp.float32)
    start = jnp.zeros((), jnp.int32), zero, {"improvement": zero, "kl": zero}
    tries, share, found = jax.lax.while_loop(searching, attempt, start)
    return share, found | {"line_search_tries": tries}


def measure(old: Any, new: Any, rows: Batch, axis: str | None) -> tuple[jax.Array, jax.Array]:
    """(how much the surrogate grows, mean KL(old || new)) over the rows of all devices."""

    def piece(policies, rows):
        before, after = (policy.distribution(rows.obs) for policy in policies)
        gain = -losses.policy_gradient(_ratio(after, rows) - 1.0, rows.advantage)
        return gain, before.kl(after)

    each = sgd.map_pieces(piece, (old, new), rows)
    gain, kl = mesh.psum(jax.tree.map(metrics.mean, each), axis)
    return metrics.quotient(gain), metrics.quotient(kl)


def _ratio(pi: Any, rows: Batch) -> jax.Array:
    return jnp.exp(pi.log_prob(rows.action) - rows.log_prob)


def surrogate(policy: Any, rows: Batch) -> tuple[metrics.Sums, metrics.Metrics]:
    """What the step makes smaller: the advantage, weighted by the ratio of probabilities."""
    pi = policy.distribution(rows.obs)
    ratio = _ratio(pi, rows)
    parts = {"entropy": pi.entropy(), "ratio_error": jnp.abs(ratio - 1.0)}
    total = losses.policy_gradient(ratio, rows.advantage)
    return metrics.mean(total), {name: metrics.mean(x) for name, x in parts.items()}


def divergence(policy: Any, rows: Batch) -> tuple[metrics.Sums, metrics.Metrics]:
    """KL to itself: 0 without a slope, and of the second derivative of Fisher's matrix."""
    pi = policy.distribution(rows.obs)
    return metrics.mean(jax.lax.stop_gradient(pi).kl(pi)), {}


def critic_loss(policy: Any, rows: Batch) -> tuple[metrics.Sums, metrics.Metrics]:
    """The squared error of the value, as sb3-contrib's: without its half."""
    error = 2.0 * losses.value_loss(policy.value(rows.obs), rows.target)
    return metrics.mean(error), {"value_loss": metrics.mean(error)}


layout, wrap, make_policy = on_policy.layout, on_policy.wrap, on_policy.make_policy
trained_policy, with_policy = on_policy.trained_policy, on_policy.with_policy

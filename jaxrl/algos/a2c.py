"""Advantage actor-critic (arXiv:1602.01783), the synchronous form: one gradient step a rollout.

Differences from the paper: no threads, actor and critic do not share layers, and truncated episodes
bootstrap from where they ended. From Stable-Baselines3's, whose defaults these are: 8 environments
instead of 1, and `value_coef` weighs half the squared error, so that 1 is its 0.5.
"""

from functools import partial
from typing import Any, Literal

import jax
import optax

from jaxrl import config, losses, mesh, networks, on_policy, sgd
from jaxrl.hosted import Hosted
from jaxrl.metrics import Metrics, Sums, mean, merged, value
from jaxrl.on_policy import Batch, State


@config.pytree_dataclass
class Config(on_policy.Options):
    total_steps: config.Count = 500_000  # environment steps, rounded up to whole iterations
    num_envs: int = 8  # environments stepped in parallel, B
    num_steps: int = 5  # steps of each environment before every gradient step, T
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    learning_rate: float = 7e-4  # of the optimizer
    lr_schedule: Literal["linear", "constant"] = "constant"  # linear: 0 after the last iteration
    gamma: float = 0.99  # discount per step
    gae_lambda: float = 1.0  # 1 is the sum of the rollout's rewards and the value after it
    value_coef: float = 1.0  # of half the squared error of the value
    entropy_coef: float = 0.0  # of the entropy bonus
    max_grad_norm: float = 0.5  # the gradient is scaled down to this norm
    normalize_obs: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return
    network: str = "mlp"  # mlp, cnn or my_module:MyNet
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers of actor and critic
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    squash: bool = False  # continuous actions through tanh
    reset_pool: int = 0  # resets an environment may need in an iteration; 0: num_steps / 8

    num_epochs = num_minibatches = 1  # every row is read once

    def __post_init__(self):
        self.check_options(("max_grad_norm",), ("gae_lambda",))
        for name in ("value_coef", "entropy_coef"):
            config.check_range(name, getattr(self, name), 0.0, 1e9, getattr(Config, name))


def direction(cfg: Config) -> optax.GradientTransformation:
    """The optimizer's, behind a clip by norm; RMSprop's mean of squares starts at 1."""
    scale = {
        "rmsprop": optax.scale_by_rms(decay=0.99, eps=1e-5, initial_scale=1.0),
        "adam": optax.scale_by_adam(eps=1e-5),
    }[cfg.optimizer]
    return optax.chain(optax.clip_by_global_norm(cfg.max_grad_norm), scale)


def init(key: jax.Array, *, cfg: Config, env: Any, axis: str | None = None) -> State:
    """A fresh State in the environment that `wrap` gives, on this device of a mesh axis."""
    return on_policy.begin_learning(key, direction(cfg), cfg, env, axis)


def update(state: State, key: jax.Array, *, cfg: Config, env: Any, axis: Any = None) -> tuple:
    """(State, Metrics) after T*B steps and one step of the optimizer."""
    played = on_policy.play(state, *jax.random.split(key), cfg=cfg, env=env, axis=axis)
    return learn(state, *played, cfg=cfg, axis=axis)


def learn(
    state: State, carry: Any, steps: Any, ended: Any, _: Any = None, *, cfg: Config, axis: Any
) -> tuple[State, Metrics]:
    """What follows a rollout, wherever it was played; nothing in it is drawn."""
    state, steps = on_policy.scale_rewards(state, steps, cfg, axis)
    rows = on_policy.prepare(state, steps, cfg)
    total = sgd.over_devices(axis)
    grads, log = sgd.gradient(partial(loss, cfg=cfg), state.policy, rows, total=total)
    rate = cfg.learning_rate * sgd.schedule(cfg.lr_schedule, state.iteration, cfg.num_iterations)
    learner = sgd.descend(direction(cfg), grads, state.opt_state, state.policy, rate)
    log |= {f"grad_norm_{name}": value(norm) for name, norm in sgd.norms(grads).items()}
    log |= on_policy.of_values(learner[0], rows, axis) | {"learning_rate": value(rate)}
    state = on_policy.advance(state, learner, carry, steps, axis)
    return state, merged(log, ended.means(lambda sums: mesh.psum(sums, axis)))


def hosted(cfg: Config, env: Any) -> Hosted:
    """For environments that are stepped outside of the program."""
    return on_policy.hosted(cfg, env, learn, lambda key: (jax.random.split(key)[1], key))


def loss(policy: Any, rows: Batch, cfg: Config) -> tuple[Sums, Metrics]:
    """Policy gradient, value error and entropy bonus over the rows, and the parts."""
    pi, predicted = networks.distribution_and_value(policy, rows.obs)
    parts = {
        "policy_loss": losses.policy_gradient(pi.log_prob(rows.action), rows.advantage),
        "value_loss": losses.value_loss(predicted, rows.target),
        "entropy": pi.entropy(),
    }
    total = parts["policy_loss"] + cfg.value_coef * parts["value_loss"]
    total = total - cfg.entropy_coef * parts["entropy"]
    return mean(total), {name: mean(x) for name, x in parts.items()}


layout, wrap, make_policy = on_policy.layout, on_policy.wrap, on_policy.make_policy
trained_policy, with_policy = on_policy.trained_policy, on_policy.with_policy

"""Soft actor-critic with a learned temperature (arXiv:1812.05905), for choices arXiv:1910.07207.

Differences from the papers: orthogonal kernels; critics, actor and temperature take a step side by
side, each with the others as they were; before `learning_starts` the fresh policy plays, which is
close to uniform; a choice of n actions keeps an entropy of 0.3 log n and not of 0.98 log n, which
is next to uniform, whatever the actions pay.
"""

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from jaxrl import actions, config, distributions, losses, mesh, metrics, networks, off_policy, sgd
from jaxrl.hosted import Hosted
from jaxrl.networks import actors
from jaxrl.networks.critics import each_q, make_critics
from jaxrl.policy import Policy
from jaxrl.replay import Replay
from jaxrl.rollout import Carry, Decision
from jaxrl.spaces import Box, Discrete
from jaxrl.wrappers import EpisodeStats, ScaleAction


@config.pytree_dataclass
class Config(off_policy.ActorCriticConfig):
    target_entropy: float | None = None  # in nats; None: -A for a Box, 0.3 log n for choices

    def __post_init__(self):
        super().__post_init__()
        config.check_range("target_entropy", self.target_entropy, -1e6, 1e6, -1.0)


network_spec = partial(off_policy.network_spec, kind=actors.SoftActor)  # (cfg, wrapped env)


class Trained(flax.struct.PyTreeNode):
    """What a gradient moves."""

    actor: Any  # SoftActor, or of a class of someone's own
    critics: Any  # leaves [2, ...]
    log_alpha: jax.Array  # float32 []: log of the temperature


class Learner(flax.struct.PyTreeNode):
    trained: Trained
    targets: Any  # the critics' running mean
    opt_state: Any


class State(flax.struct.PyTreeNode):
    """Everything that must survive a crash; of one member."""

    learner: Learner
    carry: Carry
    buffer: Replay
    iteration: jax.Array  # int32 []


def layout() -> State:
    """Of a State on a mesh, members stacked in front: environments are split, with their replay."""
    whole, split = P(mesh.SEED), P(mesh.SEED, mesh.DATA)
    return State(whole, split, Replay(split, whole), whole)  # pyright: ignore


def wrap(env: Any, cfg: Config) -> EpisodeStats:
    """The environment as `update` wants it: reals before their tanh, choices as they are."""
    del cfg
    off_policy.check_actions("SAC", env.action_space, or_discrete=True)
    return EpisodeStats(ScaleAction(env, squash=isinstance(env.action_space, Box)))


def make_policy(key: jax.Array, *, cfg: Config, env: Any) -> Any:
    """A fresh actor for the (wrapped) environment's spaces."""
    return networks.build(network_spec(cfg, env), key)


def entropy_target(cfg: Config, space: Any) -> Any:
    """In nats, of the squashed action where it is a real one."""
    if cfg.target_entropy is not None:
        return cfg.target_entropy
    return 0.3 * float(np.log(space.n)) if isinstance(space, Discrete) else -float(space.shape[0])


def init(key: jax.Array, *, cfg: Config, env: Any, axis: str | None = None) -> State:
    """Fresh weights, a temperature of 1 and an empty replay; `axis` as in `update`."""
    actor_key, critic_key, env_key = jax.random.split(key, 3)
    actor = make_policy(actor_key, cfg=cfg, env=env)
    critics = make_critics(network_spec(cfg, env), 2, critic_key)
    trained = Trained(actor, critics, jnp.zeros((), jnp.float32))
    opt_state: Any = optax.scale_by_adam().init(trained)  # pyright: ignore
    learner = Learner(trained, critics, opt_state)
    return State(learner, *off_policy.begin(env, env_key, cfg, axis), jnp.zeros((), jnp.int32))


def act(learner: Learner, warm: jax.Array, memory: Any, obs: Any, noise: Any) -> tuple:
    """(memory, Decision): a sample for each of a batch of observations."""
    del warm  # the fresh policy explores by itself
    return memory, Decision(learner.trained.actor.distribution(obs).sample(noise))


def update(
    state: State, key: jax.Array, *, cfg: Config, env: Any, axis: str | None = None
) -> tuple[State, metrics.Metrics]:
    """Rounds of steps by samples of the policy, and of gradient steps of all that is trained."""
    step, noises = parts(cfg, env.action_space)
    before = state.learner, state.carry, state.buffer, act, partial(step, axis=axis)
    *after, log = off_policy.iterate(env, *before, noises, key, cfg, axis)
    return State(*after, state.iteration + 1), log  # pyright: ignore


def parts(cfg: Config, space: Any) -> tuple[Any, tuple]:
    """(the gradient step, noises of a step that is played and of a row)."""
    step = partial(gradient_step, cfg=cfg, goal=entropy_target(cfg, space))
    return step, (partial(distributions.noise, space), partial(noise_of_row, space))


def hosted(cfg: Config, env: Any) -> Hosted:
    """For environments that are stepped outside of the program."""

    def put(state: State, learner: Learner, buffer: Replay) -> State:
        return state.replace(learner=learner, buffer=buffer)

    return off_policy.hosted(cfg, act, *parts(cfg, env.action_space), put)


def noise_of_row(space: Any, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Of the actions after a row and at it, leaves [..., 2, A]; choices need none."""
    return distributions.noise(space, key, (*shape, 2))


def gradient_step(
    learner: Learner, batch: Any, *, cfg: Config, goal: Any, axis: str | None
) -> tuple[Learner, metrics.Metrics]:
    """A step of everything; its only collective is the gradients' sum."""
    trained, targets = learner.trained, learner.targets
    objective = partial(loss, frozen=trained, targets=targets, cfg=cfg, goal=goal)
    grads, log = sgd.gradient(objective, trained, batch, total=sgd.over_devices(axis))
    before = learner.opt_state, trained
    trained, opt_state = sgd.descend(optax.scale_by_adam(), grads, *before, cfg.learning_rate)
    targets = optax.incremental_update(trained.critics, targets, cfg.tau)
    return Learner(trained, targets, opt_state), log


def loss(
    trained: Trained, batch: Any, *, frozen: Trained, targets: Any, cfg: Config, goal: Any
) -> tuple[metrics.Sums, metrics.Metrics]:
    """Sum of the three losses (eqs. 5, 9 and 18 of arXiv:1812.05905), and their parts.

    `frozen` is `trained` where a loss has no gradient for it.
    """
    (rows, noise), alpha = batch, jnp.exp(frozen.log_alpha)
    pi = frozen.actor.distribution(rows.next_obs)
    ahead, entropy = value_and_entropy(pi, targets, rows.next_obs, noise[:, 0])
    ahead = jnp.where(rows.terminated, 0.0, ahead + alpha * entropy)
    q = of_action(trained.critics, rows.obs, rows.action)
    q_loss = jnp.sum(losses.value_loss(q, rows.reward + cfg.gamma * ahead), 0)
    pi = trained.actor.distribution(rows.obs)
    value, entropy = value_and_entropy(pi, frozen.critics, rows.obs, noise[:, 1])
    actor_loss = -(value + alpha * entropy)
    alpha_loss = trained.log_alpha * (jax.lax.stop_gradient(entropy) - goal)
    parts = {"q_loss": q_loss, "actor_loss": actor_loss, "entropy": entropy, "q": q[0]}
    log = {name: metrics.mean(x) for name, x in parts.items()}
    log["alpha"] = metrics.mean(jnp.broadcast_to(alpha, entropy.shape))
    return metrics.mean(q_loss + actor_loss + alpha_loss), log


def value_and_entropy(pi: Any, critics: Any, obs: Any, noise: jax.Array) -> tuple:
    """(the smaller critic's Q, entropy), float32 [N] each, whose expectation is that under pi.

    Exact for choices (eqs. 10 and 12 of arXiv:1910.07207), of one sample for reals.
    """
    if isinstance(pi, distributions.Categorical):
        q = jnp.min(each_q(critics, obs), 0)
        return jnp.sum(pi.probability() * q, -1), pi.entropy()
    action = pi.sample(noise)
    return jnp.min(of_action(critics, obs, action), 0), -pi.log_prob(action)


def of_action(critics: Any, obs: Any, action: jax.Array) -> jax.Array:
    """float32 [2, N]: each critic's Q of actions as they are drawn."""
    if jnp.issubdtype(action.dtype, jnp.integer):
        q = each_q(critics, obs)
        return jnp.take_along_axis(q, action[None, :, None], -1)[..., 0]
    return each_q(critics, (obs, jnp.tanh(action)))


def trained_policy(state: State, *, cfg: Config, env: Any) -> Policy:
    """The actor by itself, for the raw environment; works on states stacked over members."""
    spec, space = network_spec(cfg, wrap(env, cfg)), env.action_space
    scaling = actions.scaling(space, spec.squash)
    return Policy(state.learner.trained.actor, None, spec, space, scaling)


def with_policy(state: State, policy: Policy) -> State:
    """The state with the weights of another actor."""
    trained = state.learner.trained.replace(actor=policy.network)
    return state.replace(learner=state.learner.replace(trained=trained))

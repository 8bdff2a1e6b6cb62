"""Twin delayed deterministic policy gradient (TD3, arXiv:1802.09477) and DDPG (arXiv:1509.02971).

DDPG is TD3 with one critic, an actor that learns at every step, and targets without noise.
Differences from the papers: orthogonal kernels, Gaussian exploration in DDPG too, no weight decay.
"""

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from jaxrl import config, losses, mesh, metrics, networks, off_policy, replay
from jaxrl.distributions import noise
from jaxrl.env import Environment
from jaxrl.hosted import Hosted
from jaxrl.networks import actors
from jaxrl.networks.critics import each_q, make_critics
from jaxrl.policy import Policy
from jaxrl.rollout import Carry, Decision
from jaxrl.sgd import descend, gradient, over_devices
from jaxrl.wrappers import EpisodeStats, ScaleAction


@config.pytree_dataclass
class Config(off_policy.ActorCriticConfig):
    learning_starts: int = 1000  # environment steps before the first gradient step, at random
    policy_delay: int = 2  # steps of the critics for one of the actor and of all targets
    num_critics: int = 2  # the smallest value counts
    exploration_noise: float = 0.1  # std of what is added to played actions, which are in [-1, 1]
    target_noise: float = 0.2  # the same in the targets
    noise_clip: float = 0.5  # the most of it there

    def __post_init__(self):
        config.check_positive("policy_delay", self.policy_delay, Config.policy_delay)
        config.check_range("num_critics", self.num_critics, 1, 100, Config.num_critics)
        for field in ("exploration_noise", "target_noise", "noise_clip"):
            config.check_range(field, getattr(self, field), 0.0, 2.0, getattr(Config, field))
        super().__post_init__()


network_spec = partial(off_policy.network_spec, kind=actors.DeterministicActor)


class Networks(flax.struct.PyTreeNode):
    actor: Any  # DeterministicActor, or of a class of someone's own
    critics: Any  # leaves [num_critics, ...]


class Learner(flax.struct.PyTreeNode):
    networks: Networks
    targets: Networks  # running means of the networks
    opt_states: Networks  # Adam's, of each
    updates: jax.Array  # int32 []: steps of the critics, modulo policy_delay


class State(flax.struct.PyTreeNode):
    """Everything that must survive a crash; of one member."""

    learner: Learner
    play: tuple[Carry, replay.Replay]  # environments, and what was played in them
    iteration: jax.Array  # int32 []

    @property
    def buffer(self) -> replay.Replay:
        return self.play[1]


def layout() -> State:
    """Of a State [K, ...] on a mesh."""
    same, apart = P(mesh.SEED), P(mesh.SEED, mesh.DATA)
    return State(same, (apart, replay.Replay(apart, same)), same)  # pyright: ignore


def wrap(env: Environment, cfg: Config) -> EpisodeStats:
    """Actions in [-1, 1], and statistics of episodes; ValueError for actions without bounds."""
    del cfg
    off_policy.check_actions("TD3", env.action_space)
    return EpisodeStats(ScaleAction(env))


def make_policy(key: jax.Array, *, cfg: Config, env: Environment) -> Any:
    """A fresh actor for a wrapped environment."""
    return networks.build(network_spec(cfg, env), key, needs=("action",))


def init(key: jax.Array, *, cfg: Config, env: Environment, axis: str | None = None) -> State:
    """A fresh State; `env` comes from `wrap`, `axis` is the mesh axis that environments lie on."""
    keys = jax.random.split(key, 3)
    actor = make_policy(keys[0], cfg=cfg, env=env)
    learned = Networks(actor, make_critics(network_spec(cfg, env), cfg.num_critics, keys[1]))
    adam: Any = optax.scale_by_adam().init
    opt_states = Networks(adam(learned.actor), adam(learned.critics))
    zero = jnp.zeros((), jnp.int32)
    learner = Learner(learned, learned, opt_states, zero)
    return State(learner, off_policy.begin(env, keys[2], cfg, axis), zero)


def act(
    learner: Learner, warm: jax.Array, memory: Any, obs: Any, noise: jax.Array, *, std: Any
) -> tuple[Any, Decision]:
    """(memory, Decision) for observations [B, ...]: the actor's action and noise, or a uniform one.

    noise float32 [B, A] is normal, so its error function is uniform.
    """
    chosen = jnp.clip(learner.networks.actor.action(obs) + std * noise, -1.0, 1.0)
    return memory, Decision(jnp.where(warm, chosen, jax.scipy.special.erf(noise * 0.5**0.5)))


def update(
    state: State, key: jax.Array, *, cfg: Config, env: Environment, axis: str | None = None
) -> tuple[State, metrics.Metrics]:
    """One iteration: rounds of steps into the replay, and of steps of the critics."""
    draw = partial(noise, env.action_space)
    learner, *play, log = off_policy.iterate(
        env,
        state.learner,
        *state.play,
        partial(act, std=cfg.exploration_noise),
        partial(gradient_step, cfg=cfg, axis=axis),
        (draw, draw),
        key,
        cfg,
        axis,
    )
    return State(learner, tuple(play), state.iteration + 1), log  # pyright: ignore


def hosted(cfg: Config, env: Environment) -> Hosted:
    """The parts of an iteration for environments on the host."""
    draw = partial(noise, env.action_space)
    player = partial(act, std=cfg.exploration_noise)

    def put(state: State, learner: Learner, buffer: replay.Replay) -> State:
        return state.replace(learner=learner, play=(state.play[0], buffer))

    return off_policy.hosted(cfg, player, partial(gradient_step, cfg=cfg), (draw, draw), put)


def gradient_step(
    learner: Learner, batch: tuple[off_policy.Row, jax.Array], *, cfg: Config, axis: str | None
) -> tuple[Learner, metrics.Metrics]:
    """One step of the critics, and every `policy_delay`-th time of the actor and the targets."""
    (rows, noise), learned, opt_states = batch, learner.networks, learner.opt_states
    objective = partial(critic_loss, target=target(learner.targets, rows, noise, cfg))
    critics, critics_state, log = descended(
        objective, learned.critics, opt_states.critics, rows, cfg, axis
    )

    def improve():
        objective = partial(actor_loss, critics=critics)
        actor, actor_state, log = descended(
            objective, learned.actor, opt_states.actor, rows, cfg, axis
        )
        new: Any = Networks(actor, critics)
        moved = optax.incremental_update(new, learner.targets, cfg.tau)  # pyright: ignore
        return actor, actor_state, moved, {"actor_loss": log["loss"]}

    def wait():
        unknown = metrics.Sums(*jnp.zeros(2, jnp.float32))
        return learned.actor, opt_states.actor, learner.targets, {"actor_loss": unknown}

    updates = (replay.same_in_members(learner.updates) + 1) % cfg.policy_delay
    actor, actor_state, targets, late = jax.lax.cond(updates == 0, improve, wait)
    opt_states = Networks(actor_state, critics_state)
    return Learner(Networks(actor, critics), targets, opt_states, updates), log | late


def descended(
    objective: Any, params: Any, opt_state: Any, rows: Any, cfg: Config, axis: str | None
) -> tuple[Any, Any, metrics.Metrics]:
    """(params, Adam's state, metrics) after a step down the loss over the rows of all devices."""
    grads, log = gradient(objective, params, rows, total=over_devices(axis))
    return *descend(optax.scale_by_adam(), grads, opt_state, params, cfg.learning_rate), log


def target(targets: Networks, rows: off_policy.Row, noise: jax.Array, cfg: Config) -> jax.Array:
    """float32 [N]: what each critic should say, eqs. 10 and 14 of arXiv:1802.09477."""
    smoothing = jnp.clip(cfg.target_noise * noise, -cfg.noise_clip, cfg.noise_clip)
    action = jnp.clip(targets.actor.action(rows.next_obs) + smoothing, -1.0, 1.0)
    ahead = jnp.min(each_q(targets.critics, (rows.next_obs, action)), 0)
    return rows.reward + cfg.gamma * jnp.where(rows.terminated, 0.0, ahead)


def critic_loss(critics: Any, rows: off_policy.Row, target: jax.Array) -> tuple:
    """Half the squared errors of all critics, added up."""
    q = each_q(critics, (rows.obs, rows.action))
    return metrics.mean(jnp.sum(losses.value_loss(q, target), 0)), {"q": metrics.mean(q[0])}


def actor_loss(actor: Any, rows: off_policy.Row, critics: Any) -> tuple:
    """Minus what the first critic says of the actor's action, eq. 6 of arXiv:1509.02971."""
    first = jax.tree.map(lambda x: x[:1], critics)
    return metrics.mean(-each_q(first, (rows.obs, actor.action(rows.obs)))[0]), {}


def trained_policy(state: State, *, cfg: Config, env: Environment) -> Policy:
    """The actor without its noise; also of states stacked over members."""
    actor = state.learner.networks.actor
    spec = network_spec(cfg, wrap(env, cfg))
    return Policy(actor, None, spec, env.action_space, "rescale")


def with_policy(state: State, policy: Policy) -> State:
    """The state with another actor's weights, in its target too."""
    networks = state.learner.networks.replace(actor=policy.network)
    targets = state.learner.targets.replace(actor=policy.network)
    return state.replace(learner=state.learner.replace(networks=networks, targets=targets))

"""What algorithms share whose policy learns from its own rollout: how it acts, what it is worth."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from jaxrl import actions, config, distributions, mesh, metrics, networks, normalize, returns, sgd
from jaxrl.env import Environment
from jaxrl.hosted import Hosted, Played, carried
from jaxrl.networks import NetworkSpec
from jaxrl.policy import Policy
from jaxrl.resets import fill_all, pool_size
from jaxrl.rollout import Carry, Decision, Ended, Transition, begin, rollout
from jaxrl.wrappers import EpisodeStats, ScaleAction


class ActorOptions(sgd.Sizes):
    """What the Config of a policy's learner has beside the sizes."""

    learning_rate: float
    gamma: float
    normalize_obs: bool
    network: str
    hidden: tuple[int, ...]
    activation: str
    squash: bool
    recalls = False  # a policy may have a memory; then `row_steps` says so

    def check_options(self, positive: Sequence[str] = (), shares: Sequence[str] = ()) -> None:
        """ValueError for a number out of range; further ones are above 0, or shares in [0, 1]."""
        self.check_sizes()
        for name in ("learning_rate", *positive):
            config.check_positive(name, getattr(self, name), getattr(type(self), name))
        for name in ("gamma", *shares):
            config.check_range(name, getattr(self, name), 0.0, 1.0, getattr(type(self), name))
        for width in self.hidden:
            config.check_positive("hidden", width, 64)


class Options(ActorOptions):
    """With a critic."""

    gae_lambda: float
    normalize_reward: bool


class State(flax.struct.PyTreeNode):
    """Everything that must survive a crash; of one seed."""

    policy: Any
    opt_state: Any
    carry: Carry  # environments and their last observations, leaves [B, ...]
    obs_stats: Any  # RunningStats per observation leaf, or None
    reward_stats: normalize.RunningStats
    discounted: jax.Array  # float32 [B]: discounted reward since each episode began
    iteration: jax.Array  # int32 []


class Batch(flax.struct.PyTreeNode):
    """What the loss reads; leaves [N, ...], or [N, T, ...] where a policy has a memory."""

    obs: Any  # normalised
    action: Any
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array
    past: tuple = ()  # with a memory: that before a sequence [N, ...], and `done` [N, T]


def layout() -> State:
    """Of a State on a mesh, members stacked in front: environments are split."""
    replicated, split = P(mesh.SEED), P(mesh.SEED, mesh.DATA)
    return State(replicated, replicated, split, replicated, replicated, split, replicated)  # pyright: ignore


def network_spec(cfg: ActorOptions, env: Environment) -> NetworkSpec:
    """What the network for a wrapped environment is built from; ValueError if it does not fit."""
    space = env.observation_space
    seen = normalize.normalized_space(space) if cfg.normalize_obs else space
    return NetworkSpec(seen, env.action_space, cfg.network, cfg.hidden, cfg.activation, cfg.squash)


def make_policy(key: jax.Array, *, cfg: Options, env: Environment) -> Any:
    """A fresh network for the (wrapped) environment's spaces."""
    spec = network_spec(cfg, env)
    network = networks.build(spec, key, memory=cfg.recalls)
    networks.check_value(network, spec)
    return network


def wrap(env: Environment, cfg: ActorOptions) -> EpisodeStats:
    """The environment as `update` wants it: actions as drawn, episode statistics."""
    return EpisodeStats(ScaleAction(env, squash=cfg.squash))


def begin_learning(
    key: jax.Array,
    direction: optax.GradientTransformation,
    cfg: Options,
    env: EpisodeStats,
    axis: str | None,
) -> State:
    """A fresh State; `env` comes from `wrap`, `axis` is the mesh axis the environments lie on."""
    policy_key, env_key = jax.random.split(key)
    policy = make_policy(policy_key, cfg=cfg, env=env)
    num_local = cfg.num_envs // mesh.axis_size(axis)
    env_index, memory = mesh.global_index(num_local, axis), networks.begin(policy, (num_local,))
    space = env.observation_space
    return State(
        policy=policy,
        opt_state=direction.init(policy),  # pyright: ignore
        carry=begin(env, env_key, env_index, memory),
        obs_stats=normalize.RunningStats.init_for(space) if cfg.normalize_obs else None,
        reward_stats=normalize.RunningStats.init(),
        discounted=jnp.zeros(num_local, jnp.float32),
        iteration=jnp.zeros((), jnp.int32),
    )


def act(policy: Any, obs_stats: Any, memory: Any, obs: Any, noise: Any) -> tuple[Any, Decision]:
    """(memory, Decision) for a batch of observations; the log-prob is kept."""
    memory, seen = networks.look(policy, memory, normalize.normalize_obs(obs_stats, obs))
    pi = policy.distribution(*seen)
    action = pi.sample(noise)
    return memory, Decision(action, pi.log_prob(action))


def play(
    state: State,
    pool_key: jax.Array,
    rollout_key: jax.Array,
    *,
    cfg: Options,
    env: EpisodeStats,
    axis: str | None = None,
) -> tuple[Carry, Transition, Ended]:
    """A rollout of the state's policy: (where it ended, T*B steps, sums over what ended)."""
    env_index = mesh.global_index(state.discounted.shape[0], axis)
    pool = fill_all(env, pool_key, env_index, pool_size(cfg, env))
    player = partial(act, state.policy, state.obs_stats)
    draw = partial(distributions.noise, env.action_space)
    carry, _, steps, ended = rollout(
        env, state.carry, pool, player, draw, rollout_key, env_index, cfg.num_steps
    )
    return carry, steps, ended


def hosted(cfg: Options, env: EpisodeStats, learn: Callable[..., Any], keys: Any) -> Hosted:
    """For environments on the host; `learn(state, carry, steps, ended, key, ...)` is a module's.

    `keys(key)` are those of the rollout and of `learn`, as `update` makes them of an iteration's.
    """

    def afresh(state: State) -> State:
        memory = jax.tree.map(jnp.zeros_like, state.carry.memory)
        nothing = jnp.zeros_like(state.discounted)
        return state.replace(carry=state.carry.replace(memory=memory), discounted=nothing)

    def learned(state: State, played: Played, key: jax.Array, axis: str | None) -> tuple:
        # What was lost between two rollouts has no reward still to come.
        state = state.replace(discounted=jnp.where(played.cut, 0.0, state.discounted))
        given = state, carried(state, played), played.steps, played.ended, key
        return learn(*given, cfg=cfg, axis=axis)

    return Hosted(
        num_rounds=1,
        num_steps=cfg.num_steps,
        keys=lambda key, _: keys(key),
        player=lambda state: (state.policy, state.obs_stats),
        act=lambda player, *seen: act(*player, *seen),
        noise=partial(distributions.noise, env.action_space),
        learn=learned,
        afresh=afresh,
        memory=lambda state: state.carry.memory,
    )


def scale_rewards(
    state: State, steps: Transition, cfg: Options, axis: str | None
) -> tuple[State, Transition]:
    """Rewards over the running std of the discounted return, if asked for."""
    if not cfg.normalize_reward:
        return state, steps
    carried, running = returns.discounted_sum(state.discounted, steps.reward, steps.done, cfg.gamma)
    stats = state.reward_stats.update(running, axis)
    steps = steps.replace(reward=normalize.scale(stats, steps.reward))
    return state.replace(reward_stats=stats, discounted=carried), steps


def prepare(state: State, steps: Transition, cfg: Options) -> Batch:
    """Values, advantages and value targets of the rollout, as rows t*B + b or sequences b."""
    policy, shape, whole = state.policy, steps.reward.shape, networks.has_memory(state.policy)
    in_rows = partial(jax.tree.map, partial(sgd.in_rows, whole=whole))
    obs, next_obs = in_rows((steps.obs, steps.next_obs))
    obs = normalize.normalize_obs(state.obs_stats, obs)
    next_obs = normalize.normalize_obs(state.obs_stats, next_obs)
    past = (state.carry.memory, in_rows(steps.done)) if whole else ()
    memory, seen = networks.recall(policy, obs, past)
    _, ahead = networks.look(policy, memory, next_obs)
    value, next_value = (
        sgd.map_pieces(lambda policy, seen: policy.value(*seen), policy, x) for x in (seen, ahead)
    )
    value, next_value = (x.T if whole else x.reshape(shape) for x in (value, next_value))
    ends = steps.terminated, steps.truncated
    advantage = returns.gae(steps.reward, value, next_value, *ends, cfg.gamma, cfg.gae_lambda)
    rows = in_rows((steps.action, steps.aux, value, advantage, advantage + value))
    return Batch(obs, *rows, past)  # pyright: ignore


def advance(
    state: State, learner: tuple[Any, Any], carry: Carry, steps: Transition, axis: str | None
) -> State:
    """The state after an iteration; `learner` is (policy, optimiser state).

    Statistics of observations change only now: the loss must see the rollout's normalisation.
    """
    obs_stats = state.obs_stats
    if obs_stats is not None:
        obs_stats = normalize.update_obs_stats(obs_stats, steps.obs, axis)
    policy, opt_state = learner
    return state.replace(
        policy=policy,
        opt_state=opt_state,
        carry=carry,
        obs_stats=obs_stats,
        iteration=state.iteration + 1,
    )


def of_values(policy: Any, rows: Batch, axis: str | None) -> metrics.Metrics:
    """What the critic said of the rollout, and how long the parameters are now."""
    return {
        "param_norm": metrics.value(optax.tree.norm(policy)),
        "value": mesh.psum(metrics.mean(rows.value), axis),
        "explained_variance": returns.explained_variance(rows.value, rows.target, None, axis),
    }


def trained_policy(state: Any, *, cfg: ActorOptions, env: Environment) -> Policy:
    """The policy by itself, for the raw environment; works on states stacked over members."""
    spec, space = network_spec(cfg, wrap(env, cfg)), env.action_space
    return Policy(state.policy, state.obs_stats, spec, space, actions.scaling(space, cfg.squash))


def with_policy(state: Any, policy: Policy) -> Any:
    """The state with the weights and statistics of another policy."""
    return state.replace(policy=policy.network, obs_stats=policy.obs_stats)

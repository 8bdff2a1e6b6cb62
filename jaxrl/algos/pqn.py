"""Parallelised Q-network (PQN, arXiv:2407.04811): many environments for a replay memory, LayerNorm
for a target network. Differences from the paper: orthogonal kernels, a falling learning rate, and
truncated episodes bootstrap from where the last action led.
"""

from functools import partial
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from jaxrl import config, mesh, metrics, networks, resets, returns, sgd
from jaxrl.networks.q_network import draw_noise, epsilon_greedy, make, named, of_action
from jaxrl.policy import Policy
from jaxrl.rollout import Carry, Decision, Transition, begin, rollout
from jaxrl.wrappers import EpisodeStats


@config.pytree_dataclass
class Config(sgd.Sizes):
    total_steps: config.Count = 500_000  # environment steps, rounded up to whole iterations
    num_envs: int = 32  # environments stepped in parallel, B
    num_steps: int = 64  # steps of each environment per iteration, T
    num_epochs: int = 4  # passes over an iteration's rows
    num_minibatches: int = 16  # optimizer steps per pass
    learning_rate: float = 5e-4  # of RAdam
    lr_schedule: Literal["linear", "constant"] = "linear"  # linear: 0 after the last iteration
    gamma: float = 0.99  # discount per step
    q_lambda: float = 0.95  # in [0, 1]: 0 is one-step Q-learning, 1 is Monte Carlo
    epsilon_start: float = 1.0  # probability of a random action at first, falling linearly
    epsilon_end: float = 0.05  # and at last
    exploration: float = 0.2  # share of the run in which it falls
    max_grad_norm: float = 10.0  # gradients are scaled down to this norm
    network: str = "mlp"  # mlp, cnn or my_module:MyNet
    hidden: tuple[int, ...] = (128, 128)  # widths of the hidden layers
    reset_pool: int = 0  # resets an environment may need in an iteration; 0: num_steps / 8

    def __post_init__(self):
        self.check_sizes()
        for name in ("learning_rate", "exploration", "max_grad_norm"):
            config.check_positive(name, getattr(self, name), getattr(Config, name))
        for name in ("gamma", "q_lambda", "epsilon_start", "epsilon_end"):
            config.check_range(name, getattr(self, name), 0.0, 1.0, getattr(Config, name))
        config.check_positive("hidden", min(self.hidden, default=1), 128)


class State(flax.struct.PyTreeNode):
    """Everything that must survive a crash; of one member."""

    network: Any  # QNetwork
    opt_state: Any
    carry: Carry
    iteration: jax.Array  # int32 []


class Rows(flax.struct.PyTreeNode):
    """Steps that were played, leaves [N, ...]."""

    obs: Any
    action: jax.Array
    played: jax.Array  # Q(obs, action) in the rollout
    target: jax.Array


def layout() -> State:
    """Where a State [K, ...] lies on a mesh: its environments are split over devices."""
    return State(*[P(mesh.SEED)] * 2, P(mesh.SEED, mesh.DATA), P(mesh.SEED))  # pyright: ignore


def wrap(env: Any, cfg: Config) -> EpisodeStats:
    """The environment as `update` wants it."""
    del cfg
    return EpisodeStats(env)


def make_policy(key: jax.Array, *, cfg: Config, env: Any) -> Any:
    """A fresh network for the environment's spaces."""
    return make(spec_of(cfg, env), key)


def spec_of(cfg: Config, env: Any) -> networks.NetworkSpec:
    spaces = env.observation_space, env.action_space
    return named(networks.NetworkSpec(*spaces, cfg.network, cfg.hidden, "relu"))


def direction(cfg: Config) -> optax.GradientTransformation:
    """RAdam's direction, behind a clip by norm."""
    return optax.chain(optax.clip_by_global_norm(cfg.max_grad_norm), optax.scale_by_radam())


def init(key: jax.Array, *, cfg: Config, env: Any, axis: str | None = None) -> State:
    """A fresh State in the environment that `wrap` gives, on this device of a mesh axis."""
    network_key, env_key = jax.random.split(key)
    network = make_policy(network_key, cfg=cfg, env=env)
    carry = begin(env, env_key, mesh.global_index(cfg.num_envs // mesh.axis_size(axis), axis))
    return State(network, direction(cfg).init(network), carry, jnp.zeros((), jnp.int32))


def act(network: Any, epsilon: jax.Array, memory: Any, obs: Any, noise: jax.Array) -> tuple:
    """(memory, Decision) for a batch of observations; Q of the action is kept."""
    q = network.q(obs)
    action = epsilon_greedy(q, epsilon, noise)
    return memory, Decision(action, of_action(q, action))


def update(state: State, key: jax.Array, *, cfg: Config, env: Any, axis: Any = None) -> tuple:
    """(State, Metrics) after T*B epsilon-greedy steps, in epochs of minibatches."""
    pool_key, play_key, order_key = jax.random.split(key, 3)
    index, T = mesh.global_index(cfg.num_envs // mesh.axis_size(axis), axis), cfg.num_steps
    left = sgd.schedule("linear", state.iteration, cfg.exploration * cfg.num_iterations)
    epsilon = cfg.epsilon_end + (cfg.epsilon_start - cfg.epsilon_end) * left
    pool = resets.fill_all(env, pool_key, index, cfg.pool_size)
    player = partial(act, state.network, epsilon)
    carry, _, steps, ended = rollout(env, state.carry, pool, player, draw_noise, play_key, index, T)
    rate = cfg.learning_rate * sgd.schedule(cfg.lr_schedule, state.iteration, cfg.num_iterations)
    step = sgd.plain_step(loss, direction(cfg), rate, axis)
    rows, learner = prepare(state.network, steps, cfg), (state.network, state.opt_state)
    order = sgd.shuffled_rows(order_key, index, T, cfg.num_epochs, cfg.num_minibatches)
    (network, opt_state), parts = sgd.epochs(step, learner, rows, order, ())
    log = {"first_q_error": jax.tree.map(lambda x: x[0], parts["q_error"])}
    log |= {"learning_rate": metrics.value(rate), "epsilon": metrics.value(epsilon)}
    log |= metrics.add_up(parts)
    log = metrics.merged(log, ended.means(lambda sums: mesh.psum(sums, axis)))
    return State(network, opt_state, carry, state.iteration + 1), log


def prepare(network: Any, steps: Transition, cfg: Config) -> Rows:
    """The rollout as rows t*B + b, with targets of the network that played it."""
    flat = partial(jax.tree.map, lambda x: x.reshape(-1, *x.shape[2:]))
    ahead = sgd.map_pieces(lambda network, obs: network.value(obs), network, flat(steps.next_obs))
    ahead, ends = ahead.reshape(steps.reward.shape), (steps.terminated, steps.truncated)
    target = returns.lambda_return(steps.reward, ahead, *ends, cfg.gamma, cfg.q_lambda)
    return flat(Rows(steps.obs, steps.action, steps.aux, target))


def loss(network: Any, rows: Rows) -> tuple[metrics.Sums, metrics.Metrics]:
    """Half the squared error of Q(obs, action), and its parts."""
    q = of_action(network.q(rows.obs), rows.action)
    parts = {"q": metrics.mean(q), "q_error": metrics.mean(jnp.abs(q - rows.played))}
    return metrics.mean(0.5 * jnp.square(q - rows.target)), parts


def trained_policy(state: State, *, cfg: Config, env: Any) -> Policy:
    """The greedy policy by itself; works on states stacked over members."""
    return Policy(state.network, None, spec_of(cfg, env), env.action_space, "none")


def with_policy(state: State, policy: Policy) -> State:
    """The state with the weights of another policy."""
    return state.replace(network=policy.network)

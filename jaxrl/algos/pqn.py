"""Parallelised Q-network (PQN, arXiv:2407.04811): many environments for a replay memory, LayerNorm
for a target network. Differences from the paper: orthogonal kernels, a falling learning rate, and
truncated episodes bootstrap from where the last action led.
"""

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from jaxrl import config, mesh, metrics, q_learning, resets, returns, sgd
from jaxrl.networks.q_network import draw_noise, epsilon_greedy, of_action
from jaxrl.policy import Policy
from jaxrl.rollout import Carry, Decision, Transition, begin, rollout


@config.pytree_dataclass
class Config(sgd.Sizes, q_learning.Options):
    total_steps: config.Count = 500_000  # environment steps, rounded up to whole iterations
    num_envs: int = 32  # environments stepped in parallel, B
    num_steps: int = 64  # steps of each environment per iteration, T
    num_epochs: int = 4  # passes over an iteration's rows
    num_minibatches: int = 16  # optimizer steps per pass
    learning_rate: float = 5e-4  # of RAdam
    q_lambda: float = 0.95  # in [0, 1]: 0 is one-step Q-learning, 1 is Monte Carlo

    def __post_init__(self):
        self.check_sizes()
        self.check_options(shares=("q_lambda",))


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


def direction(cfg: Config) -> optax.GradientTransformation:
    """RAdam's direction, behind a clip by norm."""
    return cfg.clipped(optax.scale_by_radam())


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
    epsilon = cfg.epsilon(state.iteration, cfg.num_iterations)
    pool = resets.fill_all(env, pool_key, index, resets.pool_size(cfg, env))
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


def with_policy(state: State, policy: Policy) -> State:
    """The state with the weights of another policy."""
    return state.replace(network=policy.network)


wrap, make_policy = q_learning.wrap, q_learning.make_policy
trained_policy = q_learning.trained_policy

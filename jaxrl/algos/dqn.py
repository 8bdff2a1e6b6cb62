"""DQN (Nature 2015) with a double target (arXiv:1509.06461) and n-step returns, and as options a
dueling network (arXiv:1511.06581) and prioritised replay (arXiv:1511.05952). Differences from the
papers: Adam, gradients clipped by norm, epsilon falls by iterations, batches are spread evenly over
environments, and truncated episodes bootstrap from where the last action led.
"""

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from jaxrl import config, mesh, metrics, priorities, q_learning, replay, resets, returns, sgd
from jaxrl.hosted import Hosted, Played, round_keys
from jaxrl.networks import q_network
from jaxrl.policy import Policy
from jaxrl.rollout import Carry, Decision, begin, rollout

LEAST = 1e-6  # error of a row that is learned, so that it is drawn again one day


@config.pytree_dataclass
class Config(replay.Sizes, q_learning.Options):
    total_steps: config.Count = 100_000  # environment steps, rounded up to whole iterations
    num_envs: int = 8  # environments stepped in parallel, B
    num_steps: int = 128  # steps of each environment per iteration
    train_every: int = 32  # steps of each environment between two rounds of batches
    gradient_steps: int = 128  # batches of a round
    batch_size: int = 64  # rows of a batch: a multiple of num_envs, or a divisor
    buffer_size: int = 100_000  # steps of all environments that the replay keeps
    learning_starts: int = 1000  # steps of all environments before the first batch
    learning_rate: float = 2.3e-3  # of Adam
    double: bool = True  # the target's action is the network's choice, its value the target's
    dueling: bool = False  # value and advantages apart
    rescale: bool = False  # observations with two finite bounds are seen in [-1, 1]
    n_step: int = 3  # rewards that are summed before the target network's value
    prioritised: bool = False  # draw rows by their error
    alpha: float = 0.6  # power of the error by which rows are drawn; 0: all alike
    beta: float = 0.4  # power of the importance weights at first, rising to 1 at the end
    target_every: int = 512  # batches between two steps of the target network
    tau: float = 1.0  # length of such a step; 1 copies the network
    epsilon_end: float = 0.04  # probability of a random action after `exploration`
    exploration: float = 0.16  # share of the run in which it falls
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers

    def __post_init__(self):
        config.check_positive("n_step", self.n_step, 1)
        config.check_positive("target_every", self.target_every, 512)
        self.check_sizes(self.n_step)
        for name in ("dueling", "rescale"):
            if getattr(self, name) and self.network not in ("mlp", "cnn"):
                raise ValueError(f"{name}=True is for network=mlp or cnn, not {self.network}.")
        self.check_options(("tau",), ("alpha", "beta", "tau"))

    @property
    def kind(self) -> str:
        return ("Scaled" if self.rescale else "") + ("Dueling" if self.dueling else "Plain")


class Step(flax.struct.PyTreeNode):
    """What the replay keeps of a step."""

    obs: Any
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_obs: Any


class Batch(flax.struct.PyTreeNode):
    """Rows to learn from, leaves [N, ...]."""

    obs: Any
    action: jax.Array
    target: jax.Array
    weight: jax.Array  # of importance


class Learner(flax.struct.PyTreeNode):
    network: Any
    target: Any  # the network as it was
    opt_state: Any
    updates: jax.Array  # int32 []: batches learned, modulo target_every


class State(flax.struct.PyTreeNode):
    """Everything that must survive a crash; of one member."""

    learner: Learner
    buffer: replay.Replay
    priorities: Any  # Priorities, or None
    carry: Carry
    iteration: jax.Array  # int32 []

    @property
    def network(self) -> Any:
        return self.learner.network


def layout() -> State:
    """Where a State [K, ...] lies on a mesh."""
    whole, split = P(mesh.SEED), P(mesh.SEED, mesh.DATA)
    return State(whole, replay.Replay(split, whole), split, split, whole)  # pyright: ignore


def optimiser(cfg: Config) -> optax.GradientTransformation:
    """Adam's direction of a gradient that is clipped."""
    return cfg.clipped(optax.scale_by_adam())


def init(key: jax.Array, *, cfg: Config, env: Any, axis: str | None = None) -> State:
    """A fresh State in the environment that `wrap` gives, on this device of a mesh axis."""
    network_key, env_key = jax.random.split(key)
    network, B = make_policy(network_key, cfg=cfg, env=env), cfg.num_envs // mesh.axis_size(axis)
    zero = jnp.zeros((), jnp.int32)
    learner = Learner(network, network, optimiser(cfg).init(network), zero)
    carry = begin(env, env_key, mesh.global_index(B, axis))
    obs = jax.tree.map(lambda x: x[0], carry.obs)
    no, nothing = jnp.zeros((), jnp.bool_), jnp.zeros((), jnp.float32)
    buffer = replay.empty(Step(obs, zero, nothing, no, no, obs), B, cfg.capacity)
    ranks = priorities.empty(B, cfg.capacity) if cfg.prioritised else None
    return State(learner, buffer, ranks, carry, zero)


def act(network: Any, epsilon: jax.Array, memory: Any, obs: Any, noise: jax.Array) -> tuple:
    """(memory, Decision): epsilon-greedy."""
    return memory, Decision(q_network.epsilon_greedy(network.q(obs), epsilon, noise))


def update(state: State, key: jax.Array, *, cfg: Config, env: Any, axis: Any = None) -> tuple:
    """(State, Metrics) after rounds of steps, each followed by batches of the replay."""
    pool_key, rounds_key = jax.random.split(key)
    index = mesh.global_index(cfg.num_envs // mesh.axis_size(axis), axis)
    epsilon = cfg.epsilon(state.iteration, cfg.num_iterations)
    pool = resets.fill_all(env, pool_key, index, resets.pool_size(cfg, env))

    def play_and_learn(carry, key):
        state, pool = carry
        play_key, learn_key = jax.random.split(key)
        player = partial(act, state.learner.network, epsilon)
        ready = env, state.carry, pool, player, q_network.draw_noise, play_key, index
        carry, pool, steps, ended = rollout(*ready, cfg.train_every)
        state = remember(state.replace(carry=carry), steps, cfg)
        state, parts = learn(state, learn_key, cfg, axis)
        return (state, pool), (ended, parts)

    keys = jax.random.split(rounds_key, cfg.num_rounds)
    (state, _), (ended, parts) = jax.lax.scan(play_and_learn, (state, pool), keys)
    ended = jax.tree.map(lambda x: jnp.sum(x, 0), ended)
    log = {"epsilon": metrics.value(epsilon)} | metrics.add_up(metrics.until_broken(parts))
    log = metrics.merged(log, ended.means(lambda sums: mesh.psum(sums, axis)))
    return state.replace(iteration=state.iteration + 1), log


def hosted(cfg: Config, env: Any) -> Hosted:
    """The parts of an iteration for environments that are stepped outside of the program."""
    del env

    def learned(state: State, played: Played, key: jax.Array, axis: str | None) -> tuple:
        state = state.replace(buffer=replay.cut_last(state.buffer, played.cut))
        return learn(remember(state, played.steps, cfg), key, cfg, axis)

    return Hosted(
        num_rounds=cfg.num_rounds,
        num_steps=cfg.train_every,
        keys=lambda key, i: round_keys(key, cfg.num_rounds, i),
        player=lambda state: (state.network, cfg.epsilon(state.iteration, cfg.num_iterations)),
        act=lambda player, *seen: act(*player, *seen),
        noise=q_network.draw_noise,
        learn=learned,
    )


def remember(state: State, steps: Any, cfg: Config) -> State:
    """The state with transitions [T, B, ...] in its replay."""
    kept = Step(*(getattr(steps, name) for name in Step.__dataclass_fields__))
    buffer, ranks = replay.add(state.buffer, kept), state.priorities
    if ranks is not None:
        ranks = priorities.added(ranks, buffer, cfg.train_every, cfg.n_step)
    return state.replace(buffer=buffer, priorities=ranks)


def learn(state: State, key: jax.Array, cfg: Config, axis: str | None) -> tuple[State, Any]:
    """(State, Metrics) after batches of the replay; nothing before it is warm."""
    beta = 1.0 - (1.0 - cfg.beta) * sgd.schedule("linear", state.iteration, cfg.num_iterations)
    rate = cfg.learning_rate * sgd.schedule(cfg.lr_schedule, state.iteration, cfg.num_iterations)
    total = sgd.over_devices(axis)

    def step(carry, key):
        learner, ranks = carry
        where, weight = draw(state.buffer, ranks, key, beta, cfg, axis)
        batch = prepare(learner, state.buffer, where, weight, cfg)
        grads, parts = sgd.gradient(loss, learner.network, batch, total=total)
        if ranks is not None:
            error = jnp.abs(batch.target - of_batch(learner.network, batch))
            ranks = priorities.place(ranks, where, (error + LEAST) ** cfg.alpha)
        return (descend(learner, grads, rate, cfg), ranks), parts

    def batches(learner, ranks):
        keys = jax.random.split(key, cfg.gradient_steps)
        carry, parts = jax.lax.scan(step, (learner, ranks), keys)
        return carry, metrics.add_up(metrics.until_broken(parts))

    before = state.learner, state.priorities
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(batches, *before)[1])
    warm = state.buffer.filled * cfg.num_envs >= max(cfg.warm_up, cfg.n_step * cfg.num_envs)
    (learner, ranks), parts = jax.lax.cond(warm, batches, lambda *same: (same, none), *before)
    return state.replace(learner=learner, priorities=ranks), parts


def draw(
    buffer: replay.Replay, ranks: Any, key: jax.Array, beta: jax.Array, cfg: Config, axis: Any
) -> tuple[replay.Where, jax.Array]:
    """(where the rows of a batch lie, their weights): all alike, or by priority."""
    if ranks is None:
        where = replay.draw(buffer, key, cfg.batch_size, axis, cfg.n_step)
        return where, jnp.ones(where[0].shape, jnp.float32)
    where, share = priorities.draw(ranks, key, cfg.batch_size, axis)
    return where, priorities.importance(share, beta, axis)


def prepare(
    learner: Learner, buffer: replay.Replay, where: replay.Where, weight: jax.Array, cfg: Config
) -> Batch:
    """The rows that lie there, with targets."""
    rows: Step = buffer.rows
    obs, action = replay.take((rows.obs, rows.action), where)
    window = replay.following(buffer, where, cfg.n_step)
    outcome = replay.take((rows.reward, rows.terminated, rows.truncated), window)
    reward, discount, last = returns.n_step_return(*outcome, cfg.gamma)  # pyright: ignore
    end = where[0], (where[1] + last) % buffer.capacity
    following = learner.target.q(next_obs := replay.take(rows.next_obs, end))
    chooser = learner.network.q(next_obs) if cfg.double else following
    value = q_network.of_action(following, jnp.argmax(chooser, -1))
    return Batch(obs, action, reward + discount * value, weight)


def of_batch(network: Any, batch: Batch) -> jax.Array:
    """float32 [N]: Q of the actions that were played."""
    return q_network.of_action(network.q(batch.obs), batch.action)


def loss(network: Any, batch: Batch) -> tuple[metrics.Sums, metrics.Metrics]:
    """Huber's loss of Q(obs, action), weighted, and its parts."""
    q = of_batch(network, batch)
    parts = {"q": metrics.mean(q), "td_error": metrics.mean(jnp.abs(q - batch.target))}
    return metrics.mean(batch.weight * optax.losses.huber_loss(q, batch.target)), parts


def descend(learner: Learner, grads: Any, rate: Any, cfg: Config) -> Learner:
    """The learner after a step of Adam and, where its turn has come, one of the target."""
    before = learner.opt_state, learner.network
    network, opt_state = sgd.descend(optimiser(cfg), grads, *before, rate)
    updates = (learner.updates + 1) % cfg.target_every
    length = jnp.where(updates == 0, cfg.tau, 0.0)
    target = optax.incremental_update(network, learner.target, length)
    return Learner(network, target, opt_state, updates)


def with_policy(state: State, policy: Policy) -> State:
    """The state with the weights of another policy, in the target network too."""
    both = state.learner.replace(network=policy.network, target=policy.network)
    return state.replace(learner=both)


wrap, make_policy = q_learning.wrap, q_learning.make_policy
trained_policy = q_learning.trained_policy

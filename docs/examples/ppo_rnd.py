"""PPO with random network distillation (RND, arXiv:1810.12894): a bonus for what is new.

`python docs/examples/ppo_rnd.py --env SimpleCorridor-v0 --env-args length=50 step_reward=0.0`

Two networks see where each action led: a fixed one with random weights, and one that learns to
predict what the first says. The error is large where the agent has not been; it is added to the
reward. Differences from the paper: one critic for the sum of both rewards, whose bonus ends with an
episode; the predictor learns from all steps; observations are normalised where PPO's are.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxrl import config, mesh, metrics, networks, normalize, on_policy, returns, sgd
from jaxrl.algos import ppo
from jaxrl.train import arrays
from jaxrl.train.trainer import Trainer


@config.pytree_dataclass
class Config(ppo.Config):
    bonus_coef: float = 0.5  # weight of the bonus beside the reward
    bonus_rate: float = 1e-3  # learning rate of the predictor, of Adam
    num_features: int = 16  # numbers to predict

    def __post_init__(self):
        super().__post_init__()
        config.check_range("bonus_coef", self.bonus_coef, 0.0, 1e9, 0.5)
        config.check_positive("bonus_rate", self.bonus_rate, 1e-3)
        config.check_positive("num_features", self.num_features, 16)


class State(flax.struct.PyTreeNode):
    """PPO's, and what tells how new an observation is."""

    ppo: ppo.State
    target: Any  # the network that stays as it is
    predictor: Any
    opt_state: Any  # the predictor's
    stats: normalize.RunningStats  # of the discounted sum of errors
    running: jax.Array  # float32 [B]: that sum so far

    @property
    def iteration(self) -> jax.Array:
        return self.ppo.iteration


def layout() -> State:
    """Of a State on a mesh: what belongs to an environment is split over devices."""
    whole, split = P(mesh.SEED), P(mesh.SEED, mesh.DATA)
    return State(ppo.layout(), whole, whole, whole, whole, split)  # pyright: ignore


wrap, make_policy = ppo.wrap, ppo.make_policy


def init(key: jax.Array, *, cfg: Config, env: Any, axis: str | None = None) -> State:
    """A fresh State."""
    ppo_key, target_key, predictor_key = jax.random.split(key, 3)
    inner = ppo.init(ppo_key, cfg=cfg, env=env, axis=axis)
    spec = on_policy.network_spec(cfg, env)
    target, predictor = (
        networks.Tower(spec, cfg.num_features, 1.0, nnx.Rngs(params=k))
        for k in (target_key, predictor_key)
    )
    opt_state = optax.scale_by_adam().init(predictor)  # pyright: ignore
    stats, running = normalize.RunningStats.init(), jnp.zeros_like(inner.discounted)
    return State(inner, target, predictor, opt_state, stats, running)


def update(
    state: State, key: jax.Array, *, cfg: Config, env: Any, axis: str | None = None
) -> tuple[State, metrics.Metrics]:
    """An iteration of PPO whose rewards have the bonus in them; then the predictor learns."""
    *play_keys, learn_key, order_key = jax.random.split(key, 4)
    carry, steps, ended = ppo.play(state.ppo, *play_keys, cfg=cfg, env=env, axis=axis)
    obs = normalize.normalize_obs(state.ppo.obs_stats, steps.next_obs)
    error = surprise(state.predictor, obs, state.target)
    state, bonus = scale(state, error, cfg, axis)
    steps = steps.replace(reward=steps.reward + cfg.bonus_coef * bonus)
    inner, log = ppo.learn(state.ppo, carry, steps, ended, learn_key, cfg=cfg, axis=axis)

    rows = jax.tree.map(partial(sgd.in_rows, whole=False), obs)
    index = mesh.global_index(error.shape[1], axis)
    order = sgd.shuffled_rows(order_key, index, cfg.num_steps, 1, cfg.num_minibatches)
    step = sgd.plain_step(
        partial(loss, target=state.target), optax.scale_by_adam(), cfg.bonus_rate, axis
    )
    learner = (state.predictor, state.opt_state)
    (predictor, opt_state), _ = sgd.epochs(step, learner, rows, order, ())
    log = metrics.merged(log, {"bonus": mesh.psum(metrics.mean(bonus), axis)})
    return state.replace(ppo=inner, predictor=predictor, opt_state=opt_state), log


def surprise(predictor: Any, obs: Any, target: Any) -> jax.Array:
    """[...]: the mean squared error of the prediction at each observation."""
    return jnp.mean(jnp.square(predictor(obs) - jax.lax.stop_gradient(target(obs))), -1)


def scale(state: State, error: jax.Array, cfg: Config, axis: str | None) -> tuple[State, jax.Array]:
    """The errors [T, B] over the running std of their discounted sum, which no episode ends."""
    never = jnp.zeros(error.shape, jnp.bool_)
    running, sums = returns.discounted_sum(state.running, error, never, cfg.gamma)
    stats = state.stats.update(sums, axis)
    return state.replace(stats=stats, running=running), normalize.scale(stats, error)


def loss(predictor: Any, obs: Any, target: Any) -> tuple[metrics.Sums, metrics.Metrics]:
    """What `sgd.gradient` lowers: the predictor's error."""
    return metrics.mean(surprise(predictor, obs, target)), {}


def trained_policy(state: State, *, cfg: Config, env: Any) -> Any:
    """PPO's: the bonus is for training alone."""
    return ppo.trained_policy(state.ppo, cfg=cfg, env=env)


def with_policy(state: State, policy: Any) -> State:
    """The state with the weights and statistics of another policy."""
    return state.replace(ppo=ppo.with_policy(state.ppo, policy))


@dataclass(frozen=True)
class Args(arrays.Options):
    preset: str = "default"  # options to start from: default
    algo: Config = field(default_factory=Config)


def setup(args: Args) -> Any:
    """PPO with RND on the environment that the options name."""
    return arrays.make_task("ppo_rnd", sys.modules[__name__], args)


TRAINER = Trainer(
    "ppo_rnd", sys.modules[__name__], {"default": Config()}, Args, setup, arrays.reload
)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run(TRAINER)

"""Options and networks small enough for tests of PPO's arithmetic."""

import jax
import numpy as np
from flax import nnx

from jaxrl.algos import ppo
from jaxrl.networks import ActorCritic, NetworkSpec
from jaxrl.spaces import Box

RATE = 0.02
BASE = ppo.Config(
    num_envs=4,
    num_steps=8,
    total_steps=32 * 100,
    num_epochs=1,
    num_minibatches=1,
    learning_rate=RATE,
    lr_schedule="constant",
    max_grad_norm=1e6,  # a scaled gradient must show in Adam's moments
    hidden=(8,),
    normalize_obs=True,
    normalize_reward=True,
)


def config(**options):
    return ppo.Config(**(vars(BASE) | options))


def small_policy(action_space, squash=False):
    spec = NetworkSpec(Box(-1.0, 1.0, (2,)), action_space, "mlp", (3,), "tanh", squash)
    shapes = jax.eval_shape(lambda: ActorCritic(spec, nnx.Rngs(params=jax.random.key(0))))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), shapes)

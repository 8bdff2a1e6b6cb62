"""What learners of action values share: options, how much is explored, the network, its policy."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import optax

from jaxrl import config, networks, sgd
from jaxrl.networks import q_network
from jaxrl.policy import Policy
from jaxrl.wrappers import EpisodeStats


@config.pytree_dataclass
class Options:
    """Of every such learner."""

    learning_rate: float = 1e-3
    lr_schedule: Literal["linear", "constant"] = "linear"  # linear: 0 after the last iteration
    gamma: float = 0.99  # discount per step
    epsilon_start: float = 1.0  # probability of a random action at first, falling linearly
    epsilon_end: float = 0.05  # and at last
    exploration: float = 0.2  # share of the run in which it falls
    max_grad_norm: float = 10.0  # gradients are scaled down to this norm
    network: str = "mlp"  # mlp, cnn or my_module:MyNet
    hidden: tuple[int, ...] = (128, 128)  # widths of the hidden layers
    reset_pool: int = 0  # resets an environment may need in an iteration; 0: num_steps / 8

    def check_options(self, positive: Sequence[str] = (), shares: Sequence[str] = ()) -> None:
        """ValueError for a number out of range; further ones are above 0, or shares in [0, 1]."""
        own = type(self)
        for name in ("learning_rate", "exploration", "max_grad_norm", *positive):
            config.check_positive(name, getattr(self, name), getattr(own, name))
        for name in ("gamma", "epsilon_start", "epsilon_end", *shares):
            config.check_range(name, getattr(self, name), 0.0, 1.0, getattr(own, name))
        config.check_positive("hidden", min(self.hidden, default=1), max(own.hidden))

    @property
    def kind(self) -> str:
        """What an mlp or a cnn is: see `q_network.named`."""
        return ""

    def epsilon(self, iteration: jax.Array, num_iterations: int) -> jax.Array:
        """float32 []: the probability of a random action in an iteration of the run."""
        left = sgd.schedule("linear", iteration, self.exploration * num_iterations)
        return self.epsilon_end + (self.epsilon_start - self.epsilon_end) * left

    def clipped(self, direction: optax.GradientTransformation) -> optax.GradientTransformation:
        """The direction of a gradient that is scaled down to `max_grad_norm`."""
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), direction)


def wrap(env: Any, cfg: Options) -> EpisodeStats:
    """The environment as `update` wants it."""
    del cfg
    return EpisodeStats(env)


def network_spec(cfg: Options, env: Any) -> networks.NetworkSpec:
    """What the network for the environment's spaces is built from."""
    spaces = env.observation_space, env.action_space
    spec = networks.NetworkSpec(*spaces, cfg.network, cfg.hidden, "relu")
    return q_network.named(spec, cfg.kind)


def make_policy(key: jax.Array, *, cfg: Options, env: Any) -> Any:
    """A fresh network for the environment's spaces."""
    return networks.build(network_spec(cfg, env), key, needs=("q",))


def trained_policy(state: Any, *, cfg: Options, env: Any) -> Policy:
    """The greedy policy by itself; works on states stacked over members."""
    return Policy(state.network, None, network_spec(cfg, env), env.action_space, "none")

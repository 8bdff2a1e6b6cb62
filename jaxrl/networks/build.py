"""Networks by name: the built-in ones, and anyone's class in a module of theirs."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl import spaces
from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.spec import NetworkSpec, own_class
from jaxrl.theirs import telling


def build(spec: NetworkSpec, key: jax.Array) -> Any:
    """A fresh network; ValueError where its class gives no distribution."""
    rngs, own = nnx.Rngs(params=key), own_class(spec.network)
    with telling(f"network={spec.network} cannot be made"):
        network = ActorCritic(spec, rngs) if own is None else own(spec, rngs)
    if not callable(getattr(network, "distribution", None)):
        raise ValueError(f"network={spec.network} needs a method distribution(obs).")
    return network


def check_value(network: Any, spec: NetworkSpec) -> None:
    """ValueError for a network whose value is not one number for each observation."""
    if not callable(getattr(network, "value", None)):
        raise ValueError(f"network={spec.network} needs a method value(obs) for PPO.")
    one = spaces.sample(spec.observation_space, jax.random.key(0))
    obs = jax.tree.map(lambda x: jnp.stack([x, x, x]), one)
    for name, value in (
        ("value", network.value),
        ("distribution_and_value", lambda obs: distribution_and_value(network, obs)[1]),
    ):
        shape = jax.eval_shape(value, obs).shape
        if shape != (3,):
            raise ValueError(
                f"network={spec.network}: {name} of 3 observations has the shape {shape} and must "
                "have (3,), one number each; try value[..., 0]."
            )


def distribution_and_value(network: Any, obs: Any) -> tuple[Any, jax.Array]:
    """pi(. | obs) and V(obs), by the network's own joint pass if it has one."""
    if hasattr(network, "distribution_and_value"):
        return network.distribution_and_value(obs)
    return network.distribution(obs), network.value(obs)

"""Networks by name: the built-in ones, and anyone's class in a module of theirs."""

from typing import Any

import jax
from flax import nnx

from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.spec import NetworkSpec, own_class


def build(spec: NetworkSpec, key: jax.Array) -> Any:
    """A fresh network; ValueError where its class gives no distribution."""
    network = (own_class(spec.network) or ActorCritic)(spec, nnx.Rngs(params=key))
    if not callable(getattr(network, "distribution", None)):
        raise ValueError(f"network={spec.network} needs a method distribution(obs).")
    return network


def distribution_and_value(network: Any, obs: Any) -> tuple[Any, jax.Array]:
    """pi(. | obs) and V(obs), by the network's own joint pass if it has one."""
    if hasattr(network, "distribution_and_value"):
        return network.distribution_and_value(obs)
    return network.distribution(obs), network.value(obs)

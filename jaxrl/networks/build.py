"""Networks by name: the built-in ones, and anyone's class in a module of theirs."""

from importlib import import_module
from typing import Any

import jax
from flax import nnx

from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.spec import NetworkSpec

BUILT_IN = ("mlp", "cnn")  # both by ActorCritic


def network_class(name: str) -> Any:
    """The class of `mlp`, `cnn` or `my_module:MyNet`; ValueError where there is none."""
    if name in BUILT_IN:
        return ActorCritic
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise ValueError(f"network={name} must be mlp, cnn or my_module:MyNet; try mlp.")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"network={name} needs the module {error.name}, which is not found; add its folder to "
            "PYTHONPATH or install it."
        ) from error
    if not callable(getattr(module, class_name, None)):
        raise ValueError(f"network={name}: the module {module_name} has no class {class_name}.")
    return getattr(module, class_name)


def build(spec: NetworkSpec, key: jax.Array) -> Any:
    """A fresh network; ValueError where its class is not found or gives no distribution."""
    network = network_class(spec.network)(spec, nnx.Rngs(params=key))
    if not callable(getattr(network, "distribution", None)):
        raise ValueError(f"network={spec.network} needs a method distribution(obs).")
    return network


def distribution_and_value(network: Any, obs: Any) -> tuple[Any, jax.Array]:
    """pi(. | obs) and V(obs), by the network's own joint pass if it has one."""
    if hasattr(network, "distribution_and_value"):
        return network.distribution_and_value(obs)
    return network.distribution(obs), network.value(obs)

"""Networks by name: the built-in ones, and anyone's class in a module of theirs."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl import spaces
from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.recurrent import CELLS, Recurrent, begin, has_memory, look
from jaxrl.networks.spec import NetworkSpec, own_class
from jaxrl.theirs import telling


def class_of(name: str) -> Any:
    """What `build` calls for a network of this name; ValueError where there is none."""
    return own_class(name) or (Recurrent if name in CELLS else ActorCritic)


def build(
    spec: NetworkSpec, key: jax.Array, memory: bool = False, needs: tuple[str, ...] = ()
) -> Any:
    """A fresh network; ValueError where its class gives no distribution, or lacks what it `needs`.

    And for one with a memory, unless the caller says that it hands that from step to step.
    """
    rngs = nnx.Rngs(params=key)
    with telling(f"network={spec.network} cannot be made"):
        network = class_of(spec.network)(spec, rngs)
    for method in ("distribution", *needs):
        if not callable(getattr(network, method, None)):
            raise ValueError(f"network={spec.network} needs a method {method}(obs); try mlp.")
    if has_memory(network) and not memory:
        raise ValueError(
            f"network={spec.network} has a memory, which train.ppo alone can train; try mlp."
        )
    return network


def check_value(network: Any, spec: NetworkSpec) -> None:
    """ValueError for a network whose value is not one number for each observation."""
    if not callable(getattr(network, "value", None)):
        raise ValueError(f"network={spec.network} needs a method value(obs) for PPO.")
    one = spaces.sample(spec.observation_space, jax.random.key(0))
    obs = jax.tree.map(lambda x: jnp.stack([x, x, x]), one)
    _, seen = jax.eval_shape(lambda obs: look(network, begin(network, (3,)), obs), obs)
    for name, value in (
        ("value", network.value),
        ("distribution_and_value", lambda *seen: distribution_and_value(network, *seen)[1]),
    ):
        shape = jax.eval_shape(value, *seen).shape
        if shape != (3,):
            raise ValueError(
                f"network={spec.network}: {name} of 3 observations has the shape {shape} and must "
                "have (3,), one number each; try value[..., 0]."
            )


def distribution_and_value(network: Any, *seen: Any) -> tuple[Any, jax.Array]:
    """pi(. | obs) and V(obs), by the network's own joint pass if it has one.

    `seen` is an observation, and of a network with a memory also that: see `look`.
    """
    if hasattr(network, "distribution_and_value"):
        return network.distribution_and_value(*seen)
    return network.distribution(*seen), network.value(*seen)

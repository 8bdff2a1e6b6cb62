"""One tower for images that actor and critic share: half the cost of two."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl.distributions import Distribution
from jaxrl.networks.actor_critic import Tower, linear
from jaxrl.networks.spec import ACTIVATIONS, NetworkSpec
from jaxrl.spaces import Box


class Nature(nnx.Module):
    """DQN's three convolutions and the hidden layers, then one linear layer each for pi and V."""

    def __init__(self, spec: NetworkSpec, rngs: nnx.Rngs):
        if not spec.hidden:
            raise ValueError("hidden=() leaves actor and critic nothing to share; try 512.")
        inner = replace(spec, network="cnn", hidden=spec.hidden[:-1])  # refuses what is no image
        outputs, width = spec.num_outputs, spec.hidden[-1]
        self.trunk = Tower(inner, width, 2**0.5, rngs)
        self.actor = linear(width, outputs, 0.01, rngs)
        self.critic = linear(width, 1, 1.0, rngs)
        continuous = isinstance(spec.action_space, Box)
        self.log_std = nnx.Param(jnp.zeros(outputs, jnp.float32)) if continuous else None
        self.spec = spec

    def distribution(self, obs: Any) -> Distribution:
        """pi(. | obs), with the batch axes of `obs`."""
        return self.distribution_and_value(obs)[0]

    def value(self, obs: Any) -> jax.Array:
        """V(obs), float32 with the batch axes of `obs`."""
        return self.critic(self._shared(obs))[..., 0]

    def distribution_and_value(self, obs: Any) -> tuple[Distribution, jax.Array]:
        """Both of one pass through what they share."""
        x = self._shared(obs)
        log_std = None if self.log_std is None else self.log_std[...]
        return self.spec.distribution(self.actor(x), obs, log_std), self.critic(x)[..., 0]

    def _shared(self, obs: Any) -> jax.Array:
        return ACTIVATIONS[self.spec.activation](self.trunk(obs))

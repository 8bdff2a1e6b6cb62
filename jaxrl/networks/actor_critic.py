"""Separate actor and critic towers: an encoder of the observation, then linear layers."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl.distributions import Distribution
from jaxrl.networks.encoders import Encoder
from jaxrl.networks.spec import ACTIVATIONS, NetworkSpec
from jaxrl.spaces import Box


def linear(inputs: int, outputs: int, scale: float, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer with an orthogonal kernel of this gain."""
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.orthogonal(scale), rngs=rngs)


class Tower(nnx.Module):
    """An encoder (with convolutions for images if `cnn`), hidden layers, a linear one.

    All kernels are orthogonal, hidden ones with gain sqrt(2), as arXiv:2006.05990 recommends, the
    last one with gain `out_scale`.
    """

    def __init__(self, spec: NetworkSpec, outputs: int, out_scale: float, rngs: nnx.Rngs):
        self.encoder = Encoder(spec.observation_space, rngs, convolve=spec.network == "cnn")
        sizes = (self.encoder.size, *spec.hidden)
        self.hidden = nnx.List([linear(i, o, 2**0.5, rngs) for i, o in pairwise(sizes)])
        self.out = linear(sizes[-1], outputs, out_scale, rngs)
        self.spec = spec

    def __call__(self, obs: Any) -> jax.Array:
        """[..., outputs] from observations with any number of leading batch axes."""
        return self.after_first(self.layers[0](self.encoder(obs)))

    @property
    def layers(self) -> list[nnx.Linear]:
        """The linear layers in order, the one with the outputs last."""
        return [*self.hidden, self.out]

    def after_first(self, x: jax.Array) -> jax.Array:
        """[..., outputs] from the first linear layer's [..., width], its activation still to do."""
        activation = ACTIVATIONS[self.spec.activation]
        for layer in self.layers[1:]:
            x = layer(activation(x))
        return x


class ActorCritic(nnx.Module):
    """Two separate towers, so that the critic can be read apart from the rollout."""

    def __init__(self, spec: NetworkSpec, rngs: nnx.Rngs):
        outputs = spec.num_outputs
        self.actor = Tower(spec, outputs, 0.01, rngs)
        self.critic = Tower(spec, 1, 1.0, rngs)
        continuous = isinstance(spec.action_space, Box)
        self.log_std = nnx.Param(jnp.zeros(outputs, jnp.float32)) if continuous else None
        self.spec = spec

    def distribution(self, obs: Any) -> Distribution:
        """pi(. | obs), with the batch axes of `obs`."""
        return self._distribution(self.actor(obs), obs)

    def _distribution(self, output: jax.Array, obs: Any) -> Distribution:
        log_std = None if self.log_std is None else self.log_std[...]
        return self.spec.distribution(output, obs, log_std)

    def value(self, obs: Any) -> jax.Array:
        """V(obs), float32 with the batch axes of `obs`."""
        return self.critic(obs)[..., 0]

    def distribution_and_value(self, obs: Any) -> tuple[Distribution, jax.Array]:
        """Both at once: the towers' first layers as one product, a wider and so a faster one."""
        if self.actor.encoder.has_parameters:  # each tower sees features of its own
            return self.distribution(obs), self.value(obs)
        first: list[Any] = [self.actor.layers[0], self.critic.layers[0]]
        kernel = jnp.concatenate([layer.kernel[...] for layer in first], -1)
        bias = jnp.concatenate([layer.bias[...] for layer in first])
        x = self.actor.encoder(obs) @ kernel + bias
        of_actor, of_critic = jnp.split(x, [first[0].kernel.shape[-1]], -1)
        value = self.critic.after_first(of_critic)[..., 0]
        return self._distribution(self.actor.after_first(of_actor), obs), value

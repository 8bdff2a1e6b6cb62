"""Actors of off-policy learners: a squashed Gaussian (or a choice), and a deterministic one."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl.distributions import Distribution, Gaussian
from jaxrl.networks.actor_critic import Tower
from jaxrl.networks.spec import NetworkSpec
from jaxrl.spaces import Box

LOG_STD = (-5.0, 2.0)  # bounds: a smaller std loses log-probs to rounding, a larger one is uniform


class SoftActor(nnx.Module):
    """pi(. | obs): a Gaussian whose std depends on the observation too, or a Categorical."""

    encoder = "mlp"

    def __init__(self, spec: NetworkSpec, rngs: nnx.Rngs):
        self.is_real = isinstance(spec.action_space, Box)
        outputs = spec.num_outputs * (2 if self.is_real else 1)
        self.tower = Tower(replace(spec, network=self.encoder), outputs, 0.01, rngs)
        self.spec = spec

    def distribution(self, obs: Any) -> Distribution:
        """With the batch axes of `obs`; squashed where the spec says so."""
        output, log_std = self.tower(obs), None
        if self.is_real:
            output, log_std = jnp.split(output, 2, -1)
            log_std = jnp.clip(log_std, *LOG_STD)
        return self.spec.distribution(output, obs, log_std)


class DeterministicActor(nnx.Module):
    """One action in [-1, 1] for each observation, arXiv:1509.02971."""

    encoder = "mlp"

    def __init__(self, spec: NetworkSpec, rngs: nnx.Rngs):
        self.tower = Tower(replace(spec, network=self.encoder), spec.num_outputs, 0.01, rngs)
        self.spec = spec

    def action(self, obs: Any) -> jax.Array:
        """float32 [..., A]."""
        return jnp.tanh(self.tower(obs))

    def distribution(self, obs: Any) -> Gaussian:
        """All probability on that action."""
        action = self.action(obs)
        return Gaussian(action, jnp.full_like(action, -jnp.inf))


class ConvSoftActor(SoftActor):
    encoder = "cnn"


class ConvDeterministicActor(DeterministicActor):
    encoder = "cnn"

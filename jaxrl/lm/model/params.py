"""What an agent learns: a policy, and where an algorithm has one, a critic on its layers."""

from typing import Self

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.lm.model import lora
from jaxrl.lm.model.transformer import Transformer


class Critic(flax.struct.PyTreeNode):
    """The value of what the last token stands at the end of; linear in the policy's own layers."""

    weight: jax.Array  # [D]
    bias: jax.Array  # []

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """float32 [...] of hidden states [..., D]."""
        return hidden.astype(jnp.float32) @ self.weight + self.bias


def zero_critic(width: int) -> Critic:
    """0 everywhere."""
    return Critic(jnp.zeros(width, jnp.float32), jnp.zeros((), jnp.float32))


class Params(flax.struct.PyTreeNode):
    """Also the form of their gradient, and of anything else that there is one of for each part.

    A reward model has the same parts, its layers and its head, and says no token. A critic that
    begins as one is one: it has layers of its own.
    """

    policy: Transformer
    critic: "Critic | Params | None" = None

    def trained(self) -> Self:
        """What an optimiser sees: with adapters, of the policy these alone."""
        return self.replace(policy=lora.trained(self.policy))

    def with_trained(self, part: "Params") -> "Params":
        """The same with what is trained of them replaced."""
        return part.replace(policy=lora.with_trained(self.policy, part.policy))

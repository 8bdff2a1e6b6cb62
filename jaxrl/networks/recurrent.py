"""Networks with a memory: a GRU or an LSTM between linear layers, and how one is played with."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl.distributions import Distribution
from jaxrl.networks.actor_critic import linear
from jaxrl.networks.encoders import Encoder
from jaxrl.networks.spec import ACTIVATIONS, NetworkSpec
from jaxrl.spaces import Box

CELLS: dict[str, Any] = {"gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell}
# Which of a cell's gates, in its bias's order, keep (1) and let in (-1) what it remembers.
KEEPS = {"gru": (0.0, 1.0, 0.0), "lstm": (-1.0, 1.0, 0.0, 0.0)}
LONGEST = 64  # steps that the slowest number of a fresh cell lasts for


def lasting(name: str) -> Any:
    """An initialiser of a cell's bias: its numbers last 2 to LONGEST steps (arXiv:1804.11188).

    With a bias of 0 they halve at each step: after 20 nothing is left to learn from.
    """

    def init(key, shape, dtype=jnp.float32):
        del key
        span = jnp.linspace(1.0, LONGEST - 1.0, shape[0] // len(KEEPS[name]))
        return jnp.outer(jnp.array(KEEPS[name]), jnp.log(span)).ravel().astype(dtype)

    return init


class Recurrent(nnx.Module):
    """Linear layers, a cell, and on what it puts out the last layer of the actor and the critic's.

    The last width of `hidden` is the cell's. Memory is zeros where an episode begins.
    """

    def __init__(self, spec: NetworkSpec, rngs: nnx.Rngs):
        if not spec.hidden:
            raise ValueError(f"hidden=() leaves network={spec.network} no cell; try 64.")
        self.encoder = Encoder(spec.observation_space, rngs)
        sizes, self.width = (self.encoder.size, *spec.hidden[:-1]), spec.hidden[-1]
        self.hidden = nnx.List([linear(i, o, 2**0.5, rngs) for i, o in pairwise(sizes)])
        cell, bias = CELLS[spec.network], lasting(spec.network)
        self.cell = cell(sizes[-1], self.width, bias_init=bias, rngs=rngs)
        self.actor = linear(self.width, spec.num_outputs, 0.01, rngs)
        self.critic = linear(self.width, 1, 1.0, rngs)
        continuous = isinstance(spec.action_space, Box)
        self.log_std = nnx.Param(jnp.zeros(spec.num_outputs, jnp.float32)) if continuous else None
        self.spec = spec

    def memory(self, batch: tuple[int, ...]) -> Any:
        """That of episodes that begin: zeros [*batch, width], twice of an LSTM."""
        zeros = jnp.zeros((*batch, self.width), jnp.float32)
        return (zeros, zeros) if self.spec.network == "lstm" else zeros

    def encode(self, obs: Any) -> jax.Array:
        """What the cell is shown of observations; the same whatever came before."""
        x = self.encoder(obs)
        for layer in self.hidden:
            x = ACTIVATIONS[self.spec.activation](layer(x))
        return x

    def remember(self, memory: Any, encoded: jax.Array) -> Any:
        """The memory once the observation is seen."""
        return self.cell(memory, encoded)[0]

    def distribution(self, obs: Any, memory: Any) -> Distribution:
        """pi(. | obs and what came before), which `memory` has seen; any batch axes."""
        log_std = None if self.log_std is None else self.log_std[...]
        return self.spec.distribution(self.actor(_output(memory)), obs, log_std)

    def value(self, obs: Any, memory: Any) -> jax.Array:
        """V(obs and what came before), float32 with the batch axes of `obs`."""
        del obs  # `memory` has seen it
        return self.critic(_output(memory))[..., 0]


def _output(memory: Any) -> jax.Array:
    """h of a GRU's h or an LSTM's (c, h)."""
    return jax.tree.leaves(memory)[-1]


def has_memory(network: Any) -> bool:
    """Whether a network, or its class, is one with a memory."""
    return callable(getattr(network, "remember", None))


def begin(network: Any, batch: tuple[int, ...] = ()) -> Any:
    """The memory with which episodes begin, zeros; () for a network without one."""
    return network.memory(batch) if has_memory(network) else ()


def look(network: Any, memory: Any, obs: Any) -> tuple[Any, tuple]:
    """(memory, what `distribution` and `value` take) of observations, with any batch axes."""
    if not has_memory(network):
        return memory, (obs,)
    memory = network.remember(memory, network.encode(obs))
    return memory, (obs, memory)


def recall(network: Any, obs: Any, past: tuple) -> tuple[Any, tuple]:
    """`look` at rows of observations [N, ...]; of a network with a memory they are sequences.

    Then `past` is the memory before them [N, ...] and which of their steps end an episode [N, T].
    After such a step it forgets, as the rollout does, and no gradient passes there. What it
    remembers has leaves [N, T, ...].
    """
    if not past:
        return (), (obs,)

    def one(memory, encoded, done):
        def step(memory, inputs):
            encoded, done = inputs
            memory = network.remember(memory, encoded)
            return jax.tree.map(lambda x: jnp.where(done, 0, x), memory), memory

        return jax.lax.scan(step, memory, (encoded, done))[1]

    memory, done = past
    memory = jax.vmap(one)(memory, network.encode(obs), done)
    return memory, (obs, memory)

"""MemoryChain-v0: bsuite 0.3.5's rules (arXiv:1908.03568), tested by hand against its source."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, check_numbers, static, timestep
from jaxrl.envs.drawn import numbers
from jaxrl.spaces import Box, Discrete


class ChainState(flax.struct.PyTreeNode):
    context: jax.Array  # int32 [num_bits], 0 or 1
    query: jax.Array  # int32 []: the bit that will be asked for
    t: jax.Array  # int32 []: steps taken


class MemoryChain(Environment):
    """Say at the end of a chain what a bit was that was shown at its begin: 0 or 1.

    Observations are [time left, query, context]: the time from 1 to 0, the query in the last one
    that is acted on, the context (-1 or 1 for each bit) in the first two, 0 elsewhere. Step
    `length + 1` ends the episode and pays 1, or -1 for the other bit; no other step pays. A policy
    without a memory sees nothing of the context when it counts: its mean return is 0 whatever it
    does, the best one's is 1.
    """

    length: int = 20  # bsuite's memory_length
    num_bits: int = static(1)  # of which one is asked for

    def __post_init__(self):
        check_numbers(self, length=(1, 2**20), num_bits=(1, 1000))

    @property
    def observation_space(self) -> Box:
        low = np.float32([0.0, 0.0] + [-1.0] * self.num_bits)
        high = np.float32([1.0, self.num_bits - 1.0] + [1.0] * self.num_bits)
        return Box(low, high, low.shape)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: jax.Array) -> tuple[ChainState, TimeStep]:
        context_key, query_key = jax.random.split(key)
        context = jax.random.bernoulli(context_key, 0.5, (self.num_bits,)).astype(jnp.int32)
        query = jax.random.randint(query_key, (), 0, self.num_bits, jnp.int32)
        state = ChainState(context, query, jnp.zeros((), jnp.int32))
        return state, timestep(self._look(state, state.t), metrics={"success": 0.0})

    def step(
        self, state: ChainState, action: jax.Array, key: jax.Array
    ) -> tuple[ChainState, TimeStep]:
        del key  # nothing is random but an episode's begin
        over = state.t >= self.length
        right = action == state.context[state.query]
        reward = jnp.where(over, jnp.where(right, 1.0, -1.0), 0.0)
        # The first step shows what the reset did, in bsuite too.
        obs, metrics = self._look(state, state.t), {"success": over & right}
        return state.replace(t=state.t + 1), timestep(obs, reward, over, metrics=metrics)

    def render(self, state: ChainState) -> jax.Array:
        return numbers.memory_chain(self, state)

    def _look(self, state: ChainState, t: jax.Array) -> jax.Array:
        left = jnp.maximum(1.0 - t / self.length, 0.0)
        query = jnp.where(t == self.length - 1, state.query, 0)
        context = jnp.where(t == 0, 2 * state.context - 1, 0)
        return jnp.concatenate([jnp.stack([left, query]), context]).astype(jnp.float32)

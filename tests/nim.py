"""Nim in the form of pgx's games: take 1 to 3 of a heap in turn, who takes the last one wins."""

import flax.struct
import jax
import jax.numpy as jnp


class State(flax.struct.PyTreeNode):
    current_player: jax.Array
    observation: jax.Array
    rewards: jax.Array
    terminated: jax.Array
    legal_action_mask: jax.Array
    left: jax.Array  # int32 []: of the heap


class Nim:
    """`players` take turns; the winner gets 1, all others -1."""

    def __init__(self, heap=7, players=2):
        self.heap, self.num_players = heap, players

    def init(self, key):
        first = jax.random.randint(key, (), 0, self.num_players, jnp.int32)
        nothing = jnp.zeros(self.num_players, jnp.float32)
        no = jnp.zeros((), jnp.bool_)
        state = State(first, (), nothing, no, jnp.ones(3, jnp.bool_), jnp.int32(self.heap))
        return state.replace(observation=self._observe(state, first))

    def step(self, state, action, key):
        del key
        left = state.left - action - 1
        won = jnp.arange(self.num_players) == state.current_player
        state = state.replace(
            left=left,
            current_player=(state.current_player + 1) % self.num_players,
            terminated=left <= 0,
            rewards=jnp.where(left <= 0, jnp.where(won, 1.0, -1.0), 0.0),
            legal_action_mask=(jnp.arange(3) < left) | (left <= 0),
        )
        return state.replace(observation=self._observe(state, state.current_player))

    def _observe(self, state, seat):
        """The heap as bits, and whether it is one's turn."""
        heap = jnp.arange(self.heap + 1) == state.left
        return jnp.append(heap, state.current_player == seat)

"""Merging tokens inside jit: byte pair encoding of all words of a text at once.

Byte pair encoding merges the pair of the lowest rank in a word, the leftmost of several, until
there is none. Here a round makes every merge whose turn comes whatever else happens in the word.
"""

from collections.abc import Mapping
from itertools import pairwise

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.pairs import Pairs

NO_RANK = np.iinfo(np.int32).max
# What is known of a merge of A and B, beside the token it makes:
LEFT_WAITS = 1  # no merge of something with A has a lower rank
RIGHT_WAITS = 2  # no merge of B with something has a lower rank
ALL_AT_ONCE = 4  # no merge of what it makes has a lower rank
EARLY = 8  # it may be made before its turn: then nothing gets in before others, A A A from the left
_FLAGS = 16

Ranks = Mapping[tuple[int, int], tuple[int, int]]  # (left, right) -> (rank, merged)


class Merges(flax.struct.PyTreeNode):
    """What two adjacent tokens merge to."""

    pairs: Pairs  # -> (rank, merged * _FLAGS + what is known)
    all_at_once: bool = flax.struct.field(pytree_node=False)  # ALL_AT_ONCE holds for every merge

    @classmethod
    def of(cls, ranks: Ranks) -> "Merges":
        pair = np.array(list(ranks), np.int32).reshape(-1, 2)
        rank, merged = np.array(list(ranks.values()), np.int32).reshape(-1, 2).T
        tokens = max(pair.max(initial=0), merged.max(initial=0)) + 1
        as_left, as_right = np.full((2, tokens), NO_RANK, np.int32)
        np.minimum.at(as_left, pair[:, 0], rank)
        np.minimum.at(as_right, pair[:, 1], rank)
        left, right = as_right[pair[:, 0]] >= rank, as_left[pair[:, 1]] >= rank
        at_once = np.minimum(as_left[merged], as_right[merged]) > rank
        early = at_once & ((pair[:, 0] != pair[:, 1]) | (left & right))
        known = LEFT_WAITS * left + RIGHT_WAITS * right + ALL_AT_ONCE * at_once + EARLY * early
        table = Pairs.of(pair, np.stack([rank, merged * _FLAGS + known], 1))
        return cls(table, bool(at_once.all()))

    def apply(
        self, token: jax.Array, alive: jax.Array, begins: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(tokens, where they stand) [L] after all merges; a word starts where it `begins`."""
        size = token.shape[0]
        place = jnp.arange(size, dtype=jnp.int32)
        word = jax.lax.cummax(jnp.where(begins, place, 0))
        after = jax.lax.cummin(jnp.append(jnp.where(alive, place, size), size), reverse=True)[1:]
        before = jax.lax.cummax(jnp.append(-1, jnp.where(alive, place, -1)))[:-1]
        after = jnp.where(_at(word, after, -1) == word, after, size)
        before = jnp.where((before >= 0) & (_at(word, before, -1) == word), before, size)

        def merge_round(carry):
            token, alive, after, before, _ = carry
            rank, value = self.pairs.find(jnp.where(alive, token, -1), _at(token, after, -1))
            rank = jnp.where(rank < 0, NO_RANK, rank)
            rank, value = jax.lax.optimization_barrier((rank, value))
            due = self._due(rank, value & (_FLAGS - 1), word, after, before)
            merging = jax.lax.optimization_barrier(_apart(due, alive, before))
            token = jnp.where(merging, value // _FLAGS, token)
            gone = jax.lax.optimization_barrier(alive & _at(merging, before, False))
            skipped = _at(gone, before, False)
            before = jnp.where(skipped, _at(before, before, size), before)
            after = jnp.where(merging, _at(after, after, size), after)
            return token, alive & ~gone, after, before, jnp.any(merging)

        carry = (token, alive, after, before, jnp.any(alive))
        return jax.lax.while_loop(lambda carry: carry[4], merge_round, carry)[:2]

    def _due(
        self,
        rank: jax.Array,
        known: jax.Array,
        word: jax.Array,
        after: jax.Array,
        before: jax.Array,
    ) -> jax.Array:
        """bool [L]: this pair is merged before anything can happen to one of its two tokens.

        Either it has the lowest rank of its word, or no merge of a lower rank takes one of the
        two; at the ends of a word there is nothing to merge with. Of pairs that overlap both are
        due only if they are of one rank, so of three equal tokens.
        """
        size = rank.shape[0]
        due = (rank < NO_RANK) & (rank == jax.ops.segment_min(rank, word, size)[word])
        if not self.all_at_once:
            place = jnp.arange(size, dtype=jnp.int32)
            leftmost = jax.ops.segment_min(jnp.where(due, place, size), word, size)[word]
            due &= ((known & ALL_AT_ONCE) > 0) | (place == leftmost)
        left = ((known & LEFT_WAITS) > 0) | (before == size)
        right = ((known & RIGHT_WAITS) > 0) | (_at(after, after, size) == size)
        early = (rank < NO_RANK) & ((known & EARLY) > 0) & left & right
        return jax.lax.optimization_barrier(due | early)


def _at(x: jax.Array, place: jax.Array, otherwise: int | bool) -> jax.Array:
    """x at those places; `otherwise` beyond its end."""
    return jnp.where(place < x.shape[0], x.at[place].get(mode="clip"), otherwise)


def _apart(due: jax.Array, alive: jax.Array, before: jax.Array) -> jax.Array:
    """Every other one, from the left, of pairs that overlap: those of a run of equal tokens."""
    number = jnp.cumsum(alive, dtype=jnp.int32)
    begins = due & ~_at(due, before, False)
    return due & ((number - jax.lax.cummax(jnp.where(begins, number, 0))) % 2 == 0)


def merge_all(tokens: list[int], ranks: Ranks) -> list[int]:
    """A word's tokens, on the host: the lowest-ranked pair first, from the left."""
    while True:
        found = [(ranks[pair][0], i) for i, pair in enumerate(pairwise(tokens)) if pair in ranks]
        if not found:
            return tokens
        _, at = min(found)
        merged = ranks[tokens[at], tokens[at + 1]][1]
        tokens = [*tokens[:at], merged, *tokens[at + 2 :]]

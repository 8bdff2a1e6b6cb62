"""Finding fixed words in a text inside jit: a trie, walked from all places at once."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.pairs import Pairs
from jaxrl.text.text import Text


class Trie(flax.struct.PyTreeNode):
    """Words that are one token each, by their letters."""

    edges: Pairs  # (node, byte) -> (node, its token or -1)
    size: int = flax.struct.field(pytree_node=False)  # the number of words

    @classmethod
    def of(cls, found: Mapping[bytes, int]) -> "Trie":
        nodes: dict[bytes, int] = {b"": 0}
        for word in found:
            for end in range(1, len(word) + 1):
                nodes.setdefault(word[:end], len(nodes))
        edges = [
            (nodes[start[:-1]], start[-1], node, found.get(start, -1))
            for start, node in nodes.items()
            if start
        ]
        table = np.array(edges, np.int32).reshape(-1, 4)
        return cls(Pairs.of(table[:, :2], table[:, 2:]), len(found))

    def longest(self, text: Text, room: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(bytes, token) [L] of the longest word at each place with `room`; 0 bytes: none."""
        place = jnp.arange(text.capacity, dtype=jnp.int32)
        room = jnp.minimum(room, text.length - place)

        def one_more(carry):
            depth, node, length, token = carry
            byte = text.bytes.at[place + depth].get(mode="clip").astype(jnp.int32)
            node, ends = self.edges.find(jnp.where(depth < room, node, -1), byte)
            depth += 1
            length = jnp.where(ends >= 0, depth, length)
            return depth, node, length, jnp.where(ends >= 0, ends, token)

        start = (jnp.int32(0), jnp.zeros_like(place), jnp.zeros_like(place), place)
        going: Any = lambda carry: jnp.any(carry[1] >= 0)  # noqa: E731
        _, _, length, token = jax.lax.while_loop(going, one_more, start)
        return length, token


def from_the_left(length: jax.Array) -> jax.Array:
    """bool [L]: a word begins here for a reader who goes on behind each word that he finds.

    `length` [L] is that of the word that stands at a place, 0 where none does.
    """
    place = jnp.arange(length.shape[0], dtype=jnp.int32)

    def decide(carry):
        taken, open_ = carry
        end = jax.lax.cummax(jnp.where(taken | open_, place + length, 0))
        covered = jnp.append(0, end[:-1]) > place
        taken |= open_ & ~covered  # nothing that is open or taken reaches here
        end = jax.lax.cummax(jnp.where(taken, place + length, 0))
        return taken, open_ & ~taken & (jnp.append(0, end[:-1]) <= place)

    start = (jnp.zeros_like(length, jnp.bool_), length > 0)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), decide, start)[0]

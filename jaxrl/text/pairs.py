"""What pairs of numbers lead to, as a hash table that is read inside jit."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

ROOM = 2.5  # rows for each pair: two places to choose from fill less than half of a table
MOST_ROUNDS = 200  # of moving pairs about until each has a row of its own
TRIES = 8  # tables of different sizes, each of which sorts the pairs anew
# Odd, so that every bit counts; one row for each of the two places a pair may stand in.
_MULTIPLIERS = ((0x9E3779B1, 0x85EBCA6B), (0xC2B2AE35, 0x27D4EB2F))


class Pairs(flax.struct.PyTreeNode):
    """A cuckoo table: a pair stands in one of the two rows that its hashes name."""

    row: jax.Array  # int32 [rows * 4]: left, right and two values; -1 where empty

    @classmethod
    def of(cls, pair: np.ndarray, value: np.ndarray) -> "Pairs":
        """From different pairs [N, 2] of numbers from 0 on, and their values [N, 2]."""
        for i in range(TRIES):
            rows = int((ROOM + i / TRIES) * len(pair) + 16 * (i + 1)) | 1
            choices = [_row(pair[:, 0], pair[:, 1], rows, which) for which in (0, 1)]
            owner = _place(np.stack(choices), rows)
            if owner is not None:
                break
        else:
            raise ValueError(f"{len(pair)} pairs find no rows in a table")
        full = owner >= 0
        row = np.full((rows, 4), -1, np.int32)
        row[full] = np.concatenate([pair, value], 1)[owner[full]]
        return cls(jnp.asarray(row.reshape(-1)))

    def find(self, left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The two values of each pair, -1 where it is none; a number below 0 is in no pair."""
        rows = self.row.shape[0] // 4
        asked = (left >= 0) & (right >= 0)
        places, same = [], []
        for which in (0, 1):
            # Row 0 for what nobody asks, which stays in the cache.
            at = jnp.where(asked, _row(left, right, rows, which), 0) * 4
            at = jax.lax.optimization_barrier(at)  # else each reader computes it again
            places.append(at)
            same.append(asked & (self.row[at] == left) & (self.row[at + 1] == right))
        at = jax.lax.optimization_barrier(jnp.where(same[0], places[0], places[1]))
        found = same[0] | same[1]
        return tuple(jnp.where(found, self.row[at + i], -1) for i in (2, 3))  # pyright: ignore


def _row(left: Any, right: Any, rows: int, which: int) -> Any:
    """A hash below `rows`; for arrays of NumPy and of JAX alike."""
    first, second = _MULTIPLIERS[which]
    mixed = left.astype(np.uint32) * np.uint32(first)
    mixed = (mixed ^ (mixed >> 15) ^ right.astype(np.uint32)) * np.uint32(second)
    return ((mixed ^ (mixed >> 13)) % np.uint32(rows)).astype(np.int32)


def _place(choices: np.ndarray, rows: int) -> np.ndarray | None:
    """Which pair [rows] has each row, -1: none; `choices` [2, N] are those of each pair.

    None where too many want the same rows.
    All that have no row take the one they ask for; who is driven out asks for its other one.
    """
    owner = np.full(rows, -1)
    asks = np.zeros(choices.shape[1], np.int32)
    homeless = np.arange(choices.shape[1])
    for _ in range(MOST_ROUNDS):
        if not len(homeless):
            return owner
        wanted = choices[asks[homeless], homeless]
        before = owner[wanted]
        owner[wanted] = homeless
        won = owner[wanted] == homeless
        driven_out = before[won]
        homeless = np.concatenate([homeless[~won], driven_out[driven_out >= 0]])
        asks[homeless] ^= 1
    return None

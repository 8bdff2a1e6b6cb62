"""Tokens of a text, and the tokenizer whose tokens are bytes."""

from collections.abc import Sequence
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.text.text import Text


class Tokens(flax.struct.PyTreeNode):
    """At most S tokens."""

    ids: jax.Array  # int32 [S], 0 beyond `length`
    length: jax.Array  # int32 []
    cut: jax.Array  # bool []: something did not fit


def join(parts: list[Tokens], capacity: int) -> Tokens:
    """One after the other."""
    out, start, cut = jnp.zeros(capacity, jnp.int32), jnp.zeros((), jnp.int32), jnp.asarray(False)
    for part in parts:
        step = jnp.arange(part.ids.shape[0], dtype=jnp.int32)
        at = jnp.where(step < part.length, start + step, capacity)
        out = out.at[at].set(part.ids, mode="drop")
        start, cut = start + part.length, cut | part.cut
    return Tokens(out, jnp.minimum(start, capacity), cut | (start > capacity))


def constant(ids: Sequence[int]) -> Tokens:
    """Tokens that are always the same."""
    length = jnp.asarray(len(ids), jnp.int32)
    return Tokens(jnp.asarray(ids, jnp.int32), length, jnp.asarray(False))


class Tokenizer(Protocol):
    """What turns texts into tokens inside jit, and back."""

    @property
    def special(self) -> dict[str, int]: ...

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: Text, capacity: int) -> Tokens: ...

    def decode(self, tokens: Tokens, capacity: int) -> Text: ...


class ByteTokenizer(flax.struct.PyTreeNode):
    """Token i < 256 is the byte i; four special tokens follow."""

    @property
    def special(self) -> dict[str, int]:
        """Ids of the special tokens by name."""
        return {"<|end|>": 256, "<|user|>": 257, "<|assistant|>": 258, "<|pad|>": 259}

    @property
    def vocab_size(self) -> int:
        return 260

    def encode(self, text: Text, capacity: int) -> Tokens:
        """One token a byte."""
        raw = Tokens(text.bytes.astype(jnp.int32), text.length, text.cut)
        return join([raw], capacity)

    def decode(self, tokens: Tokens, capacity: int) -> Text:
        """The bytes among the tokens; special ones say nothing."""
        step = jnp.arange(tokens.ids.shape[0], dtype=jnp.int32)
        kept = (step < tokens.length) & (tokens.ids < 256)
        at = jnp.where(kept, jnp.cumsum(kept, dtype=jnp.int32) - 1, capacity)
        out = jnp.zeros(capacity, jnp.uint8).at[at].set(tokens.ids.astype(jnp.uint8), mode="drop")
        total = jnp.sum(kept, dtype=jnp.int32)
        return Text(out, jnp.minimum(total, capacity), tokens.cut | (total > capacity))

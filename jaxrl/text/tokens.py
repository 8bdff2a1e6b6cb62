"""Tokens of a text, and the tokenizer whose tokens are bytes."""

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.text.text import Text


class Tokens(flax.struct.PyTreeNode):
    """At most S tokens."""

    ids: jax.Array  # int32 [S], 0 beyond `length`
    length: jax.Array  # int32 []
    cut: jax.Array  # bool []: something did not fit


def join(parts: list[Tokens | int], capacity: int) -> Tokens:
    """One after the other; an integer is a single token."""
    whole = [_single(part) if isinstance(part, int) else part for part in parts]
    out, start, cut = jnp.zeros(capacity, jnp.int32), jnp.zeros((), jnp.int32), jnp.asarray(False)
    for part in whole:
        step = jnp.arange(part.ids.shape[0])
        at = jnp.where(step < part.length, start + step, capacity)
        out = out.at[at].set(part.ids, mode="drop")
        start, cut = start + part.length, cut | part.cut
    return Tokens(out, jnp.minimum(start, capacity), cut | (start > capacity))


def _single(token: int) -> Tokens:
    return Tokens(jnp.full(1, token, jnp.int32), jnp.ones((), jnp.int32), jnp.asarray(False))


class ByteTokenizer(flax.struct.PyTreeNode):
    """Token i < 256 is the byte i; four special tokens follow."""

    END = 256  # ends the assistant's turn
    USER = 257
    ASSISTANT = 258
    PAD = 259

    @property
    def vocab_size(self) -> int:
        return 260

    def encode(self, text: Text, capacity: int) -> Tokens:
        """One token a byte."""
        raw = Tokens(text.bytes.astype(jnp.int32), text.length, text.cut)
        return join([raw], capacity)

    def decode(self, tokens: Tokens, capacity: int) -> Text:
        """The bytes among the tokens; special ones say nothing."""
        step = jnp.arange(tokens.ids.shape[0])
        kept = (step < tokens.length) & (tokens.ids < 256)
        at = jnp.where(kept, jnp.cumsum(kept) - 1, capacity)
        out = jnp.zeros(capacity, jnp.uint8).at[at].set(tokens.ids.astype(jnp.uint8), mode="drop")
        total = jnp.sum(kept, dtype=jnp.int32)
        return Text(out, jnp.minimum(total, capacity), tokens.cut | (total > capacity))


class PlainChat(flax.struct.PyTreeNode):
    """<|user|> text <|assistant|> response <|end|>, for models trained from scratch."""

    tokenizer: ByteTokenizer

    @property
    def end_of_turn(self) -> int:
        return ByteTokenizer.END

    @property
    def overhead(self) -> int:
        """Most tokens that `first` or `next` add to those of the text."""
        return 2

    def first(self, text: Text, capacity: int) -> Tokens:
        """What precedes the first response."""
        said = self.tokenizer.encode(text, text.capacity)
        return join([ByteTokenizer.USER, said, ByteTokenizer.ASSISTANT], capacity)

    def next(self, text: Text, capacity: int) -> Tokens:
        """What follows a response's end of turn, up to the next response."""
        return self.first(text, capacity)

    def response(self, text: Text, capacity: int) -> Tokens:
        """An assistant's turn, its end of turn included."""
        return join([self.tokenizer.encode(text, text.capacity), ByteTokenizer.END], capacity)

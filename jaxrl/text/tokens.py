"""Tokens of a text, and the tokenizer whose tokens are bytes."""

from collections.abc import Sequence
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text.text import Text, pack

UNKNOWN = b"<|unknown|>"  # what an id beyond the vocabulary says: a model's may be padded


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


class Spelling(flax.struct.PyTreeNode):
    """The bytes of every token, one after the other; those of an unknown one come last.

    A special token says its name. So it cannot hide in what an agent writes: a pattern that it
    stands in is broken, and whoever reads sees it.
    """

    data: jax.Array | np.ndarray  # uint8
    offset: jax.Array | np.ndarray  # int32 [V + 1]: where a token's bytes begin
    size: jax.Array | np.ndarray  # int32 [V + 1]: their number

    @classmethod
    def of(cls, words: Sequence[bytes]) -> "Spelling":
        """Of these tokens; one without bytes is unknown."""
        words = [*(word or UNKNOWN for word in words), UNKNOWN]
        size = np.array([len(word) for word in words], np.int32)
        offset = np.cumsum(size, dtype=np.int32) - size
        return cls(np.frombuffer(b"".join(words), np.uint8), offset, size)

    def decode(self, tokens: Tokens, capacity: int) -> Text:
        """The tokens' bytes."""
        inside = jnp.arange(tokens.ids.shape[0], dtype=jnp.int32) < tokens.length
        ids = jnp.clip(tokens.ids, 0, self.size.shape[0] - 1)
        size = jnp.where(inside, jnp.asarray(self.size)[ids], 0)
        offset = jnp.asarray(self.offset)[ids]
        return pack(jnp.asarray(self.data), offset, size, capacity, tokens.cut)


class Tokenizer(Protocol):
    """What turns texts into tokens inside jit, and back."""

    @property
    def special(self) -> dict[str, int]: ...

    @property
    def control(self) -> frozenset[int]: ...

    @property
    def lacking(self) -> frozenset[int]: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def spelling(self) -> Spelling: ...

    def unread(self, text: str) -> str: ...

    def seam(self, text: str) -> int: ...

    def encode(self, text: Text, capacity: int) -> Tokens: ...

    def decode(self, tokens: Tokens, capacity: int) -> Text: ...


def lacks(tokenizer: Tokenizer, text: str) -> str:
    """Which of the text's bytes has no token, in words; nothing where all have one."""
    byte = next((byte for byte in text.encode() if byte in tokenizer.lacking), None)
    return "" if byte is None else f"byte {byte} has no token"


BYTES_SPECIAL = {"<|end|>": 256, "<|user|>": 257, "<|assistant|>": 258, "<|pad|>": 259}
BYTES = Spelling.of([*(bytes([i]) for i in range(256)), *map(str.encode, BYTES_SPECIAL)])


class ByteTokenizer(flax.struct.PyTreeNode):
    """Token i < 256 is the byte i; four special tokens follow."""

    @property
    def special(self) -> dict[str, int]:
        """Ids of the special tokens by name."""
        return dict(BYTES_SPECIAL)

    @property
    def control(self) -> frozenset[int]:
        """Tokens that no text is encoded to."""
        return frozenset(BYTES_SPECIAL.values())

    @property
    def lacking(self) -> frozenset[int]:
        """Bytes without a token."""
        return frozenset()

    @property
    def vocab_size(self) -> int:
        return 260

    @property
    def spelling(self) -> Spelling:
        return BYTES

    def unread(self, text: str) -> str:
        """Why this text could not be read exactly inside jit: every text can."""
        del text
        return ""

    def seam(self, text: str) -> int:
        """Bytes of the text whose tokens stay as they are, whatever follows it."""
        return len(text.encode())

    def encode(self, text: Text, capacity: int) -> Tokens:
        """One token a byte."""
        raw = Tokens(text.bytes.astype(jnp.int32), text.length, text.cut)
        return join([raw], capacity)

    def decode(self, tokens: Tokens, capacity: int) -> Text:
        """The tokens' bytes, special ones by name."""
        return BYTES.decode(tokens, capacity)

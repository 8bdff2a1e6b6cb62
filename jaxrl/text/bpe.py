"""BPE inside jit, from a `tokenizer.json` of the kind of GPT-2, SmolLM2, Qwen, Llama-3 or Gemma.

Equal to the `tokenizers` library token by token for any UTF-8. What could not be read exactly shows
in `cut`: bytes that are no UTF-8 or have no token, characters that Python's Unicode does not know
and, where the tokenizer brings texts into the form NFC, a text that is not in it. Names of special
tokens inside a text are read as plain text, as with its `encode_special_tokens`. Added tokens that
are not special, such as Qwen3's `<think>`, are content: one token wherever they stand.
"""

import string
import unicodedata
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.files import MOST_BYTES, parse_json, read_text
from jaxrl.text.bpe_file import SPACE, BpeFile, from_json
from jaxrl.text.characters import (
    POINTS,
    UNKNOWN,
    Characters,
    Table,
    characters,
    classes,
    is_nfc,
    known,
)
from jaxrl.text.merges import Merges
from jaxrl.text.pretokens import Pattern, starts
from jaxrl.text.text import Text, literal
from jaxrl.text.tokens import Spelling, Tokens, lacks
from jaxrl.text.trie import Trie, from_the_left

SIGNS = string.punctuation.encode()


class BpeTokenizer(flax.struct.PyTreeNode):
    """Encodes and decodes as pure functions; `from_file` reads one."""

    byte_token: jax.Array  # int32 [256], -1 where a byte has no token
    letters: Table | None  # tokens of code points, -1 where it is spelled in bytes; None: all are
    merges: Merges
    joins: jax.Array  # bool [256 * 256]: a merge joins what ends and begins with these two bytes
    spelling: Spelling
    whole: Trie  # pre-tokens that are a token as they are
    content: Trie  # added tokens that are not special
    specials: tuple[tuple[str, int], ...] = flax.struct.field(pytree_node=False)
    control: frozenset[int] = flax.struct.field(pytree_node=False)  # no text is encoded to them
    lacking: frozenset[int] = flax.struct.field(pytree_node=False)  # bytes without a token
    pattern: Pattern = flax.struct.field(pytree_node=False)
    nfc: bool = flax.struct.field(pytree_node=False)
    vocab_size: int = flax.struct.field(pytree_node=False)

    @classmethod
    def from_file(cls, path: Path | str) -> "BpeTokenizer":
        """Reads a `tokenizer.json`; ValueError for what could not be exact."""
        path = Path(path)
        if not path.exists():
            raise ValueError(f"{path} does not exist; give a tokenizer.json.")
        text = read_text(path, MOST_BYTES)
        try:
            return cls.of(from_json(parse_json(text, "it")))
        except KeyError as error:
            reason = f"has no {error}"
        except ValueError as error:
            reason = str(error).rstrip(".")
        except (TypeError, AttributeError, IndexError, OverflowError) as error:
            reason = f"it is built in an unknown way ({error})"
        raise ValueError(f"{path} is no tokenizer that can be exact inside jit: {reason}.")

    @classmethod
    def of(cls, file: BpeFile) -> "BpeTokenizer":
        """The tables of a file that was read."""
        letters = None
        if file.letters is not None:
            token = np.full(POINTS, -1, np.int32)
            token[list(file.letters)] = list(file.letters.values())
            letters = jax.tree.map(jnp.asarray, Table.of(token))
        return cls(
            byte_token=jnp.asarray(file.byte_token),
            letters=letters,
            merges=Merges.of(file.ranks),
            joins=jnp.asarray(_joins(file)),
            spelling=jax.tree.map(jnp.asarray, Spelling.of(file.words)),
            whole=Trie.of(file.whole),
            content=Trie.of(file.content),
            specials=tuple(file.specials.items()),
            control=file.control,
            lacking=frozenset(np.flatnonzero(file.byte_token < 0).tolist()),
            pattern=file.pattern,
            nfc=file.nfc,
            vocab_size=len(file.words),
        )

    @property
    def special(self) -> dict[str, int]:
        """Ids of the special tokens by name, and of the other added ones."""
        return dict(self.specials)

    def unread(self, text: str) -> str:
        """Why this text could not be read exactly inside jit; nothing where it can."""
        if reason := lacks(self, text):
            return reason
        if self.nfc and not unicodedata.is_normalized("NFC", text):
            return "it is not in Unicode's form NFC, which the tokenizer would bring it into"
        if self.pattern.regex and not known(text):
            return f"Unicode {unicodedata.unidata_version} does not know one of its characters"
        return ""

    def seam(self, text: str) -> int:
        """Bytes of the text whose tokens stay as they are, whatever follows it.

        Where a pre-token ends depends on no more than the next character that is not white and a
        few behind it; so what is kept ends two pre-tokens before such a one that is not the last,
        behind a sign, as white space at the end of a text is split otherwise than within it.
        """
        raw = text.encode()
        place = np.flatnonzero(_begins(self, literal(raw, max(256, 1 << len(raw).bit_length()))))
        if not self.pattern.regex or not len(place):
            return 0
        data = np.frombuffer(raw, np.uint8)
        solid = np.flatnonzero((data > 32) & (data < 127) & (np.arange(len(raw)) < place[-1]))
        names = [name for name, index in self.specials if index not in self.control]
        longest = max(8, *(len(name.encode()) for name in names), 0)
        end = min(solid[-1] if len(solid) else 0, len(raw) - longest)
        before = place[(place > 0) & (place <= end)][:-1]
        before = before[np.isin(data[before - 1], list(SIGNS))]
        return int(before[-1]) if len(before) else 0

    def encode(self, text: Text, capacity: int) -> Tokens:
        """The text's tokens, no special ones among them."""
        found = characters(text)
        inside = jnp.arange(text.capacity, dtype=jnp.int32) < text.length
        first, gap, added = self._content(text)
        begins = starts(text, found, self.pattern, gap) | first
        token, alive = self._units(text, found, inside & ~gap)
        lacks = jnp.any(alive & (token < 0))
        token, alive = self._whole(text, begins, gap, token, alive & (token >= 0))
        token, alive = jnp.where(first, added, token), alive | first
        begins |= self._seam(text, found) & inside
        token, alive = self.merges.apply(token, alive, begins)
        total = jnp.sum(alive, dtype=jnp.int32)
        at = jnp.where(alive, jnp.cumsum(alive, dtype=jnp.int32) - 1, capacity)
        ids = jnp.zeros(capacity, jnp.int32).at[at].set(token, mode="drop")
        unread = lacks | ~found.valid
        if self.pattern.regex:
            unread |= jnp.any(inside & (classes(found) == UNKNOWN))
        if self.nfc:
            unread |= ~is_nfc(found)
        return Tokens(ids, jnp.minimum(total, capacity), text.cut | (total > capacity) | unread)

    def _units(
        self, text: Text, found: Characters, inside: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(tokens, where they stand) before the merges: of bytes, or of characters."""
        token = self.byte_token[text.bytes]
        if self.letters is None:
            return token, inside
        letter = self.letters.at(found.point)
        known = letter >= 0
        return jnp.where(known, letter, token), inside & (found.first | ~known)

    def _content(self, text: Text) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(an added token begins here, the byte belongs to one, that token), each [L].

        From the left, the longest one at each place.
        """
        place = jnp.arange(text.capacity, dtype=jnp.int32)
        if not self.content.size:
            none = jnp.zeros_like(place, jnp.bool_)
            return none, none, place
        length, token = self.content.longest(text, jnp.full_like(place, text.capacity))
        first = from_the_left(length)
        gap = place < jax.lax.cummax(jnp.where(first, place + length, 0))
        return first, gap, token

    def _whole(
        self, text: Text, begins: jax.Array, gap: jax.Array, token: jax.Array, alive: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The same tokens, but one for each pre-token that is a token as it is."""
        if not self.whole.size:
            return token, alive
        size = text.capacity
        place = jnp.arange(size, dtype=jnp.int32)
        border = begins | gap | (place >= text.length)
        end = jax.lax.cummin(jnp.append(jnp.where(border, place, size), size), reverse=True)[1:]
        room = jnp.where(begins & ~gap, end - place, 0)
        length, found = self.whole.longest(text, room)
        is_whole = (length == room) & (room > 0)
        of_whole = is_whole[jax.lax.cummax(jnp.where(begins, place, 0))]
        alive = jnp.where(of_whole & ~gap, is_whole, alive)
        return jnp.where(is_whole, found, token), alive

    def _seam(self, text: Text, found: Characters) -> jax.Array:
        """bool [L]: no merge joins this character and the one before it.

        Shorter words take fewer rounds: to Gemma a text is one, but none of its merges joins a
        letter and the space behind it.
        """
        byte = text.bytes.astype(jnp.int32)
        if self.letters is not None:  # there the two are the same
            byte = jnp.where(found.point == ord(SPACE), ord(" "), byte)
        return ~self.joins[jnp.append(0, byte[:-1]) * 256 + byte] & found.first

    def decode(self, tokens: Tokens, capacity: int) -> Text:
        """The tokens' bytes, special ones by name."""
        return self.spelling.decode(tokens, capacity)


@jax.jit
def _begins(tokenizer: BpeTokenizer, text: Text) -> jax.Array:
    """bool [L]: a pre-token or an added token begins here."""
    first, gap, _ = tokenizer._content(text)
    return starts(text, characters(text), tokenizer.pattern, gap) | first


def _joins(file: BpeFile) -> np.ndarray:
    """Which bytes a merge joins, of a token's end and of another's beginning."""
    first = np.array([word[0] if word else 0 for word in file.words])
    last = np.array([word[-1] if word else 0 for word in file.words])
    left, right = np.array(list(file.ranks), np.int32).reshape(-1, 2).T
    joins = np.zeros(2**16, np.bool_)
    joins[last[left] * 256 + first[right]] = True
    return joins

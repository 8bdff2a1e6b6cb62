"""Byte-level BPE inside jit, from a `tokenizer.json` of the GPT-2, Qwen2 or Llama-3 kind.

Equal to the `tokenizers` library token by token for ASCII; bytes above 127 show in `cut`. Names
of special tokens inside a text are read as plain text, as with its `encode_special_tokens`.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.files import MOST_BYTES, parse_json, read_text
from jaxrl.text.pretokens import GPT2, PATTERNS, Pattern, starts
from jaxrl.text.text import Text, pack
from jaxrl.text.tokens import Tokens

NO_RANK = np.iinfo(np.int32).max
# More than any tokenizer has: beyond them a file is made to fill memory, or to take for ever.
MOST_SLOTS = 64  # merges in one bucket
MOST_WORK = 10**8  # squares of the bytes of all tokens
MOST_WHOLE = 2**14  # pre-tokens that are a token though no merges lead there
MOST_WIDTH = 1024  # bytes of one of them
_MULTIPLIERS = (0x9E3779B1, 0x85EBCA6B)  # odd, so that every bit of a token counts


class Merges(flax.struct.PyTreeNode):
    """What two adjacent tokens merge to: a table of buckets, each with room for its fullest."""

    pair: jax.Array  # int32 [buckets, slots, 2], -1 where empty
    rank: jax.Array  # int32 [buckets, slots]
    merged: jax.Array  # int32 [merges]: the new token, by rank


class BpeTokenizer(flax.struct.PyTreeNode):
    """Encodes and decodes as pure functions; `from_file` reads one."""

    byte_token: jax.Array  # int32 [256], -1 where a byte has no token
    merges: Merges
    data: jax.Array  # uint8: the bytes of all tokens, one after the other
    offset: jax.Array  # int32 [V]: where a token's bytes begin
    size: jax.Array  # int32 [V]: their number; 0 for special tokens
    whole_data: jax.Array  # uint8 [E, W]: pre-tokens that are a token though no merges lead there
    whole_size: jax.Array  # int32 [E]
    whole_token: jax.Array  # int32 [E]
    specials: tuple[tuple[str, int], ...] = flax.struct.field(pytree_node=False)
    pattern: Pattern = flax.struct.field(pytree_node=False)
    vocab_size: int = flax.struct.field(pytree_node=False)

    @classmethod
    def from_file(cls, path: Path | str) -> "BpeTokenizer":
        """Reads a `tokenizer.json`; ValueError for what could not be exact."""
        path = Path(path)
        if not path.exists():
            raise ValueError(f"{path} does not exist; give a tokenizer.json.")
        text = read_text(path, MOST_BYTES)
        try:
            return from_json(parse_json(text, "it"))
        except (ValueError, KeyError, TypeError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(
                f"{path} is no tokenizer that can be exact inside jit: {reason}"
            ) from None

    @property
    def special(self) -> dict[str, int]:
        """Ids of the special tokens by name."""
        return dict(self.specials)

    def encode(self, text: Text, capacity: int) -> Tokens:
        """The text's tokens, no special ones among them."""
        size = text.capacity
        place = jnp.arange(size, dtype=jnp.int32)
        inside = place < text.length
        begins = starts(text, self.pattern)
        word = jnp.maximum(jnp.cumsum(begins, dtype=jnp.int32) - 1, 0)
        token, alive = self._whole(text, begins, inside)

        def round_of_merges(carry):
            token, alive, _ = carry
            at = jnp.append(jnp.where(alive, place, size), size)
            after = jnp.minimum(jax.lax.cummin(at, reverse=True)[1:], size)
            partner = jnp.minimum(after, size - 1)
            same = alive & (after < size) & (word[partner] == word)
            rank = jnp.where(same, self._rank(token, token[partner]), NO_RANK)
            best = jax.ops.segment_min(rank, word, size)[word]
            lowest = (rank == best) & (rank < NO_RANK)
            first = jax.ops.segment_min(jnp.where(lowest, place, size), word, size)[word]
            merging = lowest & (place == first)
            new = self.merges.merged[jnp.minimum(rank, self.merges.merged.shape[0] - 1)]
            token = jnp.where(merging, new, token)
            alive = alive.at[jnp.where(merging, after, size)].set(False, mode="drop")
            return token, alive, jnp.any(merging)

        token, alive, _ = jax.lax.while_loop(
            lambda carry: carry[2], round_of_merges, (token, alive, jnp.any(inside))
        )
        total = jnp.sum(alive, dtype=jnp.int32)
        at = jnp.where(alive, jnp.cumsum(alive, dtype=jnp.int32) - 1, capacity)
        ids = jnp.zeros(capacity, jnp.int32).at[at].set(token, mode="drop")
        inexact = jnp.any(inside & (text.bytes > 127))
        return Tokens(ids, jnp.minimum(total, capacity), text.cut | (total > capacity) | inexact)

    def _whole(
        self, text: Text, begins: jax.Array, inside: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(tokens, where they stand) before the merges: bytes, and pre-tokens that are a token."""
        token = self.byte_token[text.bytes]
        if self.whole_size.shape[0] == 0:
            return token, inside
        count, width = self.whole_data.shape
        place = jnp.arange(text.capacity, dtype=jnp.int32)
        ends = jnp.append(begins[1:], False) | (place == text.length - 1)
        length = jnp.cumsum(inside, dtype=jnp.int32) - jax.lax.cummax(
            jnp.where(begins, place, 0)
        )  # of the pre-token
        padded = jnp.pad(text.bytes, (0, width))
        same = jnp.ones((text.capacity, count), jnp.bool_)
        for i in range(width):
            here = padded[i : i + text.capacity, None] == self.whole_data[:, i]
            same &= here | (i >= self.whole_size)
        last = jnp.minimum(place[:, None] + self.whole_size - 1, text.capacity - 1)
        same &= begins[:, None] & ends[last] & (length[last] == self.whole_size)
        found = jnp.any(same, 1)
        token = jnp.where(found, self.whole_token[jnp.argmax(same, 1)], token)
        word_found = found[jax.lax.cummax(jnp.where(begins, place, 0))]
        return token, inside & (begins | ~word_found)

    def _rank(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """int32 [L]: the place in the file of two tokens' merge; NO_RANK where there is none."""
        row = _bucket(left, right, self.merges.pair.shape[0])
        pair = self.merges.pair[row]
        same = (pair[..., 0] == left[:, None]) & (pair[..., 1] == right[:, None])
        return jnp.min(jnp.where(same, self.merges.rank[row], NO_RANK), 1)

    def decode(self, tokens: Tokens, capacity: int) -> Text:
        """The tokens' bytes; special ones, and ids beyond the vocabulary, say nothing."""
        known = (jnp.arange(tokens.ids.shape[0], dtype=jnp.int32) < tokens.length) & (
            tokens.ids < self.vocab_size
        )
        ids = jnp.where(known, tokens.ids, 0)
        size = jnp.where(known, self.size[ids], 0)
        return pack(self.data, self.offset[ids], size, capacity, tokens.cut)


def _bucket(left: Any, right: Any, buckets: int) -> Any:
    """A hash below `buckets`, a power of two; for arrays of NumPy and of JAX alike."""
    mixed = left.astype(np.uint32) * np.uint32(_MULTIPLIERS[0])
    mixed = (mixed ^ right.astype(np.uint32)) * np.uint32(_MULTIPLIERS[1])
    return ((mixed ^ (mixed >> 15)) % np.uint32(buckets)).astype(np.int32)


def byte_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }


def from_json(file: dict[str, Any]) -> BpeTokenizer:
    """A tokenizer from a parsed `tokenizer.json`; ValueError for what could not be exact."""
    model = file["model"]
    pattern = _pattern(file)
    _check_model(model)
    vocab: dict[str, int] = model["vocab"]
    added = {entry["content"]: entry for entry in file.get("added_tokens") or []}
    special = {name: entry["id"] for name, entry in added.items()}
    characters = byte_characters()
    spelled = {}
    for name, index in vocab.items():
        if name not in special:
            if not all(char in characters for char in name):
                raise ValueError(f"token {name!r} is not spelled in byte-level characters")
            spelled[index] = bytes(characters[char] for char in name)
    added_bytes = {
        e["id"]: name.encode() for name, e in added.items() if not e.get("special", False)
    }
    byte_token = np.full(256, -1, np.int32)
    for index, data in spelled.items():
        if len(data) == 1:
            byte_token[data[0]] = index
    lacking = [byte for byte in range(128) if byte_token[byte] < 0]
    if lacking:
        raise ValueError(f"byte {lacking[0]} has no token")
    ranks = dict(_ranked(model["merges"], vocab))
    count = max([*vocab.values(), *special.values()]) + 1
    words = [spelled.get(i) or added_bytes.get(i, b"") for i in range(count)]
    size = np.array([len(word) for word in words], np.int32)
    whole = _unreachable(spelled, ranks, byte_token) if model.get("ignore_merges") else {}
    width = max(map(len, whole), default=1)
    return BpeTokenizer(
        byte_token=jnp.asarray(byte_token),
        merges=_table(ranks),
        data=jnp.asarray(np.frombuffer(b"".join(words), np.uint8)),
        offset=jnp.asarray(np.cumsum(size, dtype=np.int32) - size),
        size=jnp.asarray(size),
        whole_data=jnp.asarray(
            np.array([list(word.ljust(width, b"\0")) for word in whole], np.uint8).reshape(
                -1, width
            )
        ),
        whole_size=jnp.asarray(np.array([len(word) for word in whole], np.int32)),
        whole_token=jnp.asarray(np.array(list(whole.values()), np.int32)),
        specials=tuple(special.items()),
        pattern=pattern,
        vocab_size=count,
    )


def _check_model(model: dict[str, Any]) -> None:
    """Only the plain kind of BPE; every setting that would change tokens must be off."""
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"model.type={model['type']} is not BPE")
    for name in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise ValueError(f"model.{name}={model[name]!r} is not supported")
    if model.get("byte_fallback"):
        raise ValueError("model.byte_fallback=true: it is not byte-level")


def _pattern(file: dict[str, Any]) -> Pattern:
    """Which of the known ways to split, as the file's normalizer and pre-tokenizer say."""
    normalizer = file.get("normalizer")
    if normalizer and normalizer["type"] not in ("NFC", "NFKC"):  # ASCII stays as it is
        raise ValueError(f"normalizer {normalizer['type']} is not supported")
    found: dict[str, Any] = file.get("pre_tokenizer") or {"type": "none"}
    parts: list[dict[str, Any]] = found["pretokenizers"] if found["type"] == "Sequence" else [found]
    kinds = [part["type"] for part in parts]
    if kinds[-1] != "ByteLevel" or parts[-1].get("add_prefix_space"):
        raise ValueError(f"pre_tokenizer {kinds} is not byte-level without a prefix space")
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return GPT2
    if kinds != ["Split", "ByteLevel"] or parts[1].get("use_regex", True):
        raise ValueError(f"pre_tokenizer {kinds} splits in an unknown way")
    split = parts[0]
    if split.get("invert") or split.get("behavior") != "Isolated":
        raise ValueError(f"pre_tokenizer Split with behavior {split.get('behavior')!r} is unknown")
    regex = split["pattern"].get("Regex")
    for pattern in PATTERNS.values():
        if regex == pattern.regex:
            return pattern
    raise ValueError(f"pre_tokenizer splits by an unknown expression {regex!r}")


def _ranked(
    merges: list[Any], vocab: dict[str, int]
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """((left, right), (rank, merged)) of every merge."""
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        for name in (left, right, left + right):
            if name not in vocab:
                raise ValueError(f"merge {rank} needs token {name!r}, which the vocabulary lacks")
        yield (vocab[left], vocab[right]), (rank, vocab[left + right])


def _table(ranks: dict[tuple[int, int], tuple[int, int]]) -> Merges:
    buckets = 1 << max(len(ranks), 1).bit_length()
    pairs = np.array(list(ranks), np.int32).reshape(-1, 2)
    values = np.array(list(ranks.values()), np.int32).reshape(-1, 2)
    row = _bucket(pairs[:, 0], pairs[:, 1], buckets)
    order = np.argsort(row, kind="stable")
    row = row[order]
    slot = np.arange(len(row)) - np.searchsorted(row, row)
    slots = int(slot.max(initial=0)) + 1
    if slots > MOST_SLOTS:
        raise ValueError(f"{slots} of its merges share a place in the table of {buckets}")
    pair = np.full((buckets, slots, 2), -1, np.int32)
    rank = np.full((buckets, slots), NO_RANK, np.int32)
    pair[row, slot], rank[row, slot] = pairs[order], values[order, 0]
    merged = np.zeros(int(values[:, 0].max(initial=0)) + 1, np.int32)
    merged[values[:, 0]] = values[:, 1]
    return Merges(jnp.asarray(pair), jnp.asarray(rank), jnp.asarray(merged))


def _unreachable(
    spelled: dict[int, bytes], ranks: dict[tuple[int, int], tuple[int, int]], byte_token: np.ndarray
) -> dict[bytes, int]:
    """ASCII tokens that merging their own bytes does not lead to."""
    if sum(len(word) ** 2 for word in spelled.values()) > MOST_WORK:
        longest = max(map(len, spelled.values()))
        raise ValueError(f"its tokens are too long to look at, of up to {longest} bytes")
    found = {
        word: index
        for index, word in spelled.items()
        if word.isascii() and merge_all([int(byte_token[b]) for b in word], ranks) != [index]
    }
    if len(found) > MOST_WHOLE or max(map(len, found), default=0) > MOST_WIDTH:
        raise ValueError(f"{len(found)} tokens are not what their bytes merge to, too many")
    return found


def merge_all(tokens: list[int], ranks: dict[tuple[int, int], tuple[int, int]]) -> list[int]:
    """A pre-token's tokens, on the host: the lowest-ranked pair first, from the left."""
    while True:
        found = [(ranks[pair][0], i) for i, pair in enumerate(pairwise(tokens)) if pair in ranks]
        if not found:
            return tokens
        _, at = min(found)
        merged = ranks[tokens[at], tokens[at + 1]][1]
        tokens = [*tokens[:at], merged, *tokens[at + 2 :]]

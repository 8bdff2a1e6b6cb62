"""Byte-level BPE inside jit, from a `tokenizer.json` of the GPT-2, Qwen2 or Llama-3 kind.

Equal to the `tokenizers` library token by token for ASCII; bytes above 127 show in `cut`. Names
of special tokens inside a text are read as plain text, as with its `encode_special_tokens`. Added
tokens that are not special, such as Qwen3's `<think>`, are content: one token wherever they stand.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.files import MOST_BYTES, as_type, parse_json, read_text
from jaxrl.text.added_tokens import added_tokens, is_control
from jaxrl.text.pretokens import GPT2, PATTERNS, Pattern, starts
from jaxrl.text.text import Text
from jaxrl.text.tokens import Spelling, Tokens

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


class Words(flax.struct.PyTreeNode):
    """E texts that are one token each, though no merges lead there."""

    data: jax.Array  # uint8 [E, W]
    size: jax.Array  # int32 [E]
    token: jax.Array  # int32 [E]

    @classmethod
    def of(cls, found: dict[bytes, int]) -> "Words":
        width = max(map(len, found), default=1)
        data = [list(word.ljust(width, b"\0")) for word in found]
        return cls(
            data=jnp.asarray(np.array(data, np.uint8).reshape(-1, width)),
            size=jnp.asarray(np.array([len(word) for word in found], np.int32)),
            token=jnp.asarray(np.array(list(found.values()), np.int32)),
        )

    def at(self, text: Text) -> jax.Array:
        """bool [L, E]: the word stands in the text from this place on."""
        width = self.data.shape[1]
        padded = jnp.pad(text.bytes, (0, width))
        place = jnp.arange(text.capacity, dtype=jnp.int32)
        same = place[:, None] + self.size <= text.length
        for i in range(width):
            here = padded[i : i + text.capacity, None] == self.data[:, i]
            same &= here | (i >= self.size)
        return same


class BpeTokenizer(flax.struct.PyTreeNode):
    """Encodes and decodes as pure functions; `from_file` reads one."""

    byte_token: jax.Array  # int32 [256], -1 where a byte has no token
    merges: Merges
    spelling: Spelling
    whole: Words  # pre-tokens that are a token as they are
    content: Words  # added tokens that are not special
    specials: tuple[tuple[str, int], ...] = flax.struct.field(pytree_node=False)
    control: frozenset[int] = flax.struct.field(pytree_node=False)  # no text is encoded to them
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
        except KeyError as error:
            reason = f"has no {error}"
        except ValueError as error:
            reason = str(error).rstrip(".")
        except (TypeError, AttributeError, IndexError, OverflowError) as error:
            reason = f"it is built in an unknown way ({error})"
        raise ValueError(f"{path} is no tokenizer that can be exact inside jit: {reason}.")

    @property
    def special(self) -> dict[str, int]:
        """Ids of the special tokens by name, and of the other added ones."""
        return dict(self.specials)

    def encode(self, text: Text, capacity: int) -> Tokens:
        """The text's tokens, no special ones among them."""
        size = text.capacity
        place = jnp.arange(size, dtype=jnp.int32)
        inside = place < text.length
        first, gap, added = self._content(text)
        begins = starts(text, self.pattern, gap) | first
        word = jnp.maximum(jnp.cumsum(begins, dtype=jnp.int32) - 1, 0)
        token, alive = self._whole(text, begins, inside)
        token, alive = jnp.where(first, added, token), alive & (first | ~gap)

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

    def _content(self, text: Text) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(an added token begins here, the byte belongs to one, that token), each [L].

        From the left, the longest one at each place.
        """
        size = text.capacity
        place = jnp.arange(size, dtype=jnp.int32)
        if self.content.size.shape[0] == 0:
            none = jnp.zeros(size, jnp.bool_)
            return none, none, place
        length = jnp.where(self.content.at(text), self.content.size, 0)
        best = jnp.argmax(length, 1)
        length = jnp.take_along_axis(length, best[:, None], 1)[:, 0]
        # Which places a reader from the left comes to, twice as many steps in each round.
        reached, jump = place == 0, jnp.append(place + jnp.maximum(length, 1), size)
        jump = jnp.minimum(jump, size)
        for _ in range(size.bit_length()):
            reached = reached.at[jnp.where(reached, jump[:-1], size)].set(True, mode="drop")
            jump = jump[jump]
        first = reached & (length > 0)
        gap = place < jax.lax.cummax(jnp.where(first, place + length, 0))
        return first, gap, self.content.token[best]

    def _whole(
        self, text: Text, begins: jax.Array, inside: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(tokens, where they stand) before the merges: bytes, and pre-tokens that are a token."""
        token = self.byte_token[text.bytes]
        if self.whole.size.shape[0] == 0:
            return token, inside
        place = jnp.arange(text.capacity, dtype=jnp.int32)
        ends = jnp.append(begins[1:], False) | (place == text.length - 1)
        length = jnp.cumsum(inside, dtype=jnp.int32) - jax.lax.cummax(
            jnp.where(begins, place, 0)
        )  # of the pre-token
        last = jnp.minimum(place[:, None] + self.whole.size - 1, text.capacity - 1)
        same = self.whole.at(text) & begins[:, None]
        same &= ends[last] & (length[last] == self.whole.size)
        found = jnp.any(same, 1)
        token = jnp.where(found, self.whole.token[jnp.argmax(same, 1)], token)
        word_found = found[jax.lax.cummax(jnp.where(begins, place, 0))]
        return token, inside & (begins | ~word_found)

    def _rank(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """int32 [L]: the place in the file of two tokens' merge; NO_RANK where there is none."""
        row = _bucket(left, right, self.merges.pair.shape[0])
        pair = self.merges.pair[row]
        same = (pair[..., 0] == left[:, None]) & (pair[..., 1] == right[:, None])
        return jnp.min(jnp.where(same, self.merges.rank[row], NO_RANK), 1)

    def decode(self, tokens: Tokens, capacity: int) -> Text:
        """The tokens' bytes, special ones by name."""
        return self.spelling.decode(tokens, capacity)


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
    model = as_type(dict, as_type(dict, file, "the file")["model"], "model")
    pattern = _pattern(file)
    _check_model(model)
    vocab = _vocab(model)
    added = added_tokens(file)
    characters = byte_characters()
    spelled = {}
    for name, index in vocab.items():
        if name not in added:
            if not all(char in characters for char in name):
                raise ValueError(f"token {name!r} is not spelled in byte-level characters")
            spelled[index] = bytes(characters[char] for char in name)
    byte_token = np.full(256, -1, np.int32)
    for index, data in spelled.items():
        if len(data) == 1:
            byte_token[data[0]] = index
    lacking = [byte for byte in range(128) if byte_token[byte] < 0]
    if lacking:
        raise ValueError(f"byte {lacking[0]} has no token")
    special = {name: entry["id"] for name, entry in added.items()}
    taken = next((name for name, index in special.items() if index in spelled), None)
    if taken is not None:
        raise ValueError(f"added token {taken!r} has the id of another token")
    control = frozenset(entry["id"] for entry in added.values() if is_control(entry))
    ranks = dict(_ranked(model["merges"], vocab, control))
    count = _count([*vocab.values(), *special.values()])
    spelled_too = spelled | {index: name.encode() for name, index in special.items()}
    words = [spelled_too.get(i, b"") for i in range(count)]
    whole = _unreachable(spelled, ranks, byte_token) if model.get("ignore_merges") else {}
    content = {name.encode(): x for name, x in special.items() if x not in control}
    return BpeTokenizer(
        byte_token=jnp.asarray(byte_token),
        merges=_table(ranks),
        spelling=jax.tree.map(jnp.asarray, Spelling.of(words)),
        whole=Words.of(whole),
        content=Words.of({word: index for word, index in content.items() if word.isascii()}),
        specials=tuple(special.items()),
        control=control,
        pattern=pattern,
        vocab_size=count,
    )


def _vocab(model: dict[str, Any]) -> dict[str, int]:
    """Ids of tokens by their spelling."""
    vocab = as_type(dict, model["vocab"], "model.vocab")
    odd = next((name for name, index in vocab.items() if type(index) is not int), None)
    if odd is not None:
        raise ValueError(f"model.vocab gives {odd!r} an id that is no integer")
    return vocab


def _count(ids: list[int]) -> int:
    """The number of tokens; ValueError for ids that leave far more places than they fill."""
    if min(ids) < 0 or max(ids) > 4 * len(ids) + 2**16:
        odd = min(ids) if min(ids) < 0 else max(ids)
        raise ValueError(f"id {odd} is none that one of {len(ids)} tokens can have")
    return max(ids) + 1


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
    normalizer = as_type(dict | None, file.get("normalizer"), "normalizer")
    if normalizer and normalizer["type"] not in ("NFC", "NFKC"):  # ASCII stays as it is
        raise ValueError(f"normalizer {normalizer['type']} is not supported")
    found = as_type(dict, file.get("pre_tokenizer") or {"type": "none"}, "pre_tokenizer")
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
    merges: Any, vocab: dict[str, int], control: frozenset[int]
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """((left, right), (rank, merged)) of every merge."""
    for rank, merge in enumerate(as_type(list, merges, "model.merges")):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or list(map(type, pair)) != [str, str]:
            raise ValueError(f"merge {rank} is {str(merge)[:40]!r}, no pair of tokens")
        left, right = pair
        for name in (left, right, left + right):
            if name not in vocab:
                raise ValueError(f"merge {rank} needs token {name!r}, which the vocabulary lacks")
        if vocab[left + right] in control:
            raise ValueError(f"merge {rank} makes the special token {left + right!r} of plain text")
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

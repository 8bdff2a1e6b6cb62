"""A BPE tokenizer's `tokenizer.json` on the host: what is exact inside jit, all else refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrl.files import as_type
from jaxrl.text.added_tokens import added_tokens, is_control
from jaxrl.text.merges import Ranks, merge_all
from jaxrl.text.pretokens import GEMMA, GPT2, PATTERNS, SMOLLM, Pattern

# More than any tokenizer has: beyond them a file is made to fill memory, or to take for ever.
MOST_WORK = 10**8  # squares of the bytes of all tokens
MOST_WHOLE = 2**16  # pre-tokens that are a token though no merges lead there
SPACE = "\u2581"  # what a space is to a tokenizer of characters


@dataclass(frozen=True)
class BpeFile:
    """What a file says, in plain numbers."""

    byte_token: np.ndarray  # int32 [256], -1 where a byte has no token
    letters: dict[int, int] | None  # tokens of code points; None where each byte is one
    ranks: Ranks
    words: list[bytes]  # what each token says, b"" where an id has none
    whole: dict[bytes, int]  # pre-tokens that are a token though no merges lead there
    content: dict[bytes, int]  # added tokens that are not special
    specials: dict[str, int]  # all added tokens
    control: frozenset[int]  # those that no text is encoded to
    pattern: Pattern
    nfc: bool  # texts are brought into Unicode's form NFC


def from_json(file: dict[str, Any]) -> BpeFile:
    """What a parsed `tokenizer.json` says; ValueError for what could not be exact."""
    model = as_type(dict, as_type(dict, file, "the file")["model"], "model")
    _check_model(model)
    by_bytes = not model.get("byte_fallback")
    nfc = _normalizer(file, by_bytes)
    pattern = _byte_level_pattern(file) if by_bytes else _whole_pattern(file)
    vocab, added = _vocab(model), added_tokens(file)
    spell = _spell_bytes if by_bytes else _spell_letters
    spelled = {index: spell(name) for name, index in vocab.items() if name not in added}
    byte_token = np.full(256, -1, np.int32)
    if by_bytes:
        byte_token[[ord(x) for x in spelled.values() if len(x) == 1]] = [
            index for index, x in spelled.items() if len(x) == 1
        ]
    else:
        byte_token[:] = [vocab.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
    _check_bytes(model, byte_token, by_bytes)
    special = {name: entry["id"] for name, entry in added.items()}
    taken = next((name for name, index in special.items() if index in spelled), None)
    if taken is not None:
        raise ValueError(f"added token {taken!r} has the id of another token")
    control = frozenset(entry["id"] for entry in added.values() if is_control(entry))
    ranks = dict(_ranked(model["merges"], vocab, control))
    count = _count([*vocab.values(), *special.values()])
    says = spelled | {index: name.encode() for name, index in special.items()}
    return BpeFile(
        byte_token=byte_token,
        letters=None if by_bytes else _letters(vocab),
        ranks=ranks,
        words=[says.get(i, b"") for i in range(count)],
        whole=_unreachable(spelled, ranks, byte_token) if model.get("ignore_merges") else {},
        content={name.encode(): x for name, x in special.items() if x not in control},
        specials=special,
        control=control,
        pattern=pattern,
        nfc=nfc,
    )


def byte_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }


_BYTE_OF = byte_characters()


def _spell_bytes(name: str) -> bytes:
    if not all(char in _BYTE_OF for char in name):
        raise ValueError(f"token {name!r} is not spelled in byte-level characters")
    return bytes(_BYTE_OF[char] for char in name)


def _spell_letters(name: str) -> bytes:
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes.fromhex(name[3:5])
    return name.replace(SPACE, " ").encode()


def _letters(vocab: dict[str, int]) -> dict[int, int]:
    """Tokens of code points; that of a space is the one it is replaced by."""
    letters = {ord(name): index for name, index in vocab.items() if len(name) == 1}
    letters.pop(ord(" "), None)
    return letters | ({ord(" "): letters[ord(SPACE)]} if ord(SPACE) in letters else {})


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
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise ValueError(f"model.{name}={model[name]!r} is not supported")
    if model.get("byte_fallback") and model.get("ignore_merges"):
        raise ValueError("model.byte_fallback and ignore_merges are not supported together")


def _check_bytes(model: dict[str, Any], byte_token: np.ndarray, by_bytes: bool) -> None:
    """A byte without a token is left out by the library, which texts that have it will show.

    With a token for what is unknown it would be that one, which is not known here.
    """
    lacking = np.flatnonzero(byte_token < 0)
    if len(lacking) and (model.get("unk_token") or not by_bytes):
        raise ValueError(
            f"byte {lacking[0]} has no token and model.unk_token={model.get('unk_token')!r}"
        )


def _normalizer(file: dict[str, Any], by_bytes: bool) -> bool:
    """Whether texts are brought into the form NFC; ValueError for what else they become."""
    found = as_type(dict | None, file.get("normalizer"), "normalizer") or {}
    parts = found["normalizers"] if found.get("type") == "Sequence" else [found] if found else []
    kinds = [part["type"] for part in parts]
    if by_bytes and kinds in ([], ["NFC"]):
        return kinds == ["NFC"]
    replaced = {"pattern": {"String": " "}, "content": SPACE, "type": "Replace"}
    if not by_bytes and parts == [replaced]:
        return False
    raise ValueError(
        f"normalizer {'+'.join(kinds) or None} is not supported with "
        f"byte_fallback={not by_bytes}".replace("byte_fallback=False", "a byte-level BPE")
    )


def _whole_pattern(file: dict[str, Any]) -> Pattern:
    """No splits: a text without spaces, which are replaced, is one word to Gemma's split."""
    found = as_type(dict | None, file.get("pre_tokenizer"), "pre_tokenizer")
    pattern = (found or {}).get("pattern", {})
    if found is None or (found["type"], pattern) == ("Split", {"String": " "}):
        return GEMMA
    raise ValueError(f"pre_tokenizer {found['type']} is not supported with byte_fallback")


def _byte_level_pattern(file: dict[str, Any]) -> Pattern:
    """Which of the known ways to split, as the file's pre-tokenizer says."""
    found = as_type(dict, file.get("pre_tokenizer") or {"type": "none"}, "pre_tokenizer")
    parts: list[dict[str, Any]] = found["pretokenizers"] if found["type"] == "Sequence" else [found]
    kinds = [part["type"] for part in parts]
    if kinds[-1] != "ByteLevel" or parts[-1].get("add_prefix_space"):
        raise ValueError(f"pre_tokenizer {kinds} is not byte-level without a prefix space")
    splits = parts[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and splits:
        return GPT2
    if kinds == ["Digits", "ByteLevel"] and splits and parts[0].get("individual_digits"):
        return SMOLLM
    if kinds != ["Split", "ByteLevel"] or splits:
        raise ValueError(f"pre_tokenizer {kinds} splits in an unknown way")
    split = parts[0]
    if split.get("invert") or split.get("behavior") != "Isolated":
        raise ValueError(f"pre_tokenizer Split with behavior {split.get('behavior')!r} is unknown")
    regex = split["pattern"].get("Regex")
    for pattern in PATTERNS.values():
        if regex and regex == pattern.regex and not pattern.alone:
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


def _unreachable(
    spelled: dict[int, bytes], ranks: Ranks, byte_token: np.ndarray
) -> dict[bytes, int]:
    """Tokens that are whole characters and that merging their own bytes does not lead to."""
    if sum(len(word) ** 2 for word in spelled.values()) > MOST_WORK:
        longest = max(map(len, spelled.values()))
        raise ValueError(f"its tokens are too long to look at, of up to {longest} bytes")
    tokens = byte_token.tolist()
    found = {
        word: index
        for index, word in spelled.items()
        if _is_utf8(word) and merge_all([tokens[byte] for byte in word], ranks) != [index]
    }
    if len(found) > MOST_WHOLE:
        raise ValueError(f"{len(found)} tokens are not what their bytes merge to, too many")
    return found


def _is_utf8(word: bytes) -> bool:
    try:
        return bool(word.decode())
    except UnicodeDecodeError:
        return False

"""The added tokens of a `tokenizer.json`: special ones, and ones that are content."""

from typing import Any

from jaxrl.files import as_type
from jaxrl.text.formats import CONTROL

MOST_PAIRS = 200_000  # of tokens that are held against each other


def added_tokens(file: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of `added_tokens` by name; ValueError for those that texts cannot be cut at."""
    added: dict[str, dict[str, Any]] = {}
    for i, entry in enumerate(as_type(list, file.get("added_tokens") or [], "added_tokens")):
        as_type(dict, entry, f"added_tokens[{i}]")
        for name, hint in (("content", str), ("id", int)):
            as_type(hint, entry.get(name), f"added_tokens[{i}].{name}")
        added[entry["content"]] = entry
    _check_plain(list(added.values()))
    return added


def _check_plain(added: list[dict[str, Any]]) -> None:
    """ValueError for added tokens of content that the search inside jit would not find alike."""
    plain = [entry for entry in added if not is_control(entry)]
    if len(plain) * len(added) > MOST_PAIRS:
        raise ValueError(f"{len(plain)} added tokens that are not special are too many")
    for entry in plain:
        name = entry["content"]
        flags = [flag for flag in ("single_word", "lstrip", "rstrip") if entry.get(flag)]
        if flags or not name:
            raise ValueError(f"added token {name!r} with {flags} is not supported")
        for other in added:
            apart = is_control(other) or other.get("normalized") != entry.get("normalized")
            if apart and _overlap(name, other["content"]):
                raise ValueError(f"added tokens {name!r} and {other['content']!r} overlap")


def _overlap(one: str, other: str) -> bool:
    """Both could stand in a text and share a character of it."""
    ends = range(1, min(len(one), len(other)))
    return (
        one in other
        or other in one
        or any(one[:n] == other[-n:] or one[-n:] == other[:n] for n in ends)
    )


def is_control(entry: dict[str, Any]) -> bool:
    """An entry of `added_tokens` that no text may be encoded to, unlike Qwen3's `<think>`."""
    return bool(entry.get("special")) or entry["content"] in CONTROL

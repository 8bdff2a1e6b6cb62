"""The added tokens of a `tokenizer.json`: special ones, and ones that are content."""

from typing import Any

from jaxrl.files import as_type
from jaxrl.text.formats import CONTROL

MOST_WORK = 10**7  # squares of the lengths of names that are held against each other


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
    for entry in added:
        if not is_control(entry):
            name = entry["content"]
            flags = [flag for flag in ("single_word", "lstrip", "rstrip") if entry.get(flag)]
            if flags or not name:
                raise ValueError(f"added token {name!r} with {flags} is not supported")
    for normalized in (False, True):
        mine = [e for e in added if not is_control(e) and bool(e.get("normalized")) == normalized]
        rest = [e for e in added if is_control(e) or bool(e.get("normalized")) != normalized]
        _check_apart([e["content"] for e in mine], [e["content"] for e in rest])


def _check_apart(names: list[str], others: list[str]) -> None:
    """ValueError where one of each could stand in a text and share a character of it."""
    work = sum(len(name) ** 2 for name in (*names, *others))
    if names and work > MOST_WORK:
        raise ValueError(f"{len(names)} added tokens that are not special are too long")
    for left, right in ((names, others), (others, names)):
        starts = {name[:end]: name for name in right for end in range(1, len(name) + 1)}
        whole = set(right)
        for name in left:
            for begin in range(len(name)):
                other = starts.get(name[begin:])  # that goes on behind the end, or ends there
                inner = (name[begin:end] for end in range(begin + 1, len(name)))
                other = other or next((x for x in inner if x in whole), None)
                if other:
                    raise ValueError(f"added tokens {name!r} and {other!r} overlap")


def is_control(entry: dict[str, Any]) -> bool:
    """An entry of `added_tokens` that no text may be encoded to, unlike Qwen3's `<think>`."""
    return bool(entry.get("special")) or entry["content"] in CONTROL

"""Models of Hugging Face by their id, `ORG/NAME` or `ORG/NAME@REVISION`, in its library's cache."""

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jaxrl import files

PART = r"[A-Za-z0-9][\w.-]*"
ID = re.compile(rf"{PART}/{PART}(@{PART}(/{PART})*)?", re.ASCII)
COMMIT = re.compile("[0-9a-f]{40}")
INDEX = "model.safetensors.index.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
MODEL = ("config.json", "generation_config.json", "*.safetensors", INDEX)
OTHERS = ("*/*", "consolidated*")  # the same weights again, for other programs


@dataclass(frozen=True)
class Index(files.Foreign):
    """Which file each tensor lies in."""

    weight_map: dict[str, str]


def is_id(text: str) -> bool:
    """Whether a word is meant for Hugging Face: not `./a/b`, nor `a/b` where there is an `a`."""
    return ID.fullmatch(text) is not None and not os.path.lexists(text.partition("/")[0])


def local(path: Path, weights: bool = True) -> Path:
    """The folder that an option names; that of an id lies in the cache."""
    text = path.as_posix()
    return snapshot(text, weights) if is_id(text) else path


@cache
def snapshot(model: str, weights: bool = True) -> Path:
    """The folder of a model's files in the cache, fetched where they are not there.

    `weights` false leaves out all but its tokenizer. ValueError, in one line, where it cannot be.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants, errors
    except ImportError:
        raise ImportError(
            f"{model} is no folder here; an id of Hugging Face needs huggingface_hub: "
            "pip install 'jaxrl[hf]'"
        ) from None
    name, _, revision = model.partition("@")
    wanted = (*TOKENIZER, *MODEL) if weights else TOKENIZER
    how: dict[str, Any] = {"revision": revision or None, "allow_patterns": [*wanted]}
    how["ignore_patterns"] = [*OTHERS]
    try:
        folder = _cached(hub, name, how, weights) if COMMIT.fullmatch(revision) else None
        folder = folder or Path(hub.snapshot_download(name, **how))
    except errors.GatedRepoError:
        reason = f"its owner asks who you are; see huggingface.co/{name}, then `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = "Hugging Face has no such model, or it is private; give a folder or another id"
    except errors.RevisionNotFoundError:
        reason = f"Hugging Face has no revision {revision} of it; leave @{revision} out"
    except errors.HFValidationError as error:
        reason = str(error).partition("\n")[0].rstrip(".") + "; try Qwen/Qwen3-0.6B"
    except Exception as error:  # of the network, of which the library shows many kinds
        cause = error.__cause__ or error
        why = f"the network failed ({str(cause).partition(chr(10))[0]})"
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else why
        reason = (
            f"it is not in the cache {constants.HF_HUB_CACHE} and {why}; fetch it where there is a "
            "network and copy the cache, or give a folder"
        )
    else:
        return _whole(folder, model, weights)
    raise ValueError(f"{model} is no folder here, and as a model of Hugging Face: {reason}.")


def _cached(hub: Any, name: str, how: dict[str, Any], weights: bool) -> Path | None:
    """The files of a commit, which never change, without a question to the network.

    None where some may be missing: an interrupted download leaves those that had come.
    """
    try:
        folder = Path(hub.snapshot_download(name, local_files_only=True, **how))
        return _whole(_whole(folder, name, weights=False), name, weights)
    except (OSError, ValueError):
        return None


def _whole(folder: Path, model: str, weights: bool) -> Path:
    """The folder; ValueError where an earlier download has left only a part of it."""
    needed = ("config.json", "*.safetensors") if weights else ("tokenizer.json",)
    missing = [pattern for pattern in needed if not any(folder.glob(pattern))]
    if weights and (folder / INDEX).exists():
        with files.reading(folder / INDEX):
            names = {*files.read_json(folder / INDEX, Index).weight_map.values()}
        missing += sorted(name for name in names if not (folder / name).exists())
    if missing:
        raise ValueError(
            f"{model} has no {missing[0]} in {folder}; where the model has one, fetch it once with"
            " a network."
        )
    return folder

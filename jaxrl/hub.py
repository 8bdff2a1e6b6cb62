"""Models of Hugging Face by their id, `ORG/NAME` or `ORG/NAME@REVISION`, in its library's cache."""

import re
from functools import cache
from pathlib import Path
from typing import Any

PART = r"[A-Za-z0-9][\w.-]*"
ID = re.compile(rf"{PART}/{PART}(@{PART}(/{PART})*)?", re.ASCII)
COMMIT = re.compile("[0-9a-f]{40}")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
MODEL = ("config.json", "generation_config.json", "*.safetensors", "model.safetensors.index.json")
OTHERS = ("*/*", "consolidated*")  # the same weights again, for other programs


def is_id(text: str) -> bool:
    """Whether a word that names no folder here is meant for Hugging Face: `./a/b` is not."""
    return ID.fullmatch(text) is not None


def local(path: Path, weights: bool = True) -> Path:
    """The folder that an option names: what is there, else that of the id in the cache."""
    text = path.as_posix()
    return path if path.exists() or not is_id(text) else snapshot(text, weights)


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
    """The files of a commit, which never change, without a question to the network."""
    try:
        folder = Path(hub.snapshot_download(name, local_files_only=True, **how))
        return _whole(folder, name, weights)
    except (OSError, ValueError):
        return None


def _whole(folder: Path, model: str, weights: bool) -> Path:
    """The folder; ValueError where an earlier download has left only a part of it."""
    needed = ("config.json", "*.safetensors") if weights else ("tokenizer.json",)
    for pattern in needed:
        if not any(folder.glob(pattern)):
            raise ValueError(
                f"{model} has no {pattern} in {folder}; where the model has one, fetch it once with"
                " a network."
            )
    return folder

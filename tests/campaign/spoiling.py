"""What is done to the folder of a case before its command starts: files cut, edited, forged."""

import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from campaign.sandbox import Spoil

SECRET = "the word from outside"


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Replaces a file of the case."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    """Changes the JSON of a file of the case."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return spoil


def lose(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def half(name: str) -> Callable[[Path], object]:
    """Leaves the first half of a file."""
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def renumber(folder: Path) -> None:
    """The last checkpoint under the number of an earlier iteration, and the earlier ones gone."""
    every = sorted((folder / "run/checkpoints").iterdir(), key=lambda p: int(p.name))
    for path in every[:-1]:
        shutil.rmtree(path)
    every[-1].rename(every[-1].with_name(str(int(every[-1].name) - 10)))


def poison(name: str) -> Callable[[Path], object]:
    """One weight is NaN."""

    def spoil(folder: Path) -> None:
        with np.load(folder / name) as file:
            weights = dict(file)
        first = next(key for key, x in weights.items() if x.dtype == np.float32 and x.size)
        weights[first].reshape(-1)[0] = np.nan
        np.savez(folder / name, allow_pickle=False, **weights)

    return spoil


def outside(folder: Path) -> Path:
    """A good file of weights beside the model's folder."""
    secret = folder / "outside/secret.safetensors"
    secret.write_bytes((folder / "model/model.safetensors").read_bytes())
    (folder / "outside/secret.txt").write_text(SECRET)
    return secret


def index(target: Callable[[Path], Any]) -> Spoil:
    """The model's index names another file for every tensor."""

    def spoil(folder: Path) -> None:
        outside(folder)
        header = (folder / "model/model.safetensors").read_bytes()
        names = json.loads(header[8 : 8 + struct.unpack("<Q", header[:8])[0]])
        where = {name: target(folder) for name in names if name != "__metadata__"}
        content = json.dumps({"metadata": {}, "weight_map": where})
        (folder / "model/model.safetensors.index.json").write_text(content)

    return spoil


def header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Another header before the same bytes."""

    def spoil(folder: Path) -> None:
        path = folder / "model/model.safetensors"
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        content = json.loads(data[8 : 8 + size])
        change(content)
        new = json.dumps(content).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + size :])

    return spoil


def first(content: dict[str, Any]) -> dict[str, Any]:
    """The entry of one tensor."""
    return next(x for name, x in content.items() if name != "__metadata__")


def length(value: int) -> Spoil:
    """Another length of the header."""

    def spoil(folder: Path) -> None:
        with (folder / "model/model.safetensors").open("r+b") as file:
            file.write(struct.pack("<Q", value))

    return spoil


def pipe(name: str) -> Spoil:
    """A pipe in place of a file: whoever opens it waits for ever."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def loop(name: str) -> Spoil:
    """A link to itself in place of a file."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to((folder / name).name)

    return spoil


def config(**values: Any) -> Spoil:
    return edit("model/config.json", lambda content: content.update(values))


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Spoil:
    return edit("model/tokenizer.json", change)


def template(text: Any) -> Spoil:
    return edit("model/tokenizer_config.json", lambda content: content.update(chat_template=text))


def archive(name: str, member: str, data: Callable[[], bytes]) -> Spoil:
    """An npz with one member in place of the weights."""

    def spoil(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            file.writestr(member, data())

    return spoil


def array(shape: str, rest: bytes = b"", kind: str = "<f4") -> Callable[[], bytes]:
    """An npy file whose header says what it likes."""
    words = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    words = words.ljust(117) + "\n"
    return lambda: b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words.encode() + rest


def pickled() -> bytes:
    """An npy file that would run a command."""
    file = io.BytesIO()
    np.save(file, np.array([Runs()], object), allow_pickle=True)
    return file.getvalue()


class Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)

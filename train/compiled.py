"""Compiled programs are kept on disk, where there is a place for them."""

import os
import re
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import jax

from jaxrl.files import reason_of
from jaxrl.train import edge, stop

PLACE = "set JAX_COMPILATION_CACHE_DIR to a folder that can be written"
STARTED = time.time()


def keep_compiled_programs() -> None:
    """Turn on the persistent compilation cache, in the user's place or ours.

    Where it cannot be written a line says so, and nothing is kept.
    """
    placed = jax.config.values["jax_compilation_cache_dir"]
    folder = default_folder() if placed is None else placed
    problem = "there is no home directory" if folder is None else unwritable(str(folder))
    if problem:
        edge.say(f"{problem}: compiled programs are not kept; {PLACE}")
        jax.config.update("jax_compilation_cache_dir", None)
        return
    if placed is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if stop.is_command():
        warnings.showwarning = _Words(str(folder), warnings.showwarning)


def default_folder() -> Path | None:
    """In the user's own cache; None for a user without a home."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        root = given if given.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # no HOME, and no such user
        return None
    return root / "jaxrl" if root.is_absolute() else None


def unwritable(folder: str) -> str:
    """Why nothing can be kept in there, in words; "" where it can, or on another machine's."""
    if "://" in folder:
        return ""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        return f"{folder} cannot be written ({reason_of(error)})"
    return ""


class _Words:
    """Shows warnings; those of the cache are one line in all.

    What was half written goes away, or it would be read in vain at every start.
    """

    def __init__(self, folder: str, show: Any):
        self.folder, self.show, self.said = folder, show, False

    def __call__(self, message: Any, *about: Any, **more: Any) -> None:
        text = str(message)
        found = re.match(
            r"Error (reading|writing) persistent compilation cache entry for '(\w*)", text
        )
        if found is None:
            return self.show(message, *about, **more)
        if found[1] == "writing":
            for entry in Path(self.folder).glob(f"{found[2]}-*-cache"):
                if entry.stat().st_mtime >= STARTED - 1:
                    stop.remove(entry)
        if not self.said:
            self.said = True
            failed = "written" if found[1] == "writing" else "read"
            reason = text.split("': ", 1)[-1]
            edge.say(
                f"a program in {self.folder} cannot be {failed} ({reason}); it is compiled anew"
            )

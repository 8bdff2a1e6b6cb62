"""What the host has answered in a run, line by line in a file: nothing is asked twice."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl import files
from jaxrl.lm.host.pool import Reply


class Where(NamedTuple):
    """Which call it was: turn `turn` of an episode; of a group's rewards its first episode."""

    seed: int
    iteration: int
    episode: int
    turn: int
    of: str  # the function, or the environment


class Answers:
    """Replies by their place in the run, and by a digest of what was asked.

    A run that goes on finds those that came before it was broken off. Of an older version, or in
    another layout, it may ask another thing at the same place: then that is asked.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self.found: dict[tuple, Reply] = {}

    def open(self, path: Path) -> None:
        """Go on with a file, or begin it; what stands after the last newline was never whole."""
        self.path = path
        if not path.exists():
            return
        whole, newline, _ = path.read_bytes().rpartition(b"\n")
        os.truncate(path, len(whole) + len(newline))
        for number, line in enumerate(whole.splitlines(), 1):
            entry = files.parse_json(line.decode(errors="replace"), f"{path}, line {number}")
            with files.reading(Path(f"{path}, line {number}"), "move it away"):
                entry = files.as_type(dict, entry, "it")
                at = files.as_type(list[int], entry.get("at"), "at")
                reply = Reply(files.as_type(str, entry.get("kind"), "kind"), entry.get("answer"))
                self.found[(*at, entry.get("of"), entry.get("asked"))] = reply

    def before(self, iteration: int) -> None:
        """Forget what came before an iteration: it is not asked for again."""
        self.found = {at: x for at, x in self.found.items() if at[1] >= iteration}

    def get(self, where: Where, asked: Any) -> Reply | None:
        """What was answered to this very question there."""
        return self.found.get((*where, digest(asked))) if self.found else None

    def keep(self, told: Sequence[tuple[Where, Any, Reply]]) -> None:
        """Write down (place, what was asked, reply), all on the disk when it returns."""
        if self.path is None:
            return
        lines = []
        for where, asked, reply in told:
            if where.iteration < 0:
                continue
            *at, of = where
            kept = {"at": at, "of": of, "asked": digest(asked), "kind": reply.kind}
            lines.append(json.dumps(kept | {"answer": reply.value}) + "\n")
        try:
            with self.path.open("ab") as file:
                file.write("".join(lines).encode())
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise


def digest(asked: Any) -> str:
    """Of anything that JSON holds."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

"""Checkpoints of the whole state, by orbax: each device writes its shards, renamed when whole."""

import hashlib
import importlib
import json
import os
from pathlib import Path
from typing import Any

import jax

from jaxrl.policy import fill_leaves, named_leaves

KEEP = 3  # newest checkpoints that stay
SUMS = "sha256.json"  # in each checkpoint: the digest of each of its files


class Checkpoints:
    """Numbered checkpoints of one run under `folder`; the number is the iteration.

    `run` says which run it is, in plain JSON values: checkpoints of another one are refused.
    """

    def __init__(self, folder: Path, run: dict[str, Any]):
        self.folder = folder.absolute()
        self.run = run
        self._manager: Any = None

    def save(self, iteration: int, state: Any) -> None:
        """Write `state` (all hosts call this); returns once it is safe to donate the state."""
        manager = self._open()
        args = _orbax().args.StandardSave(named_leaves(state))
        manager.save(iteration, args=args, custom_metadata=self.run)
        manager.wait_until_finished()
        if jax.process_index() == 0:
            _write_sums(self.folder / str(iteration))

    def iterations(self) -> list[int]:
        """Iterations with a whole checkpoint, oldest first; unfinished writes do not count."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit())

    def check(self, iteration: int) -> None:
        """Raises ValueError, in one line, for a checkpoint that is damaged or of another run."""
        damage, other = _damage(self.folder / str(iteration)), ""
        if not damage:
            try:
                saved = self._open().metadata(iteration).custom_metadata
                other = _difference(saved, self.run)
            except Exception as error:  # orbax raises many kinds; to the user they are one
                damage = _in_words(error)
        self._refuse(iteration, damage, other)

    def restore(self, iteration: int, template: Any) -> Any:
        """The state as saved, laid out like `template` (arrays or ShapeDtypeStructs).

        Raises ValueError, in one line, for a checkpoint that is damaged or of another program.
        """
        self.check(iteration)
        wanted, leaves, damage, other = named_leaves(template), {}, "", ""
        try:
            other = _misfit(self._open().item_metadata(iteration).tree, wanted)
            if not other:
                leaves = self._open().restore(iteration, args=_orbax().args.StandardRestore(wanted))
        except Exception as error:
            damage = _in_words(error)
        self._refuse(iteration, damage, other)
        return fill_leaves(template, dict(leaves), str(self.folder / str(iteration)))

    def close(self) -> None:
        if self._manager is not None:
            self._manager.close()

    def _open(self) -> Any:
        if self._manager is None:
            ocp = _orbax()
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(max_to_keep=KEEP, create=True),
                item_handlers=ocp.StandardCheckpointHandler(),
            )
        return self._manager

    def _refuse(self, iteration: int, damage: str, other: str) -> None:
        earlier = [i for i in self.iterations() if i < iteration]
        way_out = f"delete that folder to resume from iteration {earlier[-1] if earlier else 0}."
        path = self.folder / str(iteration)
        if damage:
            raise ValueError(f"checkpoint {path} is damaged: {damage}; {way_out}")
        if other:
            raise ValueError(f"checkpoint {path} is of another run: {other}; {way_out}")


def _orbax() -> Any:
    return importlib.import_module("orbax.checkpoint")  # a quarter of a second, not for --help


def abstract(state: Any) -> Any:
    """Shapes, dtypes and shardings of a state, for `Checkpoints.restore`."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def _sums(path: Path) -> dict[str, str]:
    sums = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != SUMS:
            with file.open("rb") as content:
                name = file.relative_to(path).as_posix()
                sums[name] = hashlib.file_digest(content, "sha256").hexdigest()
    return sums


def _write_sums(path: Path) -> None:
    partial = path.parent / f".{path.name}.{SUMS}"
    partial.write_text(json.dumps(_sums(path)))
    os.replace(partial, path / SUMS)


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint's files, in words; empty where nothing is known to be.

    A flipped bit in the values is nothing that orbax would notice. A run that was killed between
    a checkpoint and its digests leaves one without them: whole, as it was renamed when whole.
    """
    if not (path / SUMS).is_file():
        return ""
    try:
        wanted = json.loads((path / SUMS).read_text())
    except ValueError:
        return f"{SUMS} is cut short"
    found = _sums(path)
    for name, digest in wanted.items():
        if found.get(name) != digest:
            return f"{name} is {'not what was written' if name in found else 'missing'}"
    return ""


def _in_words(error: Exception) -> str:
    reason = str(error).strip().split("\n")[0][:200]
    return f"it cannot be read ({type(error).__name__}: {reason})"


def _difference(saved: dict[str, Any], run: dict[str, Any]) -> str:
    """The first thing in which two runs differ, in words; empty where they do not."""
    for name, value in run.items():
        if saved[name] != value:
            return f"its {name} is {saved[name]}, not {value}"
    return ""


def _misfit(saved: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first array that the checkpoint and the program do not share; empty without one."""
    for name in sorted(saved.keys() ^ wanted.keys()):
        return f"{name} is only in {'the checkpoint' if name in saved else 'the program'}"
    for name, x in wanted.items():
        there, here = (tuple(saved[name].shape), saved[name].dtype), (x.shape, x.dtype)
        if there != here:
            return f"{name} is {there[1]}{list(there[0])}, not {here[1]}{list(here[0])}"
    return ""

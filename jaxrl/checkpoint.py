"""Checkpoints of the whole state, by orbax: each device writes its shards, renamed when whole."""

import importlib
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.files import digest_of, read_json, write_json
from jaxrl.policy import fill_leaves, named_leaves

KEEP = 3  # newest checkpoints that stay
SUMS = "sha256.json"  # in each checkpoint: the digest of each of its files


class Checkpoints:
    """Numbered checkpoints of one run under `folder`; the number is the iteration."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self._manager: Any = None
        self._whole: set[int] = set()  # those whose digests have been compared, once a process

    def save(self, iteration: int, state: Any, record: dict[str, Any] | None = None) -> None:
        """Write `state` (all hosts call this); returns once it is safe to donate the state.

        `record` is what else is to be known when the run goes on, in plain JSON values.
        """
        manager = self._open()
        args = _orbax().args.StandardSave(_with_numbers(named_leaves(state)))
        kept = (record or {}) | {"iteration": iteration}
        manager.save(iteration, args=args, custom_metadata=kept)
        manager.wait_until_finished()
        if jax.process_index() == 0:
            _write_sums(self.path(iteration))

    def iterations(self) -> list[int]:
        """Iterations with a whole checkpoint, oldest first; unfinished writes do not count."""
        return numbered(self.folder)

    def path(self, iteration: int) -> Path:
        return self.folder / str(iteration)

    def record(self, iteration: int) -> dict[str, Any]:
        """What was saved beside the state.

        Raises ValueError, in one line, for a checkpoint that is damaged, or another's copy.
        """
        self._refuse_damage(iteration)
        try:
            record = dict(self._open().metadata(iteration).custom_metadata or {})
        except Exception as error:  # orbax raises many kinds; to the user they are one
            raise self._unreadable(iteration, error) from None
        self.refuse_copy(iteration, record.get("iteration", iteration))
        return record

    def restore(self, iteration: int, template: Any) -> Any:
        """The state as saved, laid out like `template` (arrays or ShapeDtypeStructs).

        Raises ValueError, in one line, for a checkpoint that is damaged or of another program.
        """
        self._refuse_damage(iteration)
        everything = named_leaves(template)
        wanted = _with_numbers(everything)
        try:
            other = _misfit(self._open().item_metadata(iteration).tree, wanted)
            args = _orbax().args.StandardRestore(wanted)
            leaves = {} if other else self._open().restore(iteration, args=args)
        except Exception as error:
            raise self._unreadable(iteration, error) from None
        if other:
            raise ValueError(
                f"checkpoint {self.path(iteration)} is of another program: {other}; go on with the "
                "code that made it (config.json says which), or begin anew with --init-from."
            )
        empty = {
            name: jnp.zeros(x.shape, x.dtype, device=x.sharding)
            for name, x in everything.items()
            if name not in wanted
        }
        return fill_leaves(template, {**leaves, **empty}, str(self.path(iteration)))

    def refuse_copy(self, iteration: int, inside: int) -> None:
        """ValueError where what is `inside` is another iteration's state."""
        if inside != iteration:
            raise ValueError(
                f"checkpoint {self.path(iteration)} holds iteration {inside}: it was copied or "
                f"renamed; name it {inside} again, or move it out of {self.folder} to resume from "
                f"iteration {self._before(iteration)}."
            )

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

    def _before(self, iteration: int) -> int:
        """Where the run would go on without this checkpoint."""
        return max((i for i in self.iterations() if i < iteration), default=0)

    def _refuse_damage(self, iteration: int) -> None:
        path = self.path(iteration)
        if iteration in self._whole:
            return
        if damage := _damage(path):
            raise ValueError(f"checkpoint {path} is damaged: {damage}; {self._way_out(iteration)}")
        self._whole.add(iteration)

    def _unreadable(self, iteration: int, error: Exception) -> ValueError:
        """What to say of a checkpoint that orbax does not read: its files may be whole."""
        path = self.path(iteration)
        reason = " ".join(str(error).strip().split("\n")[0][:200].split())
        words = f"it cannot be read ({type(error).__name__}: {reason})"
        if (path / SUMS).is_file():
            return ValueError(
                f"checkpoint {path} is what was written, but {words}; go on with the versions that "
                "made it (config.json names them)."
            )
        return ValueError(f"checkpoint {path} is damaged: {words}; {self._way_out(iteration)}")

    def _way_out(self, iteration: int) -> str:
        return f"delete that folder to resume from iteration {self._before(iteration)}."


def numbered(folder: Path) -> list[int]:
    """The whole checkpoints of a folder, oldest first."""
    if not folder.is_dir():
        return []
    names = [p.name for p in folder.iterdir() if p.name.isdecimal() and p.is_dir()]
    return sorted(int(name) for name in names if name == str(int(name)))


def _with_numbers(leaves: dict[str, Any]) -> dict[str, Any]:
    """Those that have any: orbax saves no array without."""
    return {name: x for name, x in leaves.items() if x.size}


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
            sums[file.relative_to(path).as_posix()] = digest_of(file)
    return sums


def _write_sums(path: Path) -> None:
    partial = path.parent / f".{path.name}.{SUMS}"  # not in there: it would be one of the files
    write_json(partial, _sums(path))
    os.replace(partial, path / SUMS)


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint's files, in words; empty where nothing is known to be.

    A flipped bit in the values is nothing that orbax would notice. A run that was killed between
    a checkpoint and its digests leaves one without them: whole, as it was renamed when whole.
    """
    if not (path / SUMS).is_file():
        return ""
    try:
        wanted = read_json(path / SUMS, dict[str, str])
    except ValueError:
        return f"{SUMS} is cut short"
    found = _sums(path)
    for name, digest in wanted.items():
        if found.get(name) != digest:
            return f"{name} is {'not what was written' if name in found else 'missing'}"
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

"""One process at a time in a run folder; a lock of the kernel's, gone when its holder is."""

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from jaxrl.files import reason_of
from jaxrl.train import edge

LOCK = ".lock"
BEFORE_CONFIG = {LOCK, ".config.json.tmp"}  # what a start leaves that is killed before config.json


class Taken(ValueError):
    """A run folder is another run's, or another process is at work in it."""


class Lock:
    """A run folder that nobody else writes to until `release`; `.lock` in it says who has it.

    Raises Taken where somebody has it. Where the file system has no locks it says so, and `held` is
    False.
    """

    def __init__(self, folder: Path, option: str):
        self.path, self.held, self.owner = folder / LOCK, True, os.getpid()
        self.file = -1
        try:
            self._lock()
        except BlockingIOError:
            holder = os.read(self.file, 200).decode(errors="replace").strip()
            self._close()
            raise Taken(
                f"{option}={folder} is in use by {holder or 'another process'}: wait for it or "
                "stop it, or choose another folder."
            ) from None
        if self.held:
            with contextlib.suppress(OSError):  # who it is is a help, no more
                os.ftruncate(self.file, 0)
                name = f"process {self.owner} on {socket.gethostname()}\n"
                os.pwrite(self.file, name.encode(), 0)

    def _lock(self) -> None:
        while True:
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError as error:
                self.held = False
                edge.say(
                    f"{self.path.parent} cannot be locked ({reason_of(error)}): start nothing else "
                    "in it"
                )
                return
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self.file), os.stat(self.path)):
                    return
            self._close()  # its holder has just taken it away

    def release(self) -> None:
        if self.file >= 0 and self.owner == os.getpid():  # not a forked child's
            if self.held:
                with contextlib.suppress(OSError):
                    self.path.unlink()
            self._close()

    def _close(self) -> None:
        file, self.file = self.file, -1
        os.close(file)

    def __del__(self):
        with contextlib.suppress(Exception):
            self.release()


def claim(path: Path) -> tuple[Lock, list[Path]]:
    """The folder of a new run, locked, and what was made for it, innermost first.

    Raises Taken where another run has it. One without config.json, of a start that was killed, is
    new. Of several starts at once one gets it: by the lock, or where there are none by mkdir.
    """
    made = [p for p in (path, *path.parents) if not p.exists()]
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            made = []
        left = _refuse_old(path)
        lock = Lock(path, "run_dir")
    except OSError:
        give_back(made)
        raise
    try:
        _refuse_old(path)  # who had the lock before may have begun a run
        if left and not lock.held:
            raise _exists(path)
    except Taken:
        lock.release()
        raise
    return lock, made


def give_back(made: list[Path]) -> None:
    """Leave no trace of a run that could not begin."""
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _refuse_old(path: Path) -> set[str]:
    """What is in the folder; Taken where that is more than a killed start leaves."""
    found = {p.name for p in path.iterdir()} if path.is_dir() else {""}
    if found - BEFORE_CONFIG:
        raise _exists(path)
    return found


def _exists(path: Path) -> Taken:
    return Taken(f"run_dir={path} exists; try another name, or --resume {path} to go on with it.")

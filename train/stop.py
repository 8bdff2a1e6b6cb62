"""Why a run ends before its last iteration: a signal, or numbers that are not finite."""

import os
import signal
from pathlib import Path
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop; its state is saved."""

    def __init__(self, signum: int, path: Path):
        super().__init__(f"stopped and saved; go on with --resume {path}")
        self.exit_code = 128 + signum


class Diverged(RuntimeError):
    """A loss or a parameter became NaN or infinite."""


class Stopped(RuntimeError):
    """What a run needs from its machine went away: a full disk, a file that is gone."""


class StopSignal:
    """Remembers Ctrl-C and SIGTERM; a second one acts at once."""

    def __init__(self):
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._remember)
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _remember(self, signum: int, frame: object) -> None:
        self.signum = signum
        os.write(2, b"\nsaving after the current chunk, then stopping; once more to stop at once\n")
        signal.signal(signum, self._before[signum])

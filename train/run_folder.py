"""The run folder: options, metrics, TensorBoard events, checkpoints, summary, curve, policy."""

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import math
import os
import platform
import secrets
import subprocess
import time
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl import files
from jaxrl.train.lock import Lock, Taken, claim, give_back
from jaxrl.train.logs import open_lines, whole_lines
from jaxrl.train.saving import Events, LineFile, naming, tag

PACKAGES = ("jaxrl", "jax", "jaxlib", "flax", "optax", "chex", "orbax-checkpoint", "numpy")
METRICS, TRANSCRIPTS = "metrics.jsonl", "transcripts.jsonl"


def run_options(args: Any) -> dict[str, Any]:
    """Every option of a run as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(args), default=str))


def differences(old: dict, new: dict, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """name -> (old, new) of every option that differs, nested ones dotted."""
    found = {}
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found |= differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found[prefix + name] = before, after
    return found


class RunFolder:
    """One run's files. Only process 0 of a run writes them; checkpoints are everyone's."""

    def __init__(self, path: Path, *, writes: bool, wandb: bool = False, trainer: str = ""):
        if wandb and importlib.util.find_spec("wandb") is None:
            raise ValueError("wandb=True needs that package: pip install 'jaxrl[wandb]'.")
        self.path = path
        self.number = 1  # of the runs that began in this second, where their name is the second
        self.writes = writes
        self._lock: Lock | None = None
        self.trainer = trainer
        self._wandb_wanted = wandb
        self._wandb: Any = None
        self._metrics: Any = None
        self._transcripts: Any = None
        self._events: Any = None
        self.config: dict[str, Any] = {}  # what config.json holds
        self.transcribed = [0, 0]  # lines of the transcripts, and the iteration of the last

    @classmethod
    def create(
        cls,
        path: Path,
        args: Any,
        about: dict[str, Any] | None = None,
        *,
        numbered: bool = False,
        **how: Any,
    ) -> "RunFolder":
        """A new folder; ValueError where one exists already, or `numbered` the next that is free.

        It is there with its config.json, which `about` enters too, or as it was before.
        """
        folder = cls(path, **how)
        config = {"trainer": folder.trainer, "options": run_options(args), **provenance()}
        folder.config = config | (about or {})
        if not folder.writes:
            return folder
        for folder.number in count(1):
            made, folder.path = [], numbered_path(path, folder.number)
            try:
                folder._lock, made = claim(folder.path)
                folder.write_json("config.json", folder.config)
                break
            except Taken:
                if not numbered:
                    raise
            except OSError as error:
                folder.close()
                give_back(made)
                raise ValueError(
                    f"run_dir={folder.path} cannot be made: {files.reason_of(error)}; try another."
                ) from None
        return folder

    @classmethod
    def reopen(cls, path: Path, **how: Any) -> "RunFolder":
        """A folder to go on with; ValueError where it is none."""
        folder = cls(path, **how)
        folder.config = read_config(path)
        if folder.writes:
            folder._lock = Lock(path, "resume")
        return folder

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def open_logs(self, iteration: int, step: int) -> dict[str, list[int]]:
        """Open the logs for appending, without what came after `iteration`, at env step `step`.

        file -> the iterations of the lines that it keeps; none on a host that does not write.
        """
        if not self.writes:
            return {}
        kept: dict[str, list[int]] = {}
        self._metrics, kept[METRICS] = open_lines(self.path / METRICS, iteration)
        if (self.path / TRANSCRIPTS).exists():
            self._transcripts, kept[TRANSCRIPTS] = open_lines(self.path / TRANSCRIPTS, iteration)
        written = kept.get(TRANSCRIPTS, [])
        self.transcribed = [len(written), max(written, default=0)]
        self._events = Events(self.path, (iteration, step))
        if self._wandb_wanted:
            self._wandb = _start_wandb(self.path)
        return kept

    def goes_on(self, config: dict[str, Any]) -> None:
        """Keep what config.json is to hold, now that the run goes on."""
        for name, (old, new) in differences(self.config["options"], config["options"]).items():
            if isinstance(new, int):
                print(f"{name}: {old:,} -> {new:,}; what falls linearly now reaches 0 there.")
        self.config = config
        self.write_json("config.json", config)

    def log(
        self,
        where: dict[str, int],
        metrics: dict[str, Any],
        step: int,
        pace: dict[str, float],
        of_episodes: Collection[str] = (),
    ) -> None:
        """One line of metrics at env step `step`; several members give lists, unknown is null.

        TensorBoard has them in groups, those `of_episodes` in `rollout`, and the pace beside them.
        """
        if not self.writes:
            return
        self._metrics.write(where | metrics)
        for name, value in metrics.items():
            known = [x for x in (value if isinstance(value, list) else [value]) if x is not None]
            self._events.add(tag(name, of_episodes), sum(known) / len(known), step)
        for name, value in pace.items():
            self._events.add(f"time/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log(where | metrics | pace, step=step)

    def transcribe(self, entry: dict[str, Any]) -> None:
        """One episode as text."""
        if self.writes:
            self._transcripts = self._transcripts or LineFile(self.path / TRANSCRIPTS)
            self._transcripts.write(entry)
            self.transcribed = [self.transcribed[0] + 1, entry["iteration"]]

    def flush(self) -> None:
        """Make what was logged so far survive a crash; OSError too where the folder is gone."""
        for file in (self._metrics, self._events, self._transcripts):
            if file is not None:
                file.flush()
        if self.writes:
            os.stat(self.path / "config.json")  # orbax would make a new folder

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a file whole or not at all."""
        if self.writes:
            with naming(self.path / name):
                files.write_json(self.path / name, files.without_nan(content))

    def close_logs(self) -> None:
        """No more lines are written."""
        logs = (self._metrics, self._events, self._transcripts)
        self._metrics = self._events = self._transcripts = None
        with contextlib.ExitStack() as every:
            for file in logs:
                if file is not None:
                    every.callback(file.close)
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def close(self) -> None:
        """The end: another process may enter."""
        try:
            self.close_logs()
        finally:
            if self._lock is not None:
                self._lock.release()


def numbered_path(path: Path, number: int) -> Path:
    """The name itself, then NAME-2, NAME-3 and so on."""
    return path if number == 1 else path.with_name(f"{path.name}-{number}")


@dataclasses.dataclass(frozen=True)
class Started(files.Foreign):
    """What every config.json holds, whichever version wrote it."""

    options: dict[str, Any]
    trainer: str | None = None


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a run folder; ValueError where there is none."""
    file = path / "config.json"
    if not os.path.lexists(file):
        raise ValueError(f"{path} holds no config.json: give the folder of a run.")
    with files.reading(file, "start a new run with --run-dir"):
        config = files.read_json(file)
        files.as_type(Started, config, str(file))
    return config


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The logged lines of a run, oldest first."""
    return [json.loads(line) for _, line in whole_lines(path / METRICS)]


def jsonable(values: np.ndarray) -> Any:
    """Per-seed values [K] as a list, or as a number for one seed; NaN becomes null."""
    numbers = [float(x) if math.isfinite(x) else None for x in values]
    return numbers[0] if len(numbers) == 1 else numbers


def made_with() -> dict[str, Any]:
    """The code that runs now."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"code": _git_version(), "python": platform.python_version(), "packages": versions}


def provenance() -> dict[str, Any]:
    """What a run depends on besides its options, and which it is."""
    return {
        "id": secrets.token_hex(8),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **made_with(),
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
    }


def _git_version() -> dict[str, Any]:
    """Commit of the code and whether it had uncommitted changes; empty outside a checkout."""
    here = Path(__file__).parent

    def git(*command):
        return subprocess.run(
            ["git", *command], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _start_wandb(path: Path) -> Any:
    wandb = importlib.import_module("wandb")
    return wandb.init(project="jaxrl", dir=str(path), name=path.name, config=read_config(path))

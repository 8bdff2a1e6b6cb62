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
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.train.logs import open_lines, whole_lines

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
        self.writes = writes
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
        cls, path: Path, args: Any, about: dict[str, Any] | None = None, **how: Any
    ) -> "RunFolder":
        """A new folder; ValueError where one exists already. `about` enters config.json too."""
        folder = cls(path, **how)
        config = {"trainer": folder.trainer, "options": run_options(args), **provenance()}
        folder.config = config | (about or {})
        if not folder.writes:
            return folder
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(
                f"run_dir={path} exists; try another name, or --resume {path} to go on with it."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder.write_json("config.json", folder.config)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ValueError(f"run_dir={path} cannot be made: {reason}; try another.") from None
        return folder

    @classmethod
    def reopen(cls, path: Path, **how: Any) -> "RunFolder":
        """A folder to go on with; ValueError where it is none."""
        folder = cls(path, **how)
        folder.config = read_config(path)
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
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(self.path), purge_step=step + 1 if iteration else None)
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

        TensorBoard has them in groups, those `of_episodes` in one, and the pace beside them.
        """
        if not self.writes:
            return
        self._metrics.write(json.dumps(where | metrics) + "\n")
        for name, value in metrics.items():
            known = [x for x in (value if isinstance(value, list) else [value]) if x is not None]
            group = "episode" if name in of_episodes or "episode" in name else "learning"
            self._events.add_scalar(f"{group}/{name}", sum(known) / len(known), step)
        for name, value in pace.items():
            self._events.add_scalar(f"time/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log(where | metrics | pace, step=step)

    def transcribe(self, entry: dict[str, Any]) -> None:
        """One episode as text."""
        if self.writes:
            self._transcripts = self._transcripts or (self.path / TRANSCRIPTS).open("a")
            self._transcripts.write(json.dumps(entry) + "\n")
            self.transcribed = [self.transcribed[0] + 1, entry["iteration"]]

    def flush(self) -> None:
        """Make what was logged so far survive a crash."""
        if self._metrics is not None:
            self._metrics.flush()
            self._events.flush()
        if self._transcripts is not None:
            self._transcripts.flush()

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a file whole or not at all."""
        if self.writes:
            partial = self.path / f".{name}.tmp"
            partial.write_text(json.dumps(content, indent=2) + "\n")
            os.replace(partial, self.path / name)

    def close(self) -> None:
        self.flush()
        if self._metrics is not None:
            self._metrics.close()
            self._events.close()
        if self._transcripts is not None:
            self._transcripts.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a run folder; ValueError where there is none."""
    file = path / "config.json"
    try:
        config = json.loads(file.read_text())
        if "options" in config:
            return config
        reason = "no options in it"
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path} holds no config.json: give the folder of a run.") from None
    except (OSError, ValueError) as error:
        reason = error
    raise ValueError(f"{file} cannot be read ({reason}): start a new run with --run-dir.")


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

"""The command line and the JSON record shared by every program in the benchmarks."""

import argparse
import json
import os
import platform
import resource
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.settings import SETTINGS, Setting


def parser(description: str) -> argparse.ArgumentParser:
    """The flags that every program takes."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--setting", choices=SETTINGS, required=True)
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--json", type=Path, help="also write the record to this file")
    result.add_argument("--steps", type=int, help="shorten the run, to check that it works")
    return result


def chosen(args: argparse.Namespace) -> Setting:
    """The setting named on the command line, shortened where --steps says so."""
    setting = SETTINGS[args.setting]
    return setting if args.steps is None else replace(setting, total_steps=args.steps)


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def machine(device: str) -> dict[str, Any]:
    """What ran it; load_1min far above 0 at the start means that others were computing too."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "load_1min": round(os.getloadavg()[0], 2),
    }


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of the named packages."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def emit(
    args: argparse.Namespace,
    *,
    program: str,
    env_steps: int,
    lower_s: float | None,
    compile_s: float | None,
    run_s: float,
    final_return: list[float] | None,
    peak_memory_mb: float,
    versions: dict[str, str],
    machine: dict[str, Any],
) -> None:
    """Print the record as one line and, where --json names a file, write it there.

    compile_s is everything before the first step (lower_s, the tracing and lowering, is a part
    of it) and no part of run_s; both are None where nothing is compiled. env_steps counts all
    seeds; final_return has one mean per seed, None where nothing was trained.
    """
    record = {
        "program": program,
        "setting": args.setting,
        "seed": args.seed,
        "env_steps": env_steps,
        "lower_s": lower_s,
        "compile_s": compile_s,
        "run_s": run_s,
        "steps_per_s": env_steps / run_s,
        "final_return": final_return,
        "peak_memory_mb": peak_memory_mb,
        "versions": versions,
        "machine": machine,
    }
    line = json.dumps(record)
    if args.json is not None:
        args.json.write_text(line + "\n")
    print(line, flush=True)

"""What a program needs in memory at the least, against what its devices have.

Estimates are lower bounds, made of shapes alone: what they refuse cannot run.
"""

import contextlib
import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jaxrl import resets, spaces
from jaxrl.env import Environment

GIB = 2**30
UNKNOWN = 2**62  # bytes


@dataclass(frozen=True)
class Part:
    """Arrays of one member whose size follows an option."""

    option: str  # `num_envs`
    value: int  # of the option
    size: int  # bytes on all devices together
    split: bool = True  # over devices; or whole on each that has the member
    in_turn: bool = False  # members take turns: the memory of one serves all
    example: str = ""  # a smaller value; by default one is found by proportion

    def on_device(self, num_members: int, num_devices: int) -> int:
        """Bytes on the device that has the least to hold, with members and rows well spread."""
        members = 1 if self.in_turn else num_members
        if self.split:
            return self.size * members // num_devices
        return self.size * -(-members // num_devices)


def check(
    parts: Iterable[Part], num_members: int, devices: Sequence[Any], option: str = "num_seeds"
) -> None:
    """ValueError, with a size that is small enough, for what the devices cannot hold.

    `option` is what there are many members by.
    """
    parts, limit = list(parts), of_device(devices[0])
    count = 1 if devices[0].platform == "cpu" else len(devices)  # CPU devices share a memory
    needed = {part: part.on_device(num_members, count) for part in parts}
    total = sum(needed.values())
    if total <= limit:
        return
    alone = sum(part.on_device(1, count) for part in parts)
    if num_members > 1 and alone <= limit:
        largest = Part(option, num_members, total)
        needed[largest] = total
    else:
        largest = max(parts, key=lambda part: needed[part])
    size = needed[largest]
    example = largest.example or smaller(largest.value, size, limit - (total - size))
    where = f"{len(devices)} {devices[0].platform} device(s)" if count > 1 else "this device"
    raise ValueError(
        f"{largest.option}={largest.value} needs at least {in_gib(size)} of the {in_gib(total)} "
        f"that this run takes, and {where} has {in_gib(limit)}{' each' if count > 1 else ''}; "
        f"try {largest.option}={example}."
    )


def check_host(option: str, value: int, size: int) -> None:
    """ValueError for arrays on the host that this machine cannot hold."""
    if size > of_machine():
        raise ValueError(
            f"{option}={value} needs {in_gib(size)}, and this machine has {in_gib(of_machine())}; "
            f"try {option}={smaller(value, size, of_machine())}."
        )


def check_file(what: str, size: int) -> None:
    """ValueError for a file that this machine cannot hold: it may be long and hold nothing."""
    if size > of_machine():
        raise ValueError(
            f"{what} takes {in_gib(size)}, and this machine has {in_gib(of_machine())}."
        )


def in_gib(size: int) -> str:
    """1,234.5 GiB."""
    return f"{size / GIB:,.3g} GiB" if size < 1000 * GIB else f"{size / GIB:,.0f} GiB"


def smaller(value: int, size: int, room: int) -> int:
    """A power of two, at least 1, with which `size` bytes become at most `room`."""
    fits = max(value * max(room, 0) // max(size, 1), 1)
    return 2 ** (int(fits).bit_length() - 1)


def of_device(device: Any) -> int:
    """Bytes that a device can hold: what the accelerator says, or this machine for a CPU."""
    if device.platform == "cpu":
        return of_machine()
    stats = device.memory_stats() if device.process_index == jax.process_index() else None
    return int((stats or {}).get("bytes_limit", UNKNOWN))


def of_machine() -> int:
    """Bytes that this process may have: of the machine, its cgroups and its own limits."""
    physical, swap = _physical()
    limits = [physical + swap, *(limit + swap for limit in _of_cgroups())]
    with contextlib.suppress(ImportError):  # no POSIX
        import resource

        kinds = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
        limits += [resource.getrlimit(kind)[0] for kind in kinds]
    return min((limit for limit in limits if limit > 0), default=UNKNOWN)


def _physical() -> tuple[int, int]:
    """(memory, swap); 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        return sizes["MemTotal"] * 1024, sizes.get("SwapTotal", 0) * 1024
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), 0
    return 0, 0


def _of_cgroups(root: Path = Path("/sys/fs/cgroup"), of: str = "/proc/self/cgroup") -> list[int]:
    """The limits of the control groups, of both versions, that this process is in."""
    groups = {"."}
    with contextlib.suppress(OSError, ValueError):
        groups |= {line.split(":", 2)[2].strip("/") for line in Path(of).read_text().splitlines()}
    files = set()
    for group in groups:
        for level in (Path(group), *Path(group).parents):
            files |= {
                root / level / "memory.max",
                root / "memory" / level / "memory.limit_in_bytes",
            }
    found = []
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # "max": none
            found.append(int(file.read_text()))
    return found


def size_of(tree: Any) -> int:
    """Bytes of the arrays of a tree, or of their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def of_rollouts(cfg: Any, env: Environment, init: Callable[[jax.Array], Any]) -> list[Part]:
    """Of an algorithm that plays B environments T steps and learns from the rows in epochs.

    `cfg` has `sgd.Sizes`, `env` is wrapped as the algorithm plays it, `init(key)` is its state.
    """
    one, obs = of_environment(env)
    sample = partial(spaces.sample, env.action_space)
    action = size_of(jax.eval_shape(sample, jax.random.key(0)))
    rows, envs = cfg.num_envs * cfg.num_steps, cfg.num_envs * one
    row = 2 * obs + action + 8  # obs, next_obs; the action, reward, log_prob or value
    longer = "num_steps" if cfg.num_steps > cfg.num_envs else "num_envs"
    pool = "reset_pool" if cfg.reset_pool else longer
    width, state = max(cfg.hidden, default=1), size_of(jax.eval_shape(init, jax.random.key(0)))
    return [
        Part("num_envs", cfg.num_envs, envs),
        Part(longer, getattr(cfg, longer), rows * row),
        Part(pool, getattr(cfg, pool), envs * resets.pool_size(cfg, env)),
        Part("num_epochs", cfg.num_epochs, cfg.num_epochs * rows * 4),
        Part("hidden", width, max(state - envs, 0), split=False),
    ]


def of_replay(cfg: Any, env: Environment, init: Callable[[jax.Array], Any]) -> list[Part]:
    """Of an algorithm that learns from a replay, its `state.buffer`; `cfg` is a `replay.Sizes`."""
    envs, state = cfg.num_envs * of_environment(env)[0], jax.eval_shape(init, jax.random.key(0))
    kept, width = size_of(state.buffer), max(cfg.hidden, default=1)
    pool = "reset_pool" if cfg.reset_pool else "num_steps"
    return [
        Part("buffer_size", cfg.buffer_size, kept),
        Part("num_envs", cfg.num_envs, envs),
        Part(pool, getattr(cfg, pool), envs * resets.pool_size(cfg, env)),
        Part("hidden", width, max(size_of(state) - kept - envs, 0), split=False),
    ]


def of_evaluation(env: Environment, episodes: int) -> list[Part]:
    """Of whole fresh episodes of an environment that sees arrays, side by side."""
    return [Part("eval_episodes", episodes, episodes * of_environment(env)[0], split=False)]


def of_environment(env: Environment) -> tuple[int, int]:
    """(bytes of a state with its observation, bytes of an observation)."""
    state, ts = jax.eval_shape(env.reset, jax.random.key(0))
    obs = size_of(ts.obs)
    return size_of(state) + obs, obs


def give_back() -> None:
    """Give memory that was freed back to the system.

    XLA's compiler leaves some with glibc, 0.7 GB after compiling an iteration of a model of 135 M
    parameters, which then counts as the process's for good.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another libc
            ctypes.CDLL("libc.so.6").malloc_trim(0)

"""Which devices a run uses: cores of a CPU, the accelerators of one host, or of many."""

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import jax
from jax.sharding import Mesh

from jaxrl.config import check_fields
from jaxrl.mesh import make_mesh


@dataclass(frozen=True)
class Distributed:
    """Several hosts in one run: on a TPU pod or under Slurm `--hosts.auto` finds the addresses."""

    auto: bool = False  # let JAX find the coordinator from the cluster's environment
    coordinator: str | None = None  # HOST:PORT of process 0, the same on every host
    num_processes: int | None = None  # hosts in all
    process_id: int | None = None  # this host, from 0

    def __post_init__(self):
        check_fields(self)
        given = [self.coordinator, self.num_processes, self.process_id]
        if any(x is not None for x in given) and None in given:
            raise ValueError(
                f"hosts.coordinator={self.coordinator}, num_processes={self.num_processes} and "
                f"process_id={self.process_id} go together; try --hosts.coordinator 10.0.0.1:1234 "
                "--hosts.num-processes 2 --hosts.process-id 0."
            )
        if self.auto and self.coordinator is not None:
            raise ValueError(
                f"hosts.coordinator={self.coordinator} is found by hosts.auto; leave one out."
            )
        address = "localhost:1" if self.coordinator is None else self.coordinator
        host, _, port = address.rpartition(":")
        if not host.strip() or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
            raise ValueError(
                f"hosts.coordinator={self.coordinator} must be HOST:PORT with a port from 1 to "
                "65535; try 10.0.0.1:1234."
            )
        if self.num_processes is not None and self.num_processes < 1:
            raise ValueError(f"hosts.num_processes={self.num_processes} must be at least 1; try 2.")
        if self.num_processes is not None and not 0 <= (self.process_id or 0) < self.num_processes:
            raise ValueError(
                f"hosts.process_id={self.process_id} must lie in [0, {self.num_processes - 1}]; "
                "try 0."
            )


def join(hosts: Distributed) -> None:
    """Join the other hosts of the run, if there are any, and make every core of a CPU a device.

    To be called before anything touches a device. Raises ValueError where no host answers.
    """
    try:
        if hosts.auto:
            jax.distributed.initialize()
        elif hosts.coordinator is not None:
            jax.distributed.initialize(hosts.coordinator, hosts.num_processes, hosts.process_id)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"hosts could not be joined ({reason}); try --hosts.coordinator HOST:PORT "
            "--hosts.num-processes N --hosts.process-id I, started on every host."
        ) from None
    offer_cores()


def check_platforms() -> None:
    """ValueError where no platform that JAX_PLATFORMS names can be used here."""
    logger = logging.getLogger("jax._src.xla_bridge")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # or a plugin tells the same in fifty lines
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0].split(" (set JAX_PLATFORMS")[0] or "no such device"
        raise ValueError(
            f"JAX_PLATFORMS={jax.config.values['jax_platforms']} cannot be used here ({reason}); "
            "there is cpu: try JAX_PLATFORMS=cpu, or leave it out."
        ) from None
    finally:
        logger.setLevel(level)


def choose(num_devices: int, num_seeds: int, num_blocks: int, rows: int, weights: int = 0) -> Mesh:
    """The mesh of a run: `num_devices`, or (0) as many as serve it.

    `num_blocks` blocks of a seed's environments may be split over devices, `rows` rows are in one
    of its minibatches. On a CPU each core can be a device of its own; smaller pieces than
    MIN_ROWS cost more in waiting than the second core wins, and of more than MOST_IN_CACHE bytes of
    weights one copy is read by all cores, as one device.
    Raises ValueError for more devices than there are, or a number that does not divide.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise ValueError(
            f"devices={num_devices} is more than the {len(devices)} there are"
            f" ({devices[0].platform}); try --devices {len(devices)}, or on a CPU set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={num_devices}."
        )
    many_hosts = jax.process_count() > 1
    if many_hosts and num_devices not in (0, len(devices)):
        raise ValueError(
            f"devices={num_devices} leaves some of the hosts' {len(devices)} devices without work; "
            "try --devices 0."
        )
    if num_devices or many_hosts:
        return mesh_of_all(devices[: num_devices or len(devices)], num_seeds, num_blocks)
    on_cpu = devices[0].platform == "cpu"
    small = rows // len(devices) < MIN_ROWS if on_cpu else False
    most = 1 if on_cpu and weights > MOST_IN_CACHE else len(devices)
    for count in range(most, 0, -1):
        mesh = make_mesh(num_seeds, devices[:count])
        across = mesh.shape["data"]
        if num_blocks % across == 0 and not (small and across > 1):
            return mesh
    raise AssertionError("one device always serves")


MIN_ROWS = 256  # rows of a minibatch on each CPU device
MOST_IN_CACHE = 2**26  # bytes of weights that a CPU's last cache may hold


def one_core_each(mesh: Mesh, weights: int) -> bool:
    """Whether a device of a CPU is one core, and not all of them (docs/decisions/009)."""
    return mesh.devices.size > 1 or weights <= MOST_IN_CACHE


def described(mesh: Mesh, weights: int) -> str:
    """The devices of a run in words, as `2 cpu`."""
    words = f"{mesh.devices.size} {mesh.devices.flat[0].platform}"
    if mesh.devices.flat[0].platform != "cpu" or one_core_each(mesh, weights):
        return words
    return f"{words} of all cores, for {weights / 2**20:.0f} MiB of weights"


def mesh_of_all(devices: Sequence[Any], num_seeds: int, num_blocks: int) -> Mesh:
    """The mesh of exactly these devices; ValueError where a seed's environments do not split."""
    mesh = make_mesh(num_seeds, devices)
    across = mesh.shape["data"]
    if num_blocks % across:
        raise ValueError(
            f"devices={len(devices)} leaves {across} devices to a seed, which do not divide its "
            f"{num_blocks} blocks of environments or episodes; try {across} times as many (of "
            "PPO --num-envs, or a smaller accumulate; of language agents --algo.num-prompts, "
            "num-lanes and sft-episodes, or a smaller micro-batch), or --devices "
            f"{mesh.shape['seed'] * gcd(num_blocks, across)}."
        )
    return mesh


def num_cores() -> int:
    """That this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


def offer_cores() -> None:
    """Make every core a CPU device, unless the user or an earlier use of jax has decided."""
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if forced or jax.config.values["jax_num_cpu_devices"] >= 0:
        return
    with contextlib.suppress(RuntimeError):  # the devices are in use already
        jax.config.update("jax_num_cpu_devices", num_cores())

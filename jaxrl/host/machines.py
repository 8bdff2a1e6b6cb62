"""Worker processes on many machines: Ray actors, spread over the nodes of a cluster."""

import importlib
import os
import socket
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl.host.lanes import Answer
from jaxrl.host.processes import bunch_of


def join(address: str) -> None:
    """Connect to a Ray cluster: `auto`, HOST:PORT, or `local` for one on this machine alone.

    ValueError where no cluster answers.
    """
    ray: Any = importlib.import_module("ray")
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # it leaves ours alone
    how: Any = {} if address == "local" else {"address": address}
    try:
        if ":" in address:  # Ray itself tries for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=False, **how)
    except Exception as error:
        words = " ".join(str(error).split())
        raise ValueError(
            f"actors.ray={address} could not be joined ({words}); start a node with ray start "
            "--head, and try auto or HOST:6379."
        ) from error


class RayActor:
    """A `Lane`: `num` environments that `make()` gives, in a Ray actor wherever there is room."""

    def __init__(self, make: Callable[[], Any], gym: tuple[Any, Any], records: bool, num: int):
        self.ray: Any = importlib.import_module("ray")
        bunch = bunch_of(make, gym, records, num)
        path = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]

        class Host:
            """Holds a bunch; nothing of this package is imported there."""

            def __init__(self) -> None:
                import sys

                sys.path[:0] = [folder for folder in path if folder not in sys.path]
                self.bunch = bunch()

            def reset(self, seeds: list[int]) -> Any:
                return self.bunch.reset(options={"seeds": seeds})[0]

            def step(self, action: Any) -> tuple:
                obs, reward, terminated, truncated, info = self.bunch.step(action)
                return obs, reward, terminated, truncated, info["ended"]

            def close(self) -> None:
                self.bunch.close()

        how: Any = {"num_cpus": 1, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        self.actor: Any = self.ray.remote(Host).options(**how).remote()
        self.pending: Any = None  # what it was asked last

    def begin(self, seeds: list[int]) -> None:
        self.pending = self.actor.reset.remote(seeds)

    def first(self, seconds: float) -> Any:
        return self.ray.get(self.pending, timeout=seconds)

    def send(self, action: np.ndarray) -> None:
        self.pending = self.actor.step.remote(action)

    def receive(self, seconds: float) -> Answer:
        return Answer(*self.ray.get(self.pending, timeout=seconds))

    def end(self) -> None:
        self.ray.get(self.actor.close.remote(), timeout=5.0)
        self.kill()

    def kill(self) -> None:
        self.ray.kill(self.actor)

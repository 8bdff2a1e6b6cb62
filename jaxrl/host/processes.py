"""Worker processes on this machine: Gymnasium's AsyncVectorEnv, over shared memory.

Each has one AsyncVectorEnv, with a bunch of environments in it: so a dead one can be replaced by
itself. Processes are spawned, never forked, and do not import jax.
"""

import contextlib
import os
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl.host.lanes import Answer


class Process:
    """A `Lane`: `num` environments that `make()` gives, in a process of this machine."""

    def __init__(self, make: Callable[[], Any], gym: tuple[Any, Any], records: bool, num: int):
        from gymnasium.vector import AsyncVectorEnv, AutoresetMode

        bunch = bunch_of(make, gym, records, num)
        how: Any = {"context": "spawn", "copy": False, "autoreset_mode": AutoresetMode.DISABLED}
        with nobody_in_main(), only_cpu():
            self.envs = AsyncVectorEnv([bunch], **how)

    def begin(self, seeds: list[int]) -> None:
        self.envs.reset_async(options={"seeds": seeds})

    def first(self, seconds: float) -> Any:
        with quiet():
            obs, _ = self.envs.reset_wait(timeout=seconds)
        return jax.tree.map(_inner, obs)

    def send(self, action: np.ndarray) -> None:
        self.envs.step_async(action[None])

    def receive(self, seconds: float) -> Answer:
        with quiet():
            obs, *arrays, info = self.envs.step_wait(seconds)
        return Answer(jax.tree.map(_inner, obs), *map(_inner, arrays), info["ended"][0])  # pyright: ignore

    def end(self) -> None:
        for pipe in self.envs.parent_pipes:
            if pipe is not None:
                pipe.send(("close", None))
                pipe.poll(5.0)  # an environment that hangs does not answer
        self.kill()

    def kill(self) -> None:
        for process in self.envs.processes:
            process.kill()
            process.join()
        for pipe in self.envs.parent_pipes:
            if pipe is not None:
                pipe.close()
        self.envs.closed = True  # or it would ask the dead to close


def bunch_of(make: Callable[[], Any], gym: tuple[Any, Any], records: bool, num: int) -> Any:
    """A function that makes a bunch elsewhere; it travels by value, without this package."""
    import cloudpickle
    from gymnasium.vector.utils import batch_space

    from jaxrl.host import bunch

    cloudpickle.register_pickle_by_value(bunch)
    batched = tuple(batch_space(space, num) for space in gym)
    return partial(bunch.Bunch, make, num, batched, records)


def _inner(x: Any) -> Any:
    return x[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Gymnasium says nothing about errors of workers: we do."""
    from gymnasium import logger

    before = logger.min_level
    logger.min_level = 50
    try:
        yield
    finally:
        logger.min_level = before


@contextlib.contextmanager
def nobody_in_main() -> Iterator[None]:
    """A spawned process imports the main module, and with it jax or a whole script: hide it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def only_cpu() -> Iterator[None]:
    """Should an environment use jax, it leaves the learner's accelerator alone."""
    before = os.environ.get("JAX_PLATFORMS")
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAX_PLATFORMS"]
        else:
            os.environ["JAX_PLATFORMS"] = before

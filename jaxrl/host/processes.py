"""Gymnasium environments in worker processes over shared memory, restarted where one dies.

Each process is an AsyncVectorEnv of Gymnasium's, with a bunch of environments in it: so a dead one
can be replaced by itself. Processes are spawned, never forked, and do not import jax.
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

from jaxrl.host import spaces
from jaxrl.host.worlds import Episode, Outcome
from jaxrl.spaces import Space

PATIENCE = (
    3  # losses of a process in a row, without an episode that ended, after which it is given up
)


class Processes:
    """`num_envs` environments in `num_processes` processes; a `Worlds`.

    `make()` gives one Gymnasium environment with the spaces `gym`, which are `observation_space`
    here. ValueError, in one line, where it cannot be made or reset, where an observation does not
    lie in its space, and where a process dies again and again. A process that takes longer than
    `deadline` seconds for a step counts as dead.
    """

    def __init__(
        self,
        id: str,
        make: Callable[[], Any],
        gym: tuple[Any, Any],
        observation_space: Space,
        num_envs: int,
        num_processes: int,
        deadline: float,
        records: bool = False,
    ):
        self.id, self.make, self.gym, self.deadline = id, make, gym, deadline
        self.observation_space, self.num_envs, self.records = observation_space, num_envs, records
        shares = np.array_split(np.arange(num_envs), min(num_processes, num_envs))
        self.rows = [slice(int(share[0]), int(share[-1]) + 1) for share in shares]
        self.lanes: list[Any] = []
        self.restarts = 0
        self.losses = [0] * len(shares)
        self.seeds: list[int] = []

    def reset(self, seeds: list[int]) -> Any:
        self.close()
        self.seeds = list(seeds)
        self.lanes = [self._start(rows) for rows in self.rows]
        for lane, rows in zip(self.lanes, self.rows, strict=True):
            lane.reset_async(options={"seeds": self.seeds[rows]})
        return self._joined([self._first(lane) for lane in self.lanes])

    def _start(self, rows: slice) -> Any:
        """A process for these environments, which makes them at its first reset."""
        import cloudpickle
        from gymnasium.vector import AsyncVectorEnv, AutoresetMode
        from gymnasium.vector.utils import batch_space

        from jaxrl.host import bunch

        cloudpickle.register_pickle_by_value(bunch)
        num = rows.stop - rows.start
        batched = tuple(batch_space(space, num) for space in self.gym)
        make = partial(bunch.Bunch, self.make, num, batched, self.records)
        how: Any = {"context": "spawn", "copy": False, "autoreset_mode": AutoresetMode.DISABLED}
        with nobody_in_main(), telling(self.id), only_cpu():
            return AsyncVectorEnv([make], **how)

    def _first(self, lane: Any) -> Any:
        with quiet(), telling(self.id):
            obs, _ = lane.reset_wait(timeout=max(self.deadline, 60.0))
        return self._seen(obs)

    def _seen(self, obs: Any) -> Any:
        """The observations of one process in our types; ValueError where they leave the space."""
        obs = spaces.observed(self.gym[0], self.observation_space, jax.tree.map(_inner, obs))
        if problem := spaces.outside(self.observation_space, obs):
            raise ValueError(
                f"{self.id}: {problem}; declare a space that holds what the environment shows, "
                "infinite bounds for example."
            )
        return obs

    def step(self, action: np.ndarray, only: np.ndarray | None = None) -> Outcome:
        action = spaces.acted(self.gym[1], action)
        asked = [only is None or bool(only[rows.start]) for rows in self.rows]
        sent = [self._send(i, action) if asked[i] else None for i in range(len(self.rows))]
        found = [self._receive(i, sent[i]) if asked[i] else None for i in range(len(self.rows))]
        like = next(part for part in found if part is not None)
        parts = [
            part or self._void(rows, like) for part, rows in zip(found, self.rows, strict=True)
        ]
        *arrays, ended = zip(*parts, strict=True)
        joined = [self._joined(x) for x in arrays]
        return Outcome._make([*joined, [episode for part in ended for episode in part]])

    def _send(self, i: int, action: np.ndarray) -> Exception | None:
        try:
            self.lanes[i].step_async(action[None, self.rows[i]])
        except (OSError, ValueError, AttributeError) as error:  # it is dead
            return error
        return None

    def _receive(self, i: int, error: Exception | None) -> tuple:
        """What process i answers, or the first of new episodes where it does not."""
        rows = self.rows[i]
        try:
            if error is not None:
                raise error
            with quiet():
                obs, reward, terminated, truncated, info = self.lanes[i].step_wait(self.deadline)
        except Exception as error:  # whatever the environment raises
            return self._again(i, error)
        obs = self._seen(obs)
        final_obs, ended = jax.tree.map(np.copy, obs), list[Episode]()
        for index, final, metrics in info["ended"][0]:
            final = spaces.observed(
                self.gym[0], self.observation_space, jax.tree.map(_batch, final)
            )
            jax.tree.map(lambda x, new, at=index: x.__setitem__(at, new[0]), final_obs, final)
            self.losses[i] = 0
            if metrics is not None:
                ended.append((rows.start + index, metrics))
        lost = np.zeros(rows.stop - rows.start, np.bool_)
        flags = terminated[0], truncated[0] & ~terminated[0]
        return obs, final_obs, reward[0].astype(np.float32), *flags, lost, ended

    def _again(self, i: int, error: Exception) -> tuple:
        """Process i started again; ValueError where that does not help."""
        self.restarts += 1
        self.losses[i] += 1
        if self.losses[i] > PATIENCE:
            raise ValueError(
                f"{self.id}: a process of environments died {self.losses[i]} times in a row before "
                f"an episode ended ({_words(error, self.deadline)})."
            ) from error
        rows = self.rows[i]
        _kill(self.lanes[i])
        lane = self.lanes[i] = self._start(rows)
        seeds = [(seed + self.restarts * 7919) % 2**31 for seed in self.seeds[rows]]
        lane.reset_async(options={"seeds": seeds})
        obs = self._first(lane)
        return self._nothing(obs, np.ones(rows.stop - rows.start, np.bool_))

    @staticmethod
    def _nothing(obs: Any, lost: np.ndarray) -> tuple:
        no = np.zeros(lost.shape, np.bool_)
        return obs, obs, np.zeros(lost.shape, np.float32), no, no, lost, list[Episode]()

    def _void(self, rows: slice, like: tuple) -> tuple:
        """In place of an outcome that was not asked for."""
        num = rows.stop - rows.start
        obs = jax.tree.map(lambda x: np.zeros((num, *x.shape[1:]), x.dtype), like[0])
        return self._nothing(obs, np.zeros(num, np.bool_))

    @staticmethod
    def _joined(parts: Any) -> Any:
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)

    def close(self) -> None:
        for lane in self.lanes:
            _end(lane)
        self.lanes = []


def _inner(x: np.ndarray) -> np.ndarray:
    return x[0]


def _batch(x: Any) -> np.ndarray:
    return np.asarray(x)[None]


def _words(error: Exception, deadline: float) -> str:
    if isinstance(error, EOFError | OSError) and not str(error):
        return "it ended without a word"
    if "timed out" in str(error):
        return f"a step took longer than {deadline:g} s; try --actors.deadline {10 * deadline:g}"
    return f"{type(error).__name__}: {error}"


def _end(lane: Any) -> None:
    """Let a process close its environments, or end it where it does not."""
    try:
        with quiet():
            lane.close(timeout=5.0)
    except Exception:
        _kill(lane)


def _kill(lane: Any) -> None:
    for process in lane.processes:
        process.kill()
        process.join()
    for pipe in lane.parent_pipes:
        if pipe is not None:
            pipe.close()
    lane.closed = True  # or it would ask the dead to close


@contextlib.contextmanager
def telling(id: str) -> Iterator[None]:
    """What goes wrong in a worker's first moments, as a ValueError of one line."""
    try:
        yield
    except Exception as error:
        words = _words(error, 0)
        raise ValueError(f"{id}: its first episode could not begin ({words}).") from error


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

"""Environments in bunches, each in a process of its own, and what becomes of one that dies."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxrl.host import spaces
from jaxrl.host.worlds import Episode, Outcome
from jaxrl.spaces import Space

PATIENCE = 3  # deaths in a row, without an episode that ended, after which a process is given up
FIRST = 60.0  # s that the first episode may take at least: modules are imported


class Answer(NamedTuple):
    """What a `bunch.Bunch` says of a step, leaves [n, ...], as Gymnasium has it."""

    obs: Any
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    ended: list[tuple[int, Any, dict[str, float] | None]]  # (index, final observation, metrics)


class Lane(Protocol):
    """One process; whatever it raises means that it is dead."""

    def begin(self, seeds: list[int]) -> None: ...
    def first(self, seconds: float) -> Any: ...
    def send(self, action: Any) -> None: ...
    def receive(self, seconds: float) -> Answer: ...
    def end(self) -> None: ...
    def kill(self) -> None: ...


class Lanes:
    """`num_envs` environments in `num_lanes` processes; a `Worlds`.

    `start(n)` begins a process of n environments whose spaces are `gym`, observations seen as
    `observation_space`. ValueError, in one line, where one cannot be made or reset, where an
    observation does not lie in its space, and where a process dies again and again. A process that
    takes longer than `deadline` seconds for a step counts as dead.
    """

    def __init__(
        self,
        id: str,
        start: Callable[[int], Lane],
        gym: tuple[Any, Any],
        observation_space: Space,
        num_envs: int,
        num_lanes: int,
        deadline: float,
    ):
        self.id, self.start, self.gym, self.deadline = id, start, gym, deadline
        self.observation_space, self.num_envs = observation_space, num_envs
        shares = np.array_split(np.arange(num_envs), min(num_lanes, num_envs))
        self.rows = [slice(int(share[0]), int(share[-1]) + 1) for share in shares]
        self.lanes: list[Lane] = []
        self.restarts = 0
        self.losses = [0] * len(shares)
        self.seeds: list[int] = []

    def reset(self, seeds: list[int]) -> Any:
        self.close()
        self.seeds = list(seeds)
        self.lanes = [self._started(rows) for rows in self.rows]
        for lane, rows in zip(self.lanes, self.rows, strict=True):
            lane.begin(self.seeds[rows])
        return _joined([self._first(lane) for lane in self.lanes])

    def _started(self, rows: slice) -> Lane:
        return self._telling(lambda: self.start(rows.stop - rows.start))

    def _first(self, lane: Lane) -> Any:
        return self._seen(self._telling(lambda: lane.first(max(self.deadline, FIRST))))

    def _telling(self, work: Callable[[], Any]) -> Any:
        """What goes wrong in a process's first moments is a ValueError of one line."""
        try:
            return work()
        except Exception as error:
            words = _words(error, FIRST)
            raise ValueError(f"{self.id}: its first episode could not begin ({words}).") from error

    def _seen(self, obs: Any) -> Any:
        """The observations of one process in our types; ValueError where they leave the space."""
        obs = spaces.observed(self.gym[0], self.observation_space, obs)
        if problem := spaces.outside(self.observation_space, obs):
            raise ValueError(f"{self.id}: {problem}")
        return obs

    def step(self, action: np.ndarray, only: np.ndarray | None = None) -> Outcome:
        action = spaces.acted(self.gym[1], action)
        asked = [only is None or bool(only[rows.start]) for rows in self.rows]
        sent = [self._send(i, action) if asked[i] else None for i in range(len(self.rows))]
        found = [self._receive(i, sent[i]) if asked[i] else None for i in range(len(self.rows))]
        like = next(part for part in found if part is not None)
        both = zip(found, self.rows, strict=True)
        *arrays, ended = zip(*(part or _void(rows, like) for part, rows in both), strict=True)
        joined = [_joined(x) for x in arrays]
        return Outcome._make([*joined, [episode for part in ended for episode in part]])

    def _send(self, i: int, action: np.ndarray) -> Exception | None:
        try:
            self.lanes[i].send(action[self.rows[i]])
        except Exception as error:  # it is dead
            return error
        return None

    def _receive(self, i: int, error: Exception | None) -> tuple:
        """What process i answers, or the first of new episodes where it does not."""
        rows = self.rows[i]
        try:
            if error is not None:
                raise error
            said = self.lanes[i].receive(self.deadline)
        except Exception as error:  # whatever the environment raises
            return self._again(i, error)
        obs = self._seen(said.obs)
        final_obs, ended = jax.tree.map(np.copy, obs), list[Episode]()
        for index, final, metrics in said.ended:
            one = spaces.single(self.gym[0], self.observation_space, final)
            jax.tree.map(lambda x, new, at=index: x.__setitem__(at, new[0]), final_obs, one)
            self.losses[i] = 0
            if metrics is not None:
                ended.append((rows.start + index, metrics))
        if not np.isfinite(said.reward).all():
            raise ValueError(
                f"{self.id}: a reward is {said.reward[~np.isfinite(said.reward)][0]}; an "
                "environment's rewards must be finite."
            )
        lost = np.zeros(rows.stop - rows.start, np.bool_)
        flags = said.terminated, said.truncated & ~said.terminated
        return obs, final_obs, said.reward.astype(np.float32), *flags, lost, ended

    def _again(self, i: int, error: Exception) -> tuple:
        """Process i started again; ValueError where that does not help."""
        self.restarts += 1
        self.losses[i] += 1
        self.lanes[i].kill()
        if self.losses[i] > PATIENCE:
            raise ValueError(
                f"{self.id}: a process of environments died {self.losses[i]} times in a row before "
                f"an episode ended ({_words(error, self.deadline)})."
            ) from error
        rows = self.rows[i]
        lane = self.lanes[i] = self._started(rows)
        lane.begin([(seed + self.restarts * 7919) % 2**31 for seed in self.seeds[rows]])
        return _nothing(self._first(lane), np.ones(rows.stop - rows.start, np.bool_))

    def close(self) -> None:
        for lane in self.lanes:
            try:
                lane.end()
            except Exception:  # it hangs, or is dead
                lane.kill()
        self.lanes = []


def _nothing(obs: Any, lost: np.ndarray) -> tuple:
    no = np.zeros(lost.shape, np.bool_)
    return obs, obs, np.zeros(lost.shape, np.float32), no, no, lost, list[Episode]()


def _void(rows: slice, like: tuple) -> tuple:
    """In place of an outcome that was not asked for."""
    num = rows.stop - rows.start
    obs = jax.tree.map(lambda x: np.zeros((num, *x.shape[1:]), x.dtype), like[0])
    return _nothing(obs, np.zeros(num, np.bool_))


def _joined(parts: Any) -> Any:
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _words(error: Exception, seconds: float) -> str:
    """Why a process is dead."""
    if isinstance(error, EOFError | OSError) and not str(error):
        return "it ended without a word"
    if "timed out" in str(error):
        more = f"try --actors.deadline {10 * seconds:g}"
        return f"a step took longer than {seconds:g} s; {more}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

"""Atari games in the threads of envpool (arXiv:2206.10558), as `Worlds`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl.host.worlds import Outcome


class Pool:
    """`num_envs` games; `make(num_envs, seeds)` gives envpool's object with Gymnasium's API.

    An episode of the learner may end with a life; the metrics are those of a whole game, its score
    before any clipping. Threads belong to this process: what kills one ends the run, and there is
    nothing to restart.
    """

    restarts = 0

    def __init__(self, make: Callable[[int, list[int]], Any], num_envs: int):
        self.make, self.num_envs = make, num_envs
        self.pool: Any = None

    def reset(self, seeds: list[int]) -> np.ndarray:
        self.close()
        self.pool = self.make(self.num_envs, [int(seed) for seed in seeds])
        self.score, self.length = np.zeros((2, self.num_envs))
        return _images(self.pool.reset()[0])

    def step(self, action: np.ndarray, only: np.ndarray | None = None) -> Outcome:
        assert only is None, "no episode is ever lost here"
        obs, reward, terminated, truncated, info = self.pool.step(action.astype(np.int32))
        self.score += info["reward"]
        self.length += 1
        over = np.flatnonzero((info["terminated"] == 1) | truncated).tolist()
        ended = [(i, self._of_game(i)) for i in over]
        self.score[over] = self.length[over] = 0
        obs = final_obs = _images(obs)
        again = np.flatnonzero(terminated | truncated).astype(np.int32)
        if len(again):  # the step after an end ignores its action and shows what comes next
            first = self.pool.step(np.zeros_like(again), again)[0]
            obs = final_obs.copy()
            obs[again] = _images(first)
        flags = terminated, truncated & ~terminated
        lost = np.zeros(self.num_envs, np.bool_)
        return Outcome(obs, final_obs, reward.astype(np.float32), *flags, lost, ended)

    def _of_game(self, i: int) -> dict[str, float]:
        return {"episode_return": self.score[i], "episode_length": self.length[i]}

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
        self.pool = None


def _images(frames: np.ndarray) -> np.ndarray:
    """Frames [N, 4, H, W] as images [N, H, W, 4]."""
    return np.ascontiguousarray(np.moveaxis(frames, 1, -1))

"""Several Gymnasium environments in one worker process, as one environment of arrays [n, ...].

Worker processes get this module by value (see `processes`), so they import neither jax nor jaxrl.
"""

import multiprocessing
import signal
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics

SUCCESS = ("is_success", "success")  # what environments call it in their info


class Bunch(gymnasium.Env):
    """`num` environments whose episodes follow each other; made at the first reset.

    `step` gives rewards and flags as arrays [n], observations of which those of an episode that
    ended are the next one's first, and under `ended` what became of these episodes: (index, final
    observation, metrics). Where `records`, the environment says by itself what an episode was:
    Gymnasium's `episode` in the info at its end; without it a step that ends is a lost life.
    """

    metadata: dict[str, Any] = {}  # noqa: RUF012 (Gymnasium's name)

    def __init__(
        self,
        make: Callable[[], gymnasium.Env],
        num: int,
        spaces: tuple[gymnasium.Space, ...],
        records: bool,
    ):
        self.make, self.num, self.records = make, num, records
        self.observation_space, self.action_space = spaces
        self.envs: SyncVectorEnv | None = None

    def _one(self) -> gymnasium.Env:
        env = self.make()
        return env if self.records else RecordEpisodeStatistics(env)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        del seed
        if self.envs is None:
            if multiprocessing.parent_process() is not None:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the learner's, which closes this one
            mode = AutoresetMode.SAME_STEP
            self.envs = SyncVectorEnv([self._one] * self.num, copy=False, autoreset_mode=mode)
        obs, _ = self.envs.reset(seed=(options or {}).get("seeds"))
        return obs, {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert self.envs is not None
        obs, reward, terminated, truncated, info = self.envs.step(action)
        ended = [
            (i, info["final_obs"][i], self._of_episode(info["final_info"], i))
            for i in np.flatnonzero(terminated | truncated).tolist()
        ]
        return obs, reward, terminated, truncated, {"ended": ended}

    @staticmethod
    def _of_episode(info: dict[str, Any], i: int) -> dict[str, float] | None:
        if not info.get("_episode", np.zeros(i + 1, bool))[i]:
            return None
        found = info["episode"]
        metrics = {"episode_return": float(found["r"][i]), "episode_length": float(found["l"][i])}
        for name in SUCCESS:
            if info.get(f"_{name}", np.zeros(i + 1, bool))[i]:
                metrics["success"] = float(info[name][i])
        return metrics

    def close(self) -> None:
        if self.envs is not None:
            self.envs.close()

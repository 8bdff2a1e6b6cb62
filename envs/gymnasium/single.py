"""One environment as a `gymnasium.Env`."""

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.error import ResetNeeded

from jaxrl.env import Environment
from jaxrl.envs.gymnasium import episodes
from jaxrl.envs.gymnasium.spaces import from_numpy, to_gymnasium, to_numpy

SEEDS = 2**32  # a larger seed counts modulo this, as jax has it


class SingleEnv(gymnasium.Env):
    """`env` stepped by compiled programs; its state stays on the device.

    `reset(seed=s)` begins episode 0 of s, and `reset()` the next one of the same seed. The reset
    and the steps of an episode draw from fold_in(fold_in(key(s), episode), t), t = 0, 1, ...
    """

    def __init__(self, env: Environment):
        self.jax_env = env
        self.metadata = {"render_modes": []}
        self.observation_space = to_gymnasium(env.observation_space)
        self.action_space = to_gymnasium(env.action_space)
        self._spaces = env.observation_space, env.action_space  # which are computed when asked for
        self._programs, self._numbers = episodes.programs_of(env)
        self._play: list[jax.Array] | None = None
        self._episode = -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        del options
        super().reset(seed=seed)
        self._episode = 0 if seed is not None else self._episode + 1
        number = np.uint32(self.np_random_seed % SEEDS), np.int32(self._episode)
        self._play, obs = self._programs.begin(self._numbers, *number)
        return to_numpy(self._spaces[0], obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._play is None:
            raise ResetNeeded("There is no episode yet; call reset(seed=0) before step.")
        action = from_numpy(self._spaces[1], action)
        self._play, obs, report = self._programs.advance(self._numbers, self._play, action)
        reward, terminated, truncated, *metrics = np.asarray(report).tolist()
        info = dict(zip(self._programs.metrics, metrics, strict=True))
        return to_numpy(self._spaces[0], obs), reward, bool(terminated), bool(truncated), info

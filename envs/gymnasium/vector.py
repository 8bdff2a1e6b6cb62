"""Many copies of one environment as a `gymnasium.vector.VectorEnv`."""

from typing import Any

import jax
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from jaxrl.config import check_size
from jaxrl.env import Environment
from jaxrl.envs.gymnasium import episodes
from jaxrl.envs.gymnasium.single import SEEDS
from jaxrl.envs.gymnasium.spaces import apart, from_numpy, to_gymnasium, to_numpy

SAME_STEP = AutoresetMode.SAME_STEP


def autoreset(mode: AutoresetMode | str) -> AutoresetMode:
    """By Gymnasium's member or its value."""
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(repr(mode.value) for mode in AutoresetMode)
        raise ValueError(
            f"autoreset_mode={mode!r} must be one of {known}; try 'SameStep'."
        ) from None


class BatchedEnv(VectorEnv):
    """`num_envs` copies stepped by one program; their states stay on the device.

    Environment i plays what a `SingleEnv` with the seed `seed + i` plays, in every autoreset mode.
    """

    def __init__(
        self, env: Environment, num_envs: int, autoreset_mode: AutoresetMode | str = SAME_STEP
    ):
        check_size("num_envs", num_envs, 8)
        self.autoreset_mode = autoreset(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.num_envs = num_envs
        self.jax_env = env
        self.single_observation_space = to_gymnasium(env.observation_space)
        self.single_action_space = to_gymnasium(env.action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._spaces = env.observation_space, env.action_space
        self._programs, self._numbers = episodes.programs_of(env)
        self._play: list[jax.Array] | None = None
        self._obs: Any = None  # shown last, on the device
        self._over = np.zeros(num_envs, bool)  # ended and not begun anew

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """New episodes everywhere, or with `options={"reset_mask": bool [num_envs]}` there."""
        super().reset(seed=seed)
        first = (self.np_random_seed or 0) % SEEDS
        seeds = (first + np.arange(self.num_envs)).astype(np.uint32)
        over = np.ones(self.num_envs, bool)
        if options and "reset_mask" in options:
            over = self._mask(options["reset_mask"])
        if self._play is None or (seed is not None and over.all()):
            self._play, self._obs = self._programs.begin_all(self._numbers, seeds)
        else:
            self._play, self._obs = self._programs.restart_all(
                self._numbers, self._play, self._obs, over, seeds, seed is not None
            )
        self._over = self._over & ~over
        return to_numpy(self._spaces[0], self._obs), {}

    def _mask(self, mask: Any) -> np.ndarray:
        if self._play is None:
            raise ResetNeeded("There are no episodes yet; call reset(seed=0) without reset_mask.")
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            shown = f"{mask.dtype.name} {list(mask.shape)}"
            raise ValueError(
                f"reset_mask is {shown} and must be bool [{self.num_envs}] with one True at least."
            )
        return mask

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        disabled, same_step = (
            self.autoreset_mode is mode for mode in (AutoresetMode.DISABLED, SAME_STEP)
        )
        waiting = self._over
        if self._play is None or (disabled and waiting.any()):
            which = np.flatnonzero(waiting)[:8].tolist() or "all"
            raise ResetNeeded(f"Environments {which} have no episode; call reset before step.")
        actions = from_numpy(self._spaces[1], actions, (self.num_envs,))
        self._play, self._obs, led, report = self._programs.advance_all(
            self._numbers, self._play, actions, waiting, same_step
        )
        report = np.where(waiting, 0, report)  # a copy; a reset tells nothing
        terminated, truncated = report[1:3].astype(bool)
        done = terminated | truncated
        if same_step:
            infos = self._infos(report, ~done)
            if done.any():
                infos |= self._final(led, report, done)
        else:
            infos = self._infos(report, ~waiting)
            self._over = done
        obs = to_numpy(self._spaces[0], self._obs)
        return obs, report[0].astype(np.float64), terminated, truncated, infos

    def _infos(self, report: np.ndarray, told: np.ndarray) -> dict[str, Any]:
        """The metrics of the environments that tell them, each beside its mask."""
        if not told.any():
            return {}
        values = np.where(told, report[3:], 0).astype(np.float64)
        infos = dict(zip(self._programs.metrics, values, strict=True))
        return infos | {f"_{name}": told.copy() for name in self._programs.metrics}

    def _final(self, led: Any, report: np.ndarray, done: np.ndarray) -> dict[str, Any]:
        """Where the ended episodes led and what their last steps told, as SyncVectorEnv has it."""
        led = jax.tree.map(lambda x: np.asarray(x)[done], led)
        found = np.full(self.num_envs, None, object)
        rows = apart(self._spaces[0], to_numpy(self._spaces[0], led))
        for i, row in zip(np.flatnonzero(done), rows, strict=True):
            found[i] = row
        final = {"final_obs": found, "final_info": self._infos(report, done)}
        return final | {f"_{name}": done.copy() for name in final}

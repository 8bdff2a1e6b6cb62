"""What a learner needs of environments that are stepped outside of its program."""

from typing import Any, NamedTuple, Protocol

import numpy as np

Episode = tuple[int, dict[str, float]]  # (index, its metrics at its end)


class Outcome(NamedTuple):
    """What a step of N environments led to."""

    obs: Any  # leaves [N, ...]; of an episode that ended the next one's first
    final_obs: Any  # leaves [N, ...]: where the action led
    reward: np.ndarray  # float32 [N]
    terminated: np.ndarray  # bool [N]
    truncated: np.ndarray  # bool [N]
    lost: np.ndarray  # bool [N]: of no outcome; the environment began afresh, obs is its first
    ended: list[Episode]


class Worlds(Protocol):
    """N environments with their episodes in a row, each restarted where it ends."""

    num_envs: int
    restarts: int  # how often a process was started again

    def reset(self, seeds: list[int]) -> Any:
        """New episodes everywhere; the first observations, leaves [N, ...]."""
        ...

    def step(self, action: np.ndarray, only: np.ndarray | None = None) -> Outcome:
        """A step by actions [N, ...]; `only` (bool [N]) of these, the rest of the outcome is void.

        Those of one process go together.
        """
        ...

    def close(self) -> None:
        """End all processes."""
        ...

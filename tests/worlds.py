"""Gymnasium environments that Python steps; worker processes import this module."""

import os
import sys
import time

import gymnasium
import numpy as np

BOX, TWO = gymnasium.spaces.Box, gymnasium.spaces.Discrete(2)


class Path(gymnasium.Env):
    """Left or right on a line of `length` places from its middle; the right end pays 1.

    Nothing in it is random, so that the same actions lead to the same everywhere.
    """

    observation_space = BOX(0, 1, (2,), np.float32)
    action_space = TWO

    def __init__(self, length: int = 5, limit: int = 7):
        self.length, self.limit = length, limit

    def _see(self):
        return np.array([self.place / (self.length - 1), self.t / self.limit], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.t = self.length // 2, 0
        return self._see(), {}

    def step(self, action):
        self.t += 1
        self.place = max(self.place + (1 if action == 1 else -1), 0)
        won = self.place == self.length - 1
        return self._see(), float(won), won, self.t >= self.limit, {"is_success": won}


class Light(Path):
    """Says in its observation whether this process has imported jax."""

    def _see(self):
        return np.array([float("jax" in sys.modules), 0.0], np.float32)


class Mortal(Path):
    """Dies on a step of its first life, of which a file tells; `how` says in which way."""

    def __init__(self, folder: str, how: str = "exit", at: int = 4):
        super().__init__(length=50, limit=9)
        self.folder, self.how, self.at = folder, how, at

    def reset(self, *, seed=None, options=None):
        found = super().reset(seed=seed, options=options)
        self.steps = 0
        return found

    def step(self, action):
        self.steps += 1
        mark = os.path.join(self.folder, "died")
        if self.steps == self.at and (self.how.startswith("always") or not os.path.exists(mark)):
            open(mark, "w").close()
            if self.how.endswith("hang"):
                time.sleep(60)
            if self.how in ("raise", "always"):
                raise RuntimeError("a broken pipe in the plant")
            os._exit(1)
        return super().step(action)


class Leaves(Path):
    """Shows at its third step what its space does not hold."""

    def _see(self):
        return super()._see() * (9 if self.t == 3 else 1)


class NoBeginning(Path):
    def reset(self, *, seed=None, options=None):
        raise KeyError("no such level")


class Listed(Path):
    """Shows a list."""

    def _see(self):
        return super()._see().tolist()


class Late(Path):
    """Answers as the old gym did."""

    def step(self, action):
        _, reward, done, *_ = super().step(action)
        obs, info = self._see(), {}
        one, two, three, four, five = obs, reward, done, info  # noqa: F841
        return one


class Paid(Path):
    """Its rewards are no numbers."""

    def step(self, action):
        return self._see(), float("nan"), False, False, {}


class Wide(Path):
    """Shows more than its space says."""

    def _see(self):
        return np.zeros(3, np.float32)


def path(length: int = 5):
    return Path(length)

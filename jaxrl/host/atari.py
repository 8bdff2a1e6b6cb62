"""A game of the Arcade Learning Environment with the preprocessing of the DQN paper (Nature 2015).

Worker processes get this module by value (see `processes`), so they import neither jax nor jaxrl.
"""

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

FRAME_SKIP, STACK, SIDE, NOOPS = 4, 4, 84, 30
FIRE = 1  # the action, in games that have it
OBSERVATION = gymnasium.spaces.Box(0, 255, (SIDE, SIDE, STACK), np.uint8)


class Atari(gymnasium.Env):
    """One game, each step of which is four frames; observations [84, 84, 4], the newest last.

    Where `life_ends`, a lost life ends an episode as far as the learner sees, and `reset` goes on
    with the game. `info["episode"]`, at the end of a game, has its score before any clipping and
    its length.
    """

    metadata: dict[str, Any] = {}  # noqa: RUF012 (Gymnasium's name)

    def __init__(
        self,
        name: str,
        max_steps: int | None,
        sticky: float,
        life_ends: bool,
        clip: bool,
        fire: bool,
        all_actions: bool,
    ):
        ale_py: Any = importlib.import_module("ale_py")

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it greets at every start
        gymnasium.register_envs(ale_py)
        game = gymnasium.make(
            f"ALE/{name}-v5",
            frameskip=1,
            repeat_action_probability=sticky,
            full_action_space=all_actions,
            max_num_frames_per_episode=0,  # counted here, in steps
        )
        self.ale = game.unwrapped.ale  # pyright: ignore
        self.fires = fire and game.unwrapped.get_action_meanings()[FIRE] == "FIRE"  # pyright: ignore
        self.env = FrameStackObservation(AtariPreprocessing(game, NOOPS, FRAME_SKIP, SIDE), STACK)
        self.max_steps, self.life_ends, self.clip = max_steps or np.inf, life_ends, clip
        self.observation_space, self.action_space = OBSERVATION, game.action_space
        self.over = True  # the game, and not a life alone

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        del options
        if seed is None and not self.over:
            obs, _, over, _ = self._play(FIRE if self.fires else 0)  # the next life
            if not over:
                return obs, {}
        obs = np.moveaxis(self.env.reset(seed=seed)[0], 0, -1)
        self.over, self.lives, self.score, self.length = False, self.ale.lives(), 0.0, 0
        if self.fires:
            obs, _, over, _ = self._play(FIRE)
            self.score, self.length = 0.0, 0
            assert not over
        return obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, died = self._play(action)
        truncated = not terminated and self.length >= self.max_steps
        self.over = terminated or truncated
        info = {"episode": {"r": self.score, "l": self.length}} if self.over else {}
        reward = float(np.sign(reward)) if self.clip else reward
        return obs, reward, terminated or (died and self.life_ends), truncated, info

    def _play(self, action: Any) -> tuple[Any, float, bool, bool]:
        """(observation, reward, whether the game is over, whether a life was lost)."""
        obs, reward, terminated, _, _ = self.env.step(action)
        lives = self.ale.lives()
        died, self.lives = 0 < lives < self.lives, lives  # some games show 0 before they end
        self.score += float(reward)
        self.length += 1
        return np.moveaxis(obs, 0, -1), float(reward), bool(terminated), died

    def close(self) -> None:
        self.env.close()

"""The rollout where Python steps the environments: a compiled `act`, and processes that step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.host.worlds import Episode, Outcome, Worlds
from jaxrl.hosted import Played
from jaxrl.rollout import Ended, Transition


class Noted(NamedTuple):
    """Of a rollout, what no learner reads."""

    episodes: list[Episode]  # those that ended; index k * B + b
    lost: int  # episodes that a dead process took along


class Actor:
    """Plays rollouts of K members in B environments each, one after the other.

    `act(player, memory, fresh, obs, noise, t)` is compiled, over leaves [K, B, ...]: the memory,
    what was drawn, what is kept of it, and the actions as environments take them.
    """

    def __init__(
        self, worlds: Worlds, shape: tuple[int, int], act: Callable[..., Any], num_steps: int
    ):
        self.worlds, self.shape, self.act, self.num_steps = worlds, shape, act, num_steps
        self.obs: Any = None
        self.memory: Any = ()
        self.fresh = np.ones(shape, np.bool_)  # an episode begins with this observation

    def begin(self, seeds: list[int], memory: Any) -> None:
        """New episodes everywhere."""
        self.obs, self.memory = self._by_member(self.worlds.reset(seeds)), memory
        self.fresh = np.ones(self.shape, np.bool_)

    def play(self, player: Any, noise: Any) -> tuple[Played, Noted]:
        """T steps; leaves [K, T, B, ...] on the host."""
        steps: list[dict[str, Any]] = []
        episodes: list[Episode] = []
        cut, lost, truncations = np.zeros(self.shape, np.bool_), 0, np.zeros(self.shape, np.float32)
        for t in range(self.num_steps):
            row, found = self._step(player, noise, t)
            while found.lost.any():  # of these there is no such step: play it in the new episode
                gone = self._by_member(found.lost)
                lost += int(gone.sum())
                if steps:
                    done = steps[-1]["terminated"] | steps[-1]["truncated"]
                    steps[-1]["truncated"] = steps[-1]["truncated"] | (gone & ~done)
                else:
                    cut |= gone & ~self.fresh
                self._where(gone, self._by_member(found.obs), gone)
                again, second = self._step(player, noise, t, gone)
                row = _where(gone, again, row)
                found = _merged(found, second)
            after = {name: self._by_member(getattr(found, name)) for name in OUTCOME}
            steps.append(row | after)
            episodes += found.ended
            done = after["terminated"] | after["truncated"]
            truncations += after["truncated"]
            self.memory = row["memory"]
            self.obs, self.fresh = self._by_member(found.obs), done
        return self._played(steps, episodes, truncations, cut), Noted(episodes, lost)

    def _step(
        self, player: Any, noise: Any, t: int, only: np.ndarray | None = None
    ) -> tuple[dict[str, Any], Outcome]:
        memory, action, aux, to_env = self.act(
            player, self.memory, self.fresh, self.obs, noise, np.int32(t)
        )
        row = {"obs": self.obs, "action": np.asarray(action), "memory": memory}
        row["aux"] = jax.tree.map(np.asarray, aux)
        flat = np.asarray(to_env).reshape(-1, *to_env.shape[2:])
        return row, self.worlds.step(flat, None if only is None else only.ravel())

    def _where(self, who: np.ndarray, obs: Any, fresh: np.ndarray) -> None:
        self.obs = _where(who, obs, self.obs)
        self.fresh = np.where(who, fresh, self.fresh)

    def _by_member(self, tree: Any) -> Any:
        """Leaves [K * B, ...] as [K, B, ...]."""
        return jax.tree.map(lambda x: x.reshape(*self.shape, *x.shape[1:]), tree)

    def _played(
        self, steps: list[dict[str, Any]], episodes: list[Episode], truncations: Any, cut: Any
    ) -> Played:
        def stacked(name: str) -> Any:
            return jax.tree.map(lambda *x: np.stack(x, 1), *[step[name] for step in steps])

        names = {"obs", "action", "aux", *OUTCOME}
        kept = {("next_obs" if n == "final_obs" else n): stacked(n) for n in sorted(names)}
        sums: Any = {name: np.zeros(self.shape, np.float32) for name in OF_EPISODES}
        count: Any = np.zeros(self.shape, np.float32)
        for index, metrics in episodes:
            at = np.unravel_index(index, self.shape)
            count[at] += 1
            for name in OF_EPISODES:
                sums[name][at] += metrics[name]
        none: Any = np.zeros_like(count)
        ended = Ended(sums, count, np.minimum(truncations, count), none)
        memory = jax.tree.map(np.asarray, self.memory)
        return Played(Transition(**kept), ended, self.obs, memory, cut)


OUTCOME = ("final_obs", "reward", "terminated", "truncated")
OF_EPISODES = ("episode_length", "episode_return")


def _where(who: np.ndarray, on_true: Any, on_false: Any) -> Any:
    def pick(a: Any, b: Any) -> np.ndarray:
        mask = who.reshape(*who.shape, *[1] * (np.ndim(a) - who.ndim))
        return np.where(mask, a, b)

    return jax.tree.map(pick, on_true, on_false)


def _merged(first: Outcome, second: Outcome) -> Outcome:
    """The first, and the second where the first was lost."""
    arrays = _where(first.lost, second[:-1], first[:-1])
    return Outcome._make([*arrays, first.ended + second.ended])

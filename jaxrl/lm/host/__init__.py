"""A user's Python that language agents meet: rewards, tools, environments, in processes apart."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl.lm.host.answers import Answers
from jaxrl.lm.host.pool import Pool, Reply
from jaxrl.lm.host.player import Half, Place, ask_for_rewards, with_rewards
from jaxrl.lm.host.rewards import Asked, Rewards
from jaxrl.lm.play.episodes import Episodes
from jaxrl.lm.play.transcribe import Transcriber


class Host:
    """A run's dealings with a user's Python."""

    def __init__(
        self,
        rewards: Sequence[str],
        weights: Sequence[float],
        rows: Callable[[Any], tuple[Any, dict[str, Any]]],
        write: Transcriber,
        *,
        workers: int,
        deadline: float,
        say: Callable[[str], None],
    ):
        """`rows` gives the prompt and the other fields of a row that an environment's state names.

        ValueError, with the error, for a function that cannot be imported.
        """
        first = [("function", name) for name in rewards]
        self.rows, self.write = rows, write
        self.answers = Answers()
        self.pool = Pool(workers, deadline, first)
        try:
            for request in first:
                check(self.pool.ask(0, *request).result(), request[1])
        except BaseException:
            self.pool.close()
            raise
        self.rewards = Rewards(rewards, weights, self.pool, self.answers, say)

    def ask(self, half: Half, group_size: int, place: Place) -> list[list[Asked]]:
        """The calls that judge what was played, of each group; does not wait."""
        return ask_for_rewards(self.rewards, self.rows, self.write, half, group_size, place)

    def judge(self, calls: list[list[Asked]]) -> tuple[np.ndarray, np.ndarray]:
        """(reward float32 [N], masked bool [N]) of what was asked; waits for it."""
        reward, masked = zip(*map(self.rewards.judge, calls), strict=True)
        return np.concatenate(reward), np.concatenate(masked)

    def judged(self, half: Half, group_size: int, place: Place) -> Episodes:
        """The record of what was played with its rewards."""
        reward, masked = self.judge(self.ask(half, group_size, place))
        paid = with_rewards(jax.tree.map(jax.numpy.asarray, half.record), reward, masked, False)
        return jax.device_get(paid)

    def close(self) -> None:
        self.pool.close()


def check(reply: Reply, name: str) -> Any:
    """The value of an answer to a first question; ValueError for any other."""
    if reply.kind != "ok":
        raise ValueError(f"{name}: {reply.value}.")
    return reply.value

"""Episodes as text, for `transcripts.jsonl`: who said what, and what each turn paid."""

from functools import cache
from typing import Any

import jax
import numpy as np

from jaxrl.lm.play.episodes import Episodes
from jaxrl.text import Tokens, to_str

BYTES_PER_TOKEN = 16  # room for the text of a conversation, a token on average


class Transcriber:
    """Turns records of one agent's episodes into plain dictionaries."""

    def __init__(self, tokenizer: Any, group_size: int):
        self.tokenizer, self.group_size = tokenizer, group_size

    @cache  # noqa: B019 - one decoder for each length, as long as the run
    def _decoder(self, size: int) -> Any:
        return jax.jit(lambda tokens: self.tokenizer.decode(tokens, size * BYTES_PER_TOKEN))

    def text(self, tokens: np.ndarray, size: int) -> str:
        """The text of some of a conversation's tokens, special ones left out."""
        ids = np.zeros(size, np.int32)
        ids[: len(tokens)] = tokens
        row = Tokens(ids, np.int32(len(tokens)), np.asarray(False))  # pyright: ignore
        return to_str(self._decoder(size)(row))

    def __call__(
        self, shown: Episodes, iteration: int, env_episodes: int, first_seed: int
    ) -> list[dict[str, Any]]:
        """One for each of the episodes [K, n] of K seeds; none where nothing was played."""
        rows = []
        for seed, index in np.ndindex(*shown.length.shape[:2]):
            one = jax.tree.map(lambda x: x[seed, index], shown)  # noqa: B023
            if one.played.any():
                where = {"iteration": iteration, "env_episodes": env_episodes}
                sample = {"prompt": index // self.group_size, "sample": index % self.group_size}
                rows.append(where | {"seed": first_seed + seed} | sample | self.episode(one))
        return rows

    def episode(self, one: Episodes) -> dict[str, Any]:
        """Turns, return and ending of one episode."""
        length, size = int(one.length), one.token.shape[0]
        token, action, turn = (np.asarray(x)[:length] for x in (one.token, one.action, one.turn))
        turns = [
            {
                "observation": self.text(token[(turn == t) & ~action], size),
                "response": self.text(token[(turn == t) & action], size),
                "reward": round(float(one.reward[t]), 6),
                "cut": bool(one.cut[t]),
            }
            for t in range(int(one.played.sum()))
        ]
        ended = "terminated" if one.terminated else "truncated"
        return {
            "turns": turns,
            "return": round(float(one.reward.sum()), 6),
            "metrics": {name: round(float(x), 6) for name, x in sorted(one.metrics.items())},
            "ended": ended,
        }

"""Episodes as text, for `transcripts.jsonl`: who said what, and what each turn paid."""

import math
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jaxrl.lm.play.episodes import Episodes
from jaxrl.metrics import hidden
from jaxrl.text import Tokenizer


class Transcriber:
    """Turns records of one agent's episodes into plain dictionaries."""

    def __init__(self, tokenizer: Tokenizer, group_size: int):
        self.tokenizer, self.group_size = tokenizer, group_size

    @cached_property
    def _words(self) -> list[bytes]:
        """What each token says, an unknown one last."""
        data, offset, size = jax.tree.leaves(jax.device_get(self.tokenizer.spelling))
        whole = data.tobytes()
        return [whole[at : at + n] for at, n in zip(offset.tolist(), size.tolist(), strict=True)]

    def text(self, tokens: np.ndarray) -> str:
        """The text of some of a conversation's tokens, special ones by name."""
        words = self._words
        raw = b"".join(words[min(token, len(words) - 1)] for token in tokens.tolist())
        return raw.decode("utf-8", errors="backslashreplace")

    def observation(self, tokens: np.ndarray) -> str:
        """What an environment said, without the form's special tokens: it cannot say any."""
        return self.text(tokens[~np.isin(tokens, [*self.tokenizer.control])])

    def __call__(
        self,
        shown: Episodes,
        iteration: int,
        env_episodes: int,
        first_seed: int,
        first_prompt: int = 0,
    ) -> list[dict[str, Any]]:
        """One for each of the episodes [K, n] of K seeds; none where nothing was played."""
        rows = []
        for seed, index in np.ndindex(*shown.length.shape[:2]):
            one = jax.tree.map(lambda x: x[seed, index], shown)  # noqa: B023
            if one.played.any():
                where = {"iteration": iteration, "env_episodes": env_episodes}
                prompt, sample = divmod(index, self.group_size)
                sample = {"prompt": first_prompt + prompt, "sample": sample}
                rows.append(where | {"seed": first_seed + seed} | sample | self.episode(one))
        return rows

    def episode(self, one: Episodes) -> dict[str, Any]:
        """Turns, return and ending of one episode."""
        length = int(one.length)
        token, action, turn = (np.asarray(x)[:length] for x in (one.token, one.action, one.turn))
        cut = [bool(x) for x in one.cut]
        turns = [
            {
                "observation": self.observation(token[(turn == t) & ~action]),
                "response": self.text(said(token[(turn == t) & action], cut[t])),
                "reward": _number(one.reward[t]),
                "cut": cut[t],
            }
            for t in range(int(one.played.sum()))
        ]
        shown = [(name, x) for name, x in sorted(one.metrics.items()) if not hidden(name)]
        ended = "terminated" if one.terminated else "truncated"
        return {
            "turns": turns,
            "return": _number(one.reward.sum()),
            "metrics": {name: _number(x) for name, x in shown},
            "ended": ended,
        }


def said(tokens: np.ndarray, cut: bool) -> np.ndarray:
    """A response without the end of turn, which it has unless it was cut."""
    return tokens if cut else tokens[:-1]


def _number(value: Any) -> float | None:
    """For JSON, which has no NaN."""
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None

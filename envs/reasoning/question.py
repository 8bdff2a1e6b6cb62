"""What the questions share: one turn, exact answers, and what a difficulty may be."""

import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep
from jaxrl.envs.language.judged import Judged
from jaxrl.text.answers import Reading


class Question(Judged):
    """One question, one response: reward 1 if it is right, 0 if not, -0.1 without an answer.

    An environment may give a wrong answer some credit; `success` is exact.
    """

    @property
    def max_turns(self) -> int:
        return 1

    @property
    def feedback(self) -> tuple[str, ...]:
        if self.in_words:
            return "No, that is wrong.", "Yes, that is right.", "There is no answer in that."
        return "wrong", "right", "no answer"

    def verdict(
        self, reading: Reading, right: jax.Array, credit: jax.Array | float = 0.0
    ) -> TimeStep:
        """The TimeStep of a response: whether it holds an answer, and whether that is right."""
        right = reading.found & right
        obs = self.answer(jnp.where(reading.found, right.astype(jnp.int32), 2))
        return self.judged(obs, jnp.where(right, 1.0, credit), reading, right, True, False)

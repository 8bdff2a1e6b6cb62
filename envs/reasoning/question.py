"""What the questions share: one turn, exact answers, and what a difficulty may be."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, timestep
from jaxrl.envs.language.game import FORMAT_ERROR
from jaxrl.language import LanguageEnvironment


class Question(LanguageEnvironment):
    """One question, one response: reward 1 if it is right, 0 if not, -0.1 without an answer.

    An environment may give a wrong answer some credit; `success` is exact.
    """

    @property
    def max_turns(self) -> int:
        return 1

    @property
    def feedback(self) -> tuple[str, ...]:
        return "wrong", "right", "no answer"

    def opening(self, **values: Any) -> TimeStep:
        """The TimeStep of a reset: the question with these values."""
        return timestep(self.ask(**values), metrics={"success": jnp.zeros((), jnp.float32)})

    def verdict(
        self, answered: jax.Array, right: jax.Array, credit: jax.Array | float = 0.0
    ) -> TimeStep:
        """The TimeStep of a response: whether it holds an answer, and whether that is right."""
        right = answered & right
        verdict = jnp.where(answered, right.astype(jnp.int32), 2)
        obs = self.answer(verdict)
        reward = jnp.where(answered, jnp.where(right, 1.0, credit), FORMAT_ERROR)
        return timestep(obs, reward, True, False, {"success": right.astype(jnp.float32)})

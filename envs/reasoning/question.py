"""What the questions share: one turn, exact answers, and what a difficulty may be."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, timestep
from jaxrl.envs.language.game import FORMAT_ERROR
from jaxrl.language import LanguageEnvironment
from jaxrl.text import Text, select

VERDICTS = ("wrong", "right", "no answer")


class Question(LanguageEnvironment):
    """One question, one response: reward 1 if it is right, 0 if not, -0.1 without an answer.

    An environment may give a wrong answer some credit; `success` is exact.
    """

    @property
    def max_turns(self) -> int:
        return 1

    @property
    def feedback_bytes(self) -> int:
        return max(map(len, VERDICTS))

    def asked(self, question: Text) -> TimeStep:
        """The TimeStep of a reset."""
        return timestep(question, metrics={"success": jnp.zeros(())})

    def judged(
        self, answered: jax.Array, right: jax.Array, credit: jax.Array | float = 0.0
    ) -> TimeStep:
        """The TimeStep of a response: whether it holds an answer, and whether that is right."""
        right = answered & right
        verdict = jnp.where(answered, right.astype(jnp.int32), 2)
        obs = select(verdict, VERDICTS, self.observation_space.capacity)
        reward = jnp.where(answered, jnp.where(right, 1.0, credit), FORMAT_ERROR)
        return timestep(obs, reward, True, False, {"success": right.astype(jnp.float32)})


def check_difficulty(name: str, value: Any, most: int, least: int = 1) -> None:
    """A number of the difficulty fits the room there is; tracers and arrays are clipped later."""
    if isinstance(value, int) and not least <= value <= most:
        raise ValueError(
            f"{name}={value} must be {least} to max_{name}={most}; try {name}={most}, or make the "
            f"environment with a larger max_{name}."
        )

"""What games and questions share: an answer that is read, a reward for its form, what was wrong."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, check_numbers, timestep
from jaxrl.language import ANSWER, LanguageEnvironment
from jaxrl.text import Text, from_int, literal
from jaxrl.text.answers import Reading, fingerprint, last_number, whole
from jaxrl.text.patterns import boxed_integer

FORMAT_ERROR = -0.1  # reward of a response without an answer, if `format` is None


class Judged(LanguageEnvironment):
    """A response is read for one answer, which is right or wrong.

    Being right pays what the rules say. `format=0.1` pays that much more, once, where the last
    response has the asked form, right or wrong; nothing is then taken for a missing answer.
    """

    format: float | None = None  # reward for an answer in the asked form; None: -0.1 for none

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, format=(-1e6, 1e6))

    def opening(self, **values: Any) -> TimeStep:
        """The TimeStep of a reset: the task with these values."""
        return timestep(self.ask(**values), metrics=outcome(False, unread()))

    def judged(
        self, obs: Text, reward: Any, reading: Reading, right: Any, over: Any, truncated: Any
    ) -> TimeStep:
        """The TimeStep of a response, which ends the episode if it holds no answer."""
        over = over | ~reading.found
        missing = FORMAT_ERROR if self.format is None else 0.0
        reward = jnp.where(reading.found, reward, missing)
        if self.format is not None:
            reward += jnp.where(over & reading.formed, self.format, 0.0)
        return timestep(obs, reward, over, truncated, outcome(right, reading))

    def read_integer(self, action: Text, *, signed: bool = False) -> tuple[jax.Array, Reading]:
        r"""int32 [], Reading: of the last `\boxed{N}`; in words of the last number there is."""
        if self.in_words:
            reading = last_number(action)
            return whole(reading.text), reading
        value, found = boxed_integer(action, signed=signed)
        return value, Reading(from_int(value), found, found)


def unread() -> Reading:
    """No answer."""
    return Reading(literal(""), jnp.asarray(False), jnp.asarray(False))


def outcome(right: Any, reading: Reading) -> dict[str, jax.Array]:
    """The metrics of an episode that ends with this response."""
    return {
        "success": jnp.asarray(right, jnp.float32),
        "no_answer": (~reading.found).astype(jnp.float32),
        "wrong_form": (reading.found & ~reading.formed).astype(jnp.float32),
        ANSWER: fingerprint(reading),
    }

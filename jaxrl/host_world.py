"""An environment of texts that Python steps on the host: what compiled programs know of it."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, static, timestep
from jaxrl.language import LanguageEnvironment
from jaxrl.text import Text, literal, resize


class HostWorld(LanguageEnvironment):
    """How its episodes begin, and its sizes; `jaxrl.lm.host` plays it.

    The state is where an episode begins: a row of `begins`, or else a number to seed it with. With
    a `world` what is said first comes from the host too.
    """

    begins: LanguageEnvironment | None = None  # whose questions are asked first
    world: str = static("")  # module:Class of what is stepped; "": tools alone
    fields: tuple[tuple[str, Any], ...] = static(())  # that it is made with
    tools: tuple[str, ...] = static(())  # module:function of those that may be called
    tool_form: str = static("tags")  # of what calls gave, in `tool_forms.FORMS`
    turns: int = static(8)
    answer_bytes: int = static(512)  # of the longest answer; the rest is cut

    @property
    def max_turns(self) -> int:
        return self.turns

    @property
    def prompt_bytes(self) -> int:
        told = 0 if self.begins is None else self.begins.prompt_bytes
        return told + (self.answer_bytes if self.world else 0)

    @property
    def feedback_bytes(self) -> int:
        return self.answer_bytes

    @property
    def response_bytes(self) -> int:
        """Without a question whose solution is known, as long as an answer."""
        return self.answer_bytes if self.begins is None else self.begins.response_bytes

    @property
    def num_rows(self) -> int:
        return 0 if self.begins is None else self.begins.num_rows

    def row_name(self, row: int) -> str:
        return super().row_name(row) if self.begins is None else self.begins.row_name(row)

    @property
    def held_out(self) -> LanguageEnvironment:
        return self if self.begins is None else self.replace(begins=self.begins.held_out)

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        if self.begins is None:
            state = jax.random.randint(key, (), 0, 2**31 - 1, jnp.int32)
            return state, timestep(literal("", self.observation_space.capacity))
        return self.opened(*self.begins.reset(key))

    def reset_row(self, row: jax.Array | int, key: jax.Array) -> tuple[Any, TimeStep]:
        assert self.begins is not None
        return self.opened(*self.begins.reset_row(row, key))

    def opened(self, state: Any, ts: TimeStep) -> tuple[Any, TimeStep]:
        """The beginning of a question, without metrics."""
        return state, timestep(resize(ts.obs, self.observation_space.capacity))

    def step(self, state: Any, action: Text, key: jax.Array) -> tuple[Any, TimeStep]:
        name = self.world or " ".join(self.tools)
        raise ValueError(
            f"{name} is stepped in Python, which is not done here; train.grpo, reinforce, turn_ppo "
            "and evaluate do it."
        )

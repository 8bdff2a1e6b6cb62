"""Environments that are spoken to: observations and actions are texts."""

from collections.abc import Sequence
from typing import Any, Literal

import jax

from jaxrl.env import Environment, TimeStep, static
from jaxrl.metrics import HIDDEN
from jaxrl.spaces import TextSpace
from jaxrl.text import Template, Text, resize, select
from jaxrl.text.tools import Tool

ANSWER = HIDDEN + "answer"  # metric: what was answered, as a number; -1 where nothing was
OF = HIDDEN + "of_"  # begins metrics, as of_minus: 1 where the task is of this kind, else 0
PROMPTS = ("terse", "instruct")
THOUGHTS = 256  # bytes of free text beside an answer, where the task is told in words


class LanguageEnvironment(Environment):
    """An environment whose observation and action are `Text`; an action is one whole turn.

    A subclass says what is said: `task` is the first observation, `feedback` what a step may
    answer, `response` the longest move. Their sizes follow. Where these ask for `in_words` there
    are two of each: the shortest that tell the task, for models from scratch, and sentences, for
    models that know some. One whose texts are no templates defines `prompt_bytes`,
    `feedback_bytes` and `response_bytes` itself, all static.
    """

    prompt: Literal["terse", "instruct"] = static("terse")  # how it is told; instruct: in words
    truncates: bool = static(False)  # an episode may be cut off, its last observation worth reading
    # Room in a response beside the move, for thoughts; None: 0, and 256 in words.
    thought_bytes: int | None = static(None)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if isinstance(vars(cls).get("prompt"), property | Template):
            raise TypeError(f"{cls.__name__}.prompt is a field; name the first observation `task`.")
        super().__init_subclass__(**kwargs)

    def __post_init__(self):
        if self.prompt not in PROMPTS:
            raise ValueError(f"prompt={self.prompt} must be terse or instruct; try instruct.")
        if self.thought_bytes is not None and not 0 <= self.thought_bytes <= 2**20:
            raise ValueError(f"thought_bytes={self.thought_bytes} must be 0 to {2**20}; try 256.")

    @property
    def in_words(self) -> bool:
        """The task is told in sentences, and answered in free text."""
        return self.prompt == "instruct"

    @property
    def max_turns(self) -> int:
        """Most turns that an episode can have."""
        raise NotImplementedError(f"{type(self).__name__} must define max_turns")

    @property
    def task(self) -> Template:
        """The first observation."""
        raise NotImplementedError(f"{type(self).__name__} must define task or prompt_bytes")

    @property
    def feedback(self) -> Sequence[Template | str]:
        """The observations after a step: `answer` selects one."""
        raise NotImplementedError(f"{type(self).__name__} must define feedback or feedback_bytes")

    @property
    def response(self) -> Template:
        """The longest move, as a scripted player says it."""
        raise NotImplementedError(f"{type(self).__name__} must define response or response_bytes")

    @property
    def toolbox(self) -> tuple[Tool, ...]:
        """Tools that a response may call; in words a model is told of them before all else."""
        return ()

    @property
    def prompt_bytes(self) -> int:
        """Bytes of the longest first observation."""
        return self.task.size

    @property
    def feedback_bytes(self) -> int:
        """Bytes of the longest observation after a step."""
        options = self.feedback
        return max(len(s.encode()) if isinstance(s, str) else s.size for s in options)

    @property
    def response_bytes(self) -> int:
        """Bytes of an action."""
        room = THOUGHTS if self.in_words else 0
        return self.response.size + (room if self.thought_bytes is None else self.thought_bytes)

    @property
    def num_rows(self) -> int:
        """Questions in the fixed list that episodes begin with; 0 where there is no such list."""
        return 0

    def reset_row(self, row: jax.Array | int, key: jax.Array) -> tuple[Any, TimeStep]:
        """As `reset`, with a row of the list, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__} has no rows")

    def row_name(self, row: int) -> str:
        """What a user calls a row."""
        return f"row {row}"

    @property
    def held_out(self) -> "LanguageEnvironment":
        """What to evaluate in after training: this one, or what was kept apart."""
        return self

    @property
    def observation_space(self) -> TextSpace:
        """Room for the longer of a prompt and an answer."""
        return TextSpace(max(self.prompt_bytes, self.feedback_bytes))

    @property
    def action_space(self) -> TextSpace:
        return TextSpace(self.response_bytes)

    def ask(self, **values: Any) -> Text:
        """The task with these values, an observation."""
        return resize(self.task.render(**values), self.observation_space.capacity)

    def answer(self, index: Any, **values: Any) -> Text:
        """The `index`-th of `feedback`, an observation; each takes its fields of the values."""
        options = []
        for option in self.feedback:
            if isinstance(option, Template):
                option = option.render(**{name: values[name] for name in option.fields or {}})
            options.append(option)
        return select(index, options, self.observation_space.capacity)

    def say(self, **values: Any) -> Text:
        """A move with these values, an action."""
        return resize(self.response.render(**values), self.response_bytes)

    def expert(self, state: Any, key: jax.Array) -> Text:
        """A strong player's response, from what the episode has shown so far."""
        raise NotImplementedError(f"{type(self).__name__} has no expert")

    def random_player(self, state: Any, key: jax.Array) -> Text:
        """A response that is valid, and no more."""
        raise NotImplementedError(f"{type(self).__name__} has no random_player")

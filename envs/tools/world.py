"""What environments with tools share: calls are read and run in order, their results told."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, check_numbers, static, timestep
from jaxrl.envs.language.judged import Judged, outcome, unread
from jaxrl.language import THOUGHTS
from jaxrl.text import Text, concat, literal, resize, select, where
from jaxrl.text.answers import Reading
from jaxrl.text.call_writer import call_bytes, quoted, quoted_bytes, write_call
from jaxrl.text.calls import ERRORS, FINE, Calls, read_calls
from jaxrl.text.tool_forms import FORMS, TERSE, ToolForm
from jaxrl.text.tools import Tool, check_toolbox

MOST_TURNS = 100
ENDINGS = ("wrong", "right", "no answer")
MANY = "error: too many calls at once"
LONG = '"error: the result is too long"'


class Episode(flax.struct.PyTreeNode):
    """The world of an episode, and where it stands."""

    world: Any
    turn: jax.Array  # int32 []: responses so far
    failed: jax.Array  # int32 []: calls that were none


class Verdict(NamedTuple):
    """What a last response, or the world that it leaves, is worth."""

    right: jax.Array  # bool []
    credit: jax.Array | float  # reward where it is not right
    reading: Reading  # the answer that was read


class ToolWorld(Judged):
    """Responses call tools until one holds no call: that is the last, and so is the K-th.

    A subclass has `toolbox`, `result_bytes`, `use` (what one call does) and `finish` (what the last
    response is worth). Terse, a response is the bare call `{"name": .., "arguments": {..}}`; in
    words calls and results are written as the family of the model does it.
    """

    turns: int = static(4)  # most responses of an episode, K
    calls: int = static(1)  # most calls of one response, which run in order
    tool_form: str = static("tags")  # in words, of `tool_forms.FORMS`; trainers take the chat's

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, turns=(1, MOST_TURNS), calls=(1, 8))
        if self.tool_form not in FORMS:
            raise ValueError(f"tool_form={self.tool_form} must be one of {', '.join(FORMS)}.")
        check_toolbox(self.toolbox)

    @property
    def form(self) -> ToolForm:
        """How calls and results are written."""
        return FORMS[self.tool_form] if self.in_words else TERSE

    @property
    def toolbox(self) -> tuple[Tool, ...]:
        """What may be called."""
        raise NotImplementedError(f"{type(self).__name__} must define toolbox")

    @property
    def result_bytes(self) -> int:
        """Bytes of the longest result of a call."""
        raise NotImplementedError(f"{type(self).__name__} must define result_bytes")

    def use(self, world: Any, tool: jax.Array, given: Calls) -> tuple[Any, Text]:
        """The world after a call that is well formed, and its result; `given` is that one call."""
        raise NotImplementedError(f"{type(self).__name__} must define use")

    def finish(self, world: Any, action: Text) -> Verdict:
        """What the last response is worth; one that calls a tool may be the last too."""
        raise NotImplementedError(f"{type(self).__name__} must define finish")

    @property
    def max_turns(self) -> int:
        return self.turns

    @property
    def response_bytes(self) -> int:
        room = THOUGHTS if self.in_words else 0
        room = room if self.thought_bytes is None else self.thought_bytes
        around = sum(map(len, (FORMS["tags"] if self.calls > 1 else self.form).call))
        calls = self.calls * (call_bytes(self.toolbox, self.form.arguments) + around)
        return max(calls, self.response.size) + room

    @property
    def feedback_bytes(self) -> int:
        return quoted_bytes(self._told_bytes) if self.form.quotes else self._told_bytes

    @property
    def _told_bytes(self) -> int:
        """Bytes of the longest results of a response, before they are quoted."""
        around = sum(map(len, self.form.result))
        longest = max(self.result_bytes, *map(len, ERRORS))
        return self.calls * (longest + around + 1) + len(MANY) + around

    def begin(self, world: Any, obs: Text) -> tuple[Episode, TimeStep]:
        """An episode's first state and TimeStep."""
        zero = jnp.zeros((), jnp.int32)
        return Episode(world, zero, zero), timestep(obs, metrics=outcome(False, unread()))

    def step(self, state: Episode, action: Text, key: jax.Array) -> tuple[Episode, TimeStep]:
        del key  # tools do the same each time
        world, told, count, failed = self.run(state.world, action)
        state = Episode(world, state.turn + 1, state.failed + failed)
        over = (count == 0) | (state.turn >= self.max_turns)
        right, credit, reading = self.finish(world, action)
        right &= over
        ending = select(jnp.where(reading.found, right.astype(jnp.int32), 2), ENDINGS)
        reward = jnp.where(over, jnp.where(right, 1.0, credit), 0.0)
        formed = reading.formed & (state.failed == 0)
        reading = Reading(reading.text, reading.found | ~over, formed | ~over)
        obs = resize(where(over, ending, told), self.observation_space.capacity)
        return state, self.judged(obs, reward, reading, right, over, False)

    def run(self, world: Any, action: Text) -> tuple[Any, Text, jax.Array, jax.Array]:
        """The world after a response's calls, what they gave, how many there are, how many failed.

        A call that is none changes nothing and gives an error; those after it run all the same.
        """
        calls = read_calls(self.toolbox, action, self.calls)
        before, after = self.form.result
        room = self._told_bytes

        def one(carry, x):
            world, told = carry
            index, call = x
            fine = call.error == FINE
            new, result = self.use(world, call.tool, call)
            world = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, world)
            result = where(fine, result, select(call.error, ERRORS))
            gap = literal("\n").replace(length=(told.length > 0).astype(jnp.int32))
            more = concat([told, gap, before, result, after], room)
            told = where(index < calls.count, more, told)
            return (world, told), (index < calls.count) & ~fine

        each = calls.replace(count=jnp.full(self.calls, calls.count))
        steps = (jnp.arange(self.calls), each)
        (world, told), failed = jax.lax.scan(one, (world, literal("", room)), steps)
        many = concat([told, "\n", before, MANY, after], room)
        told = where(calls.count > self.calls, many, told)
        if self.form.quotes:
            told = quoted(told)
            told = where(told.cut, LONG, told)
        return world, told, calls.count, jnp.sum(failed, dtype=jnp.int32)

    def call(self, tool: jax.Array | int, value: Text, given: jax.Array) -> Text:
        """A response that calls a tool with these arguments [P]."""
        before, after = self.form.call
        call = write_call(self.toolbox, tool, value, given, self.form.arguments)
        return concat([before, call, after], self.response_bytes)

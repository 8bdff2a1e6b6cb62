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
from jaxrl.text.call_writer import call_bytes, write_call
from jaxrl.text.calls import ERRORS, FINE, Calls, read_calls
from jaxrl.text.tools import Tool

MOST_TURNS = 100
ENDINGS = ("wrong", "right", "no answer")
MANY = "error: too many calls at once"
CALL = ("<tool_call>\n", "\n</tool_call>")
RESULT = ("<tool_response>\n", "\n</tool_response>")  # what stands around a result, told in words


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
    words it stands between `<tool_call>` and `</tool_call>`, and results between their like.
    """

    turns: int = static(4)  # most responses of an episode, K
    calls: int = static(1)  # most calls of one response, which run in order

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, turns=(1, MOST_TURNS), calls=(1, 8))

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
        around = sum(map(len, CALL)) if self.in_words or self.calls > 1 else 0
        calls = self.calls * (call_bytes(self.toolbox) + around)
        return max(calls, self.response.size) + room

    @property
    def feedback_bytes(self) -> int:
        around = sum(map(len, RESULT)) if self.in_words else 0
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
        before, after = RESULT if self.in_words else ("", "")
        room = self.feedback_bytes

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
        return world, told, calls.count, jnp.sum(failed, dtype=jnp.int32)

    def call(self, tool: jax.Array | int, value: Text, given: jax.Array) -> Text:
        """A response that calls a tool with these arguments [P]."""
        call = write_call(self.toolbox, tool, value, given)
        return concat([CALL[0], call, CALL[1]] if self.in_words else [call], self.response_bytes)

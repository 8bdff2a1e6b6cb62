"""A calculator: an expression that is worked out by calls."""

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, check_numbers, static
from jaxrl.envs.tools.world import Episode, ToolWorld, Verdict
from jaxrl.text import Template, Text, concat, from_int, select, where
from jaxrl.text.calls import Calls
from jaxrl.text.tools import Parameter, Tool

NUMBERS = (Parameter("a", "integer"), Parameter("b", "integer"))
TOOLS = (
    Tool("add", "The sum a + b.", NUMBERS),
    Tool("subtract", "The difference a - b.", NUMBERS),
    Tool("multiply", "The product a * b.", NUMBERS),
)
SIGNS = ("+", "-", "*")  # in the order of the tools
OVERFLOW = "error: the result does not fit 32 bits"


class Expression(flax.struct.PyTreeNode):
    number: jax.Array  # int32 [steps + 1]
    sign: jax.Array  # int32 [steps]


def apply(sign: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.stack([a + b, a - b, a * b])[sign]


class Calculator(ToolWorld):
    r"""`(12*34)-5` by calls of `add`, `subtract` and `multiply`; the answer is `\boxed{403}`.

    Reward 1 for the right number, however it was found. One call more than needed is allowed.
    """

    steps: int = static(2)  # operations of an expression
    highest: int = 99  # its numbers are 1 .. highest
    turns: int = static(4)

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, steps=(1, 3), highest=(1, 99))

    @property
    def toolbox(self) -> tuple[Tool, ...]:
        return TOOLS

    @property
    def result_bytes(self) -> int:
        return len(OVERFLOW)

    @property
    def task(self) -> Template:
        words = "What is {sum}? Work it out with the tools, then reply with only the number."
        widest = "(" * (self.steps - 1) + "99" + "*99)" * (self.steps - 1) + "*99"
        return Template(words if self.in_words else r"{sum}=\boxed{{N}}", {"sum": widest})

    @property
    def response(self) -> Template:
        return Template(
            "{number}" if self.in_words else r"\boxed{{{number}}}", {"number": -(2**31)}
        )

    def reset(self, key: jax.Array) -> tuple[Episode, TimeStep]:
        world = self.draw(key)
        text = from_int(world.number[0])
        for i in range(self.steps):
            parts = [text, select(world.sign[i], SIGNS), from_int(world.number[i + 1])]
            parts = parts if i == self.steps - 1 else ["(", *parts, ")"]
            text = concat(parts, len(self.task.fields["sum"]))
        return self.begin(world, self.ask(sum=text))

    def draw(self, key: jax.Array) -> Expression:
        number_key, sign_key = jax.random.split(key)
        highest = jnp.asarray(self.highest, jnp.int32) + 1
        number = jax.random.randint(number_key, (self.steps + 1,), 1, highest, jnp.int32)
        return Expression(number, jax.random.randint(sign_key, (self.steps,), 0, 3, jnp.int32))

    def use(self, world: Expression, tool: jax.Array, given: Calls) -> tuple[Expression, Text]:
        a, b = given.integer[0], given.integer[1]
        result = apply(tool, a, b)
        size = jnp.abs(apply(tool, given.number[0], given.number[1]))
        return world, where(size < 2.0**31, from_int(result), OVERFLOW)

    def finish(self, world: Expression, action: Text) -> Verdict:
        value, reading = self.read_integer(action, signed=True)
        return Verdict(value == self.results(world)[-1], 0.0, reading)

    def results(self, world: Expression) -> jax.Array:
        """int32 [steps + 1]: the first number, and what each step gives."""
        found = [world.number[0]]
        for i in range(self.steps):
            found.append(apply(world.sign[i], found[-1], world.number[i + 1]))
        return jnp.stack(found)

    def expert(self, state: Episode, key: jax.Array) -> Text:
        """Each step by a call, then the answer."""
        del key
        world, step = state.world, jnp.minimum(state.turn, self.steps - 1)
        results = self.results(world)
        call = self.calls_of(world.sign[step], results[step], world.number[step + 1])
        return where(state.turn < self.steps, call, self.say(number=results[-1]))

    def random_player(self, state: Episode, key: jax.Array) -> Text:
        """As the expert, of another expression."""
        draw_key, key = jax.random.split(key)
        return self.expert(state.replace(world=self.draw(draw_key)), key)

    def calls_of(self, tool: jax.Array, a: jax.Array, b: jax.Array) -> Text:
        value = jax.vmap(from_int)(jnp.stack([a, b]))
        return self.call(tool, value, jnp.ones(2, jnp.bool_))

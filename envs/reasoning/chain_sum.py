"""Sums and differences of numbers: `12+34-5=`; after reasoning-gym 0.1.23's chain_sum."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import TimeStep, check_numbers, static
from jaxrl.envs.reasoning.question import Question
from jaxrl.language import OF
from jaxrl.text import Template, Text, from_int
from jaxrl.text.text import pack

MOST_DIGITS = 8  # so that sums of 20 terms fit an int32


class State(flax.struct.PyTreeNode):
    number: jax.Array  # int32 [max_terms]: signed, 0 beyond the question's terms


def share_of_places(answer: jax.Array, result: jax.Array) -> jax.Array:
    """float32 []: of the sign and the digits, counted from the right, those that are the same."""
    power = jnp.asarray([10**i for i in range(MOST_DIGITS + 2)], jnp.int32)
    size = jnp.abs(jnp.stack([answer, result]))[:, None]
    there = (size >= power) | (power == 1)
    digit = size // power % 10
    same = there[0] & there[1] & (digit[0] == digit[1])
    signs = (answer < 0) == (result < 0)
    return (jnp.sum(same) + signs) / (jnp.sum(there[0] | there[1]) + 1.0)


class ChainSum(Question):
    r"""`terms` numbers of `digits` digits each, the first without a sign; answer `\boxed{41}`.

    Both are leaves, so a batch may mix difficulties; a traced one is clipped to its `max_`. Numbers
    of one digit may be 0, longer ones begin with no 0.
    """

    terms: int = 2
    digits: int = 2
    max_terms: int = static(4)
    max_digits: int = static(4)
    partial: float | None = None  # a wrong answer's reward: times its share of places right

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, max_terms=(1, 20), max_digits=(1, MOST_DIGITS), partial=(0, 1))
        check_numbers(self, terms=(1, self.max_terms), digits=(1, self.max_digits))

    @property
    def task(self) -> Template:
        words = "What is {chain}? Reply with only the number."
        widest = "+".join(["9" * self.max_digits] * self.max_terms)
        return Template(words if self.in_words else r"{chain}=\boxed{{N}}", {"chain": widest})

    @property
    def response(self) -> Template:
        widest = {"number": -self.max_terms * (10**self.max_digits - 1)}
        return Template("{number}" if self.in_words else r"\boxed{{{number}}}", widest)

    def reset(self, key: jax.Array) -> tuple[State, TimeStep]:
        state = State(self.draw(key))
        return state, self.of_kind(state, self.opening(chain=self.chain(state)))

    def step(self, state: State, action: Text, key: jax.Array) -> tuple[State, TimeStep]:
        del key  # the question has one answer
        value, reading = self.read_integer(action, signed=True)
        result = jnp.sum(state.number, dtype=jnp.int32)
        credit = 0.0
        if self.partial is not None:
            credit = self.partial * share_of_places(value, result)
        return state, self.of_kind(state, self.verdict(reading, value == result, credit))

    def of_kind(self, state: State, ts: TimeStep) -> TimeStep:
        """Told apart: sums, and what has a difference in it."""
        minus = jnp.any(state.number < 0)
        of = {"plus": ~minus, "minus": minus}
        kinds = {OF + kind: jnp.asarray(is_of, jnp.float32) for kind, is_of in of.items()}
        return ts.replace(metrics=ts.metrics | kinds)

    def draw(self, key: jax.Array) -> jax.Array:
        """int32 [max_terms]: the signed numbers of a question."""
        number_key, sign_key = jax.random.split(key)
        digits = jnp.clip(self.digits, 1, self.max_digits)
        power = jnp.asarray([10**i for i in range(self.max_digits + 1)], jnp.int32)
        low = jnp.where(digits == 1, 0, power[digits - 1])
        number = jax.random.randint(number_key, (self.max_terms,), low, power[digits], jnp.int32)
        minus = jax.random.bernoulli(sign_key, jnp.float32(0.5), (self.max_terms,)).at[0].set(False)
        return jnp.where(self.asks(), jnp.where(minus, -number, number), 0)

    def asks(self) -> jax.Array:
        """bool [max_terms]: this number belongs to the question."""
        return jnp.arange(self.max_terms) < jnp.clip(self.terms, 1, self.max_terms)

    def chain(self, state: State) -> Text:
        """`12+34-5`."""
        number = jax.vmap(from_int)(state.number)
        plus = (state.number >= 0) & (np.arange(self.max_terms) > 0)
        # Rows of a plus and a number; one that shows no plus starts behind it.
        rows = jnp.pad(number.bytes, ((0, 0), (1, 0)), constant_values=ord("+"))
        start = np.arange(self.max_terms) * rows.shape[1] + ~plus
        length = jnp.where(self.asks(), number.length + plus, 0)
        return pack(rows.ravel(), start, length, self.max_terms * (self.max_digits + 1) - 1)

    def expert(self, state: State, key: jax.Array) -> Text:
        """The right answer."""
        del key
        return self.say(number=jnp.sum(state.number, dtype=jnp.int32))

    def random_player(self, state: State, key: jax.Array) -> Text:
        """The answer to another question."""
        del state
        return self.say(number=jnp.sum(self.draw(key), dtype=jnp.int32))

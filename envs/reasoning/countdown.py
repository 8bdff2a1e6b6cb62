"""Countdown: reach a target with given numbers, each used once; after reasoning-gym 0.1.23's."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import TimeStep, check_numbers, static
from jaxrl.envs.reasoning.arithmetic import evaluate
from jaxrl.envs.reasoning.question import Question
from jaxrl.text import Template, Text, from_int, listed, resize, where
from jaxrl.text.answers import Reading, among, ends, is_digit, kept
from jaxrl.text.patterns import boxed
from jaxrl.text.text import pack

OPERATORS = "+-*/"
MOST = 999  # no target is larger
TERSE = r"Make {target} of {numbers}, each once: \boxed{{1+2}}"
WORDS = (
    "Make {target} of the numbers {numbers}. Use each of them exactly once, with +, -, *, / and "
    "parentheses. Reply with only the expression."
)


class State(flax.struct.PyTreeNode):
    number: jax.Array  # int32 [max_numbers]: in the order of a solution, 0 beyond the question's
    operator: jax.Array  # int32 [max_numbers]: what joins the number to those before it; 0 is first
    target: jax.Array  # int32 []


class Countdown(Question):
    r"""Make the target of `numbers` numbers from 1..`largest` with + - * / and parentheses.

    The answer is an expression, `\boxed{(2+3)*4}`, that uses each number exactly once; it is
    computed in fractions, exactly. Both fields are leaves, so a batch may mix difficulties; a
    traced one is clipped to its `max_`. Targets are 1 to 999, and one way to reach them joins the
    numbers one by one.
    """

    numbers: int = 3
    largest: int = 10
    max_numbers: int = static(4)
    max_largest: int = static(99)

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, max_numbers=(2, 30), max_largest=(1, MOST // 2))
        most = (self.max_largest + 1) ** self.max_numbers
        if most >= 2**31:
            raise ValueError(
                f"max_numbers={self.max_numbers} numbers up to max_largest={self.max_largest}: "
                "(max_largest + 1) ** max_numbers below 2**31 keeps the arithmetic exact; "
                "try max_numbers=4, max_largest=99."
            )
        check_numbers(self, numbers=(2, self.max_numbers), largest=(1, self.max_largest))

    @property
    def task(self) -> Template:
        widest = " ".join([str(self.max_largest)] * self.max_numbers)
        return Template(WORDS if self.in_words else TERSE, {"target": MOST, "numbers": widest})

    @property
    def response(self) -> Template:
        """The longest solution, `((12+34)*5-67)/8`."""
        first, *others = [str(self.max_largest)] * self.max_numbers
        opening = "(" * (self.max_numbers - 2)
        longest = opening + first + "+" + ")*".join(others)
        solution = "{solution}" if self.in_words else r"\boxed{{{solution}}}"
        return Template(solution, {"solution": longest})

    @property
    def count(self) -> jax.Array:
        """int32 []: numbers of a question."""
        return jnp.clip(self.numbers, 2, self.max_numbers)

    def reset(self, key: jax.Array) -> tuple[State, TimeStep]:
        number_key, operator_key = jax.random.split(key)
        largest = jnp.clip(self.largest, 1, self.max_largest)
        number = jax.random.randint(number_key, (self.max_numbers,), 1, largest + 1, jnp.int32)
        number = jnp.where(jnp.arange(self.max_numbers) < self.count, number, 0)

        def join(value, given):
            number, chance = given
            result = jnp.stack([value + number, value - number, value * number, value // number])
            exact = jnp.asarray([True, True, True, False]) | ((value % number == 0) & (number > 1))
            fits = exact & (result >= 1) & (result <= MOST)
            operator = jnp.argmax(jnp.where(fits, chance, -1.0))
            used = number > 0
            return jnp.where(used, result[operator], value), jnp.where(used, operator, 0)

        chance = jax.random.uniform(
            operator_key, (self.max_numbers - 1, len(OPERATORS)), jnp.float32
        )
        target, operator = jax.lax.scan(join, number[0], (number[1:], chance))
        state = State(number, jnp.pad(operator, (1, 0)).astype(jnp.int32), target)
        # Sorted, so that their order says nothing.
        shown = jnp.roll(jnp.sort(number), self.count - self.max_numbers)
        numbers = listed(shown, self.count, capacity=self.prompt_bytes)
        return state, self.opening(target=target, numbers=numbers)

    def step(self, state: State, action: Text, key: jax.Array) -> tuple[State, TimeStep]:
        del key  # whether an answer is right is no matter of chance
        reading = self.read_expression(action)
        depth = reading.text.capacity // 2  # each parenthesis takes two bytes
        value = evaluate(reading.text, state.number, self.count, depth)
        whole = jnp.where(value.denominator == 0, 1, value.denominator)
        right = (value.numerator % whole == 0) & (value.numerator // whole == state.target)
        return state, self.verdict(reading, value.valid & right)

    def read_expression(self, action: Text) -> Reading:
        r"""The last `\boxed{(2+3)*4}`; in words, without one, what is around the last operator.

        That is all digits, + - * / ( ) and spaces, from the first number or parenthesis to the
        last: of `(2+3)*4 = 20` what stands before the `=`. One that is longer than twice the
        longest solution is no answer.
        """
        boxes = boxed(r"[-0-9+*/() ]+", action)
        if not self.in_words:
            return Reading(boxes.payload, boxes.found, boxes.found)
        span, last = last_expression(action)
        payload, found = kept(action, span, 2 * self.response.size), last >= 0
        payload = where(boxes.found, resize(boxes.payload, payload.capacity), payload)
        found = (boxes.found | found) & ~payload.cut
        end = jnp.where(boxes.found, boxes.last, last)
        return Reading(payload, found, found & ends(action, end))

    def expert(self, state: State, key: jax.Array) -> Text:
        """The solution that the question was made from."""
        del key
        additive = state.operator < 2
        # What stands before * or / needs a parenthesis where its own last operator is + or -.
        closes = ~additive & jnp.roll(additive, 1) & (jnp.arange(self.max_numbers) > 1)
        return self._say(state.number, state.operator, closes)

    def random_player(self, state: State, key: jax.Array) -> Text:
        """The numbers in any order, with any operators between them."""
        order_key, operator_key = jax.random.split(key)
        place = jax.random.uniform(order_key, (self.max_numbers,), jnp.float32)
        order = jnp.argsort(place + (state.number == 0))
        operator = jax.random.randint(
            operator_key, (self.max_numbers,), 0, len(OPERATORS), jnp.int32
        )
        return self._say(state.number[order], operator, jnp.zeros(self.max_numbers, bool))

    def _say(self, number: jax.Array, operator: jax.Array, closes: jax.Array) -> Text:
        """`closes`, bool [max_numbers]: all that stands before this operator is in parentheses."""
        size = self.max_numbers
        inside, first = jnp.arange(size) < self.count, jnp.arange(size) == 0
        closes &= inside
        digits = jax.vmap(from_int)(number)
        symbol = jnp.asarray([*OPERATORS.encode()], jnp.uint8)[operator]
        # Rows of a closing parenthesis, an operator and a number, of which only some parts show.
        close = jnp.full((size, 1), ord(")"), jnp.uint8)
        rows = jnp.concatenate([close, symbol[:, None], digits.bytes], 1)
        opening = jnp.full(size, ord("("), jnp.uint8)
        hidden = jnp.where(first, 2, ~closes)
        start = jnp.arange(size) * rows.shape[1] + hidden + size
        length = jnp.where(inside, digits.length + 2 - hidden, 0)
        solution = pack(
            jnp.concatenate([opening, rows.ravel()]),
            jnp.concatenate([np.zeros(1, int), start]),
            jnp.concatenate([jnp.sum(closes)[None], length]),
            self.response_bytes,
        )
        return self.say(solution=solution)


def last_expression(text: Text) -> tuple[jax.Array, jax.Array]:
    """bool [L]: the bytes of the last expression; int32 []: its last place, -1 without one."""
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    digit = is_digit(text.bytes)
    opens, closes = digit | among(text, b"("), digit | among(text, b")")
    solid = ~among(text, b" ")
    left = jax.lax.cummax(jnp.where(solid, place, 0))  # the nearest byte that is no space ..
    right = jax.lax.cummin(jnp.where(solid, place, text.capacity - 1), reverse=True)
    before = jnp.pad(left, (1, 0))[:-1]  # .. on either side of this one
    after = jnp.pad(right[1:], (0, 1), constant_values=text.capacity - 1)
    operator = among(text, OPERATORS.encode()) & closes[before] & opens[after] & (place > 0)
    last = jnp.max(jnp.where(operator, place, -1))
    other = ~(digit | among(text, b"+-*/() "))
    first = jnp.max(jnp.where(other & (place < last), place + 1, 0))
    behind = jnp.min(jnp.where(other & (place > last), place, text.capacity))
    run = (place >= first) & (place < behind) & (last >= 0)
    start = jnp.min(jnp.where(run & opens, place, text.capacity))
    end = jnp.max(jnp.where(run & closes, place, -1))
    return run & (place >= start) & (place <= end), end

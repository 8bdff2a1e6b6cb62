"""Mastermind, the rules of gem-llm 0.1.0: black and white pegs until the code is found."""

import itertools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import TimeStep, check_numbers, static
from jaxrl.envs.language.game import MOST_TURNS, Game
from jaxrl.text import Template, Text, integers, listed
from jaxrl.text.answers import Reading, ends, is_digit, kept
from jaxrl.text.numbers import Integers
from jaxrl.text.patterns import boxed

RANDOM_LEVELS = np.asarray([(2, 4, 10), (4, 6, 20), (4, 8, 30)], np.int32)  # length, numbers, turns
NUMBERS = r"\d+(\s+\d+)*"
NUMBERED = {"numbers": 9}
TERSE = r"Code: {length} different of 1-{numbers}, {turns} turns: \boxed{{1 2}}"
WORDS = (
    "I have chosen a secret code: {length} different digits from 1 to {numbers}, in an order. Find "
    "it in at most {turns} turns. After each guess I say how many of its digits are in the right "
    "place, and how many are in the code but in another place. Reply with only the {length} "
    "digits, with spaces between them."
)
PEGS = "Digits in the right place: {black}. Digits in another place: {white}."


class State(flax.struct.PyTreeNode):
    code: jax.Array  # int32 [length]: different numbers from 1, 0 beyond the episode's length
    length: jax.Array  # int32 []: of this episode's code
    numbers: jax.Array  # int32 []: the code's are 1 .. numbers
    limit: jax.Array  # int32 []: turns of this episode
    turn: jax.Array  # int32 []: turns taken
    best: jax.Array  # int32 []: most black pegs so far
    guess: jax.Array  # int32 [turns, length]: valid guesses, 0 where there is none
    black: jax.Array  # int32 [turns]
    white: jax.Array  # int32 [turns]


class Mastermind(Game):
    r"""A secret code of different numbers; a response guesses it as `\boxed{1 2}`.

    A guess may repeat numbers. Each black peg beyond the most so far pays its share of 1, so the
    code pays 1 in all. With `random_level` each episode has 2 numbers of 1-4 and 10 turns, 4 of 1-6
    and 20, or 4 of 1-8 and 30. The answer `1b 2w` is one black peg and two white ones.
    """

    length: int = static(2)
    numbers: int = static(6)
    turns: int = static(10)
    random_level: bool = static(False)

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, turns=(1, MOST_TURNS))
        if not 1 <= self.length <= min(self.numbers, 4) or self.numbers > 9:
            raise ValueError(
                f"length={self.length} of numbers={self.numbers}: a code has 1 to 4 different "
                "numbers of at most 9; try length=4, numbers=8."
            )

    @property
    def level(self) -> np.ndarray:
        """int32 [levels, 3]: length, numbers and turns that an episode may have."""
        own = np.asarray([(self.length, self.numbers, self.turns)], np.int32)
        return RANDOM_LEVELS if self.random_level else own

    @property
    def max_turns(self) -> int:
        return int(self.level[-1, 2])

    @property
    def task(self) -> Template:
        widest = {"length": 4, "numbers": 9, "turns": self.max_turns}
        return Template(WORDS if self.in_words else TERSE, widest)

    @property
    def feedback(self) -> tuple[str | Template, ...]:
        pegs, left = {"black": 4, "white": 4}, {"left": self.max_turns}
        if not self.in_words:
            told = Template("{black}b {white}w", pegs)
            return "repeated", "range", "length", "right", "no move", told
        return (
            Template("You have tried that code before. Turns left: {left}.", left),
            Template("The digits are from 1 to {numbers}. Turns left: {left}.", left | NUMBERED),
            Template("The code has {length} digits. Turns left: {left}.", left | {"length": 4}),
            "Yes, that is the code.",
            "There are no digits in that.",
            Template(PEGS + " Turns left: {left}.", left | pegs),
        )

    @property
    def response(self) -> Template:
        widest = {"code": " ".join("9" * int(self.level[-1, 0]))}
        return Template("{code}" if self.in_words else r"\boxed{{{code}}}", widest)

    def reset(self, key: jax.Array) -> tuple[State, TimeStep]:
        level_key, code_key = jax.random.split(key)
        length, numbers, limit = jax.random.choice(level_key, jnp.asarray(self.level))
        most_length, _, most_turns = self.level[-1]
        most_numbers = int(np.max(self.level[:, 1]))
        place = jax.random.uniform(code_key, (most_numbers,), jnp.float32)
        shuffled = 1 + jnp.argsort(place + (jnp.arange(most_numbers) >= numbers))
        code = jnp.where(jnp.arange(most_length) < length, shuffled[:most_length], 0)
        zero, row = jnp.zeros((), jnp.int32), jnp.zeros(most_turns, jnp.int32)
        guess = jnp.zeros((most_turns, most_length), jnp.int32)
        code = code.astype(jnp.int32)
        state = State(code, length, numbers, limit, zero, zero, guess, row, row)
        return state, self.opening(length=length, numbers=numbers, turns=limit)

    def step(self, state: State, action: Text, key: jax.Array) -> tuple[State, TimeStep]:
        del key  # the dynamics are deterministic
        read, reading = self.read_numbers(action, state.code.shape[0])
        inside = jnp.arange(state.code.shape[0]) < state.length
        guess = jnp.where(inside, read.value, 0)
        wrong_length = read.count != state.length
        outside = jnp.any(inside & ((guess < 1) | (guess > state.numbers)))
        repeated = jnp.any(jnp.all(state.guess == guess, 1))
        valid = reading.found & ~wrong_length & ~outside & ~repeated
        black, white = pegs(state.code, guess)
        won = valid & (black == state.length)
        reward = jnp.where(valid, jnp.maximum(black - state.best, 0) / state.length, 0.0)
        answer = jnp.where(valid, 5, 0)
        for problem, index in ((outside, 1), (wrong_length, 2), (won, 3), (~reading.found, 4)):
            answer = jnp.where(problem, index, answer)
        told = {"numbers": state.numbers, "length": state.length}
        told |= {"black": black, "white": white, "left": state.limit - state.turn - 1}
        obs = self.answer(answer, **told)
        at = jnp.where(valid, state.turn, state.black.shape[0])  # beyond the record: dropped
        state = state.replace(
            turn=state.turn + 1,
            best=jnp.where(valid, jnp.maximum(black, state.best), state.best),
            guess=state.guess.at[at].set(guess, mode="drop"),
            black=state.black.at[at].set(black, mode="drop"),
            white=state.white.at[at].set(white, mode="drop"),
        )
        last = state.turn >= state.limit
        return state, self.turn(
            obs, reward, malformed=~reading.found, won=won, over=last, reading=reading
        )

    def read_numbers(self, action: Text, n: int) -> tuple[Integers, Reading]:
        r"""The numbers of the last `\boxed{1 2}`; in words, without one, the text's last digits.

        These stand in one row, with spaces or commas between them or nothing: `1 2`, `1, 2`, `12`.
        """
        move = boxed(NUMBERS, action)
        read, found, end = integers(move.payload, n), move.found, move.last
        if self.in_words:
            row, last = last_digits(action, n)
            read = jax.tree.map(lambda a, b: jnp.where(found, a, b), read, row)
            end = jnp.where(found, end, last)
            found = (found | (row.count > 0)) & ~action.cut
        text = listed(read.value, jnp.minimum(read.count, n), capacity=2 * n + 2)
        formed = found & ends(action, end) if self.in_words else found
        return read, Reading(text, found, formed)

    @property
    def codes(self) -> np.ndarray:
        """int32 [C, length]: every code of every level, 0 beyond its length."""
        most = self.level[-1, 0]
        longest = {int(length): int(numbers) for length, numbers, _ in self.level}
        rows = [
            code + (0,) * (most - length)
            for length, numbers in longest.items()
            for code in itertools.permutations(range(1, numbers + 1), length)
        ]
        return np.asarray(rows, np.int32)

    def legal(self, state: State) -> jax.Array:
        """bool [C]: this code may be the one of the episode."""
        codes = self.codes
        return (np.sum(codes > 0, 1) == state.length) & (np.max(codes, 1) <= state.numbers)

    def guessed(self, state: State) -> jax.Array:
        """bool [C]: this code has been guessed."""
        return jnp.any(jnp.all(state.guess == self.codes[:, None], 2), 1)

    def possible(self, state: State) -> jax.Array:
        """bool [C]: this code agrees with every answer so far."""
        black, white = jax.vmap(jax.vmap(pegs, (None, 0)), (0, None))(
            jnp.asarray(self.codes), state.guess
        )
        agrees = (black == state.black) & (white == state.white)
        return self.legal(state) & jnp.all(agrees | (state.guess[:, 0] == 0), 1)

    def expert(self, state: State, key: jax.Array) -> Text:
        """Any code that the answers so far leave possible."""
        return self._say(self._draw(self.possible(state), key), state.length)

    def random_player(self, state: State, key: jax.Array) -> Text:
        """Any code that has not been guessed."""
        fresh = self.legal(state) & ~self.guessed(state)
        return self._say(self._draw(fresh, key), state.length)

    def _draw(self, among: jax.Array, key: jax.Array) -> jax.Array:
        """int32 [length]: one of the codes where `among` [C] is set."""
        index = jax.random.categorical(key, jnp.where(among, jnp.float32(0), -jnp.inf))
        return jnp.asarray(self.codes)[index]

    def _say(self, code: jax.Array, length: jax.Array) -> Text:
        return self.say(code=listed(code, length, capacity=2 * code.shape[0]))


def last_digits(text: Text, n: int) -> tuple[Integers, jax.Array]:
    """The digits of the last row, each a number, and int32 []: where it ends."""
    place = jnp.arange(text.capacity, dtype=jnp.int32)
    digit = is_digit(text.bytes)
    last = jnp.max(jnp.where(digit, place, -1))
    apart = ~digit & (text.bytes != ord(" ")) & (text.bytes != ord(","))
    row = digit & (place > jnp.max(jnp.where(apart & (place < last), place, -1)))
    value = kept(text, row, n).bytes.astype(jnp.int32) - ord("0")
    count = jnp.sum(row, dtype=jnp.int32)
    return Integers(jnp.where(jnp.arange(n) < count, value, 0), count), last


def pegs(code: jax.Array, guess: jax.Array) -> tuple[jax.Array, jax.Array]:
    """int32 [], int32 []: black pegs and white ones; 0 is no number, and the code repeats none."""
    black = jnp.sum((code == guess) & (code > 0), dtype=jnp.int32)
    either = jnp.any((code[:, None] == guess) & (code > 0)[:, None], 1)
    return black, jnp.sum(either, dtype=jnp.int32) - black

"""GuessTheNumber, the rules of gem-llm 0.1.0: higher or lower until the number is found."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import TimeStep, check_numbers, is_known, static
from jaxrl.envs.language.game import MOST_TURNS, Game
from jaxrl.text import Template, Text

MOST = 9999  # the largest number there is; the texts have room for it
RANDOM_TURNS = 9  # most that `random_level` draws
TERSE = r"Guess {low}-{high}, {turns} turns: \boxed{{N}}"
WORDS = (
    "I have chosen a whole number from {low} to {high}. Find it in at most {turns} turns. After "
    "each guess I say whether my number is higher or lower. Reply with only a number."
)


class State(flax.struct.PyTreeNode):
    target: jax.Array  # int32 []
    low: jax.Array  # int32 []
    high: jax.Array  # int32 []
    limit: jax.Array  # int32 []: turns of this episode
    turn: jax.Array  # int32 []: turns taken
    guess: jax.Array  # int32 [turns]: the numbers named so far, 0 where there is none


class GuessTheNumber(Game):
    r"""A number between low and high; a response names one as `\boxed{N}`.

    Reward 1 for the number, 0 for any other; the last turn pays `nearness`, as the peer does, by
    how near it came, so that a near miss is worth almost as much. `information` pays each turn at
    once, for how the guess divides what is left and not for how lucky it was. With
    `random_level` each episode draws low from 1..10, high from low+5..low+50, and
    ceil(sqrt(high - low)) + 1 turns.
    """

    low: int = 1
    high: int = 10
    turns: int = static(4)
    nearness: float = 1.0  # the last turn's reward for a number that is not it but almost
    information: float | None = None  # reward for each bit that a guess may tell
    random_level: bool = static(False)

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, low=(1, MOST), high=(1, MOST), turns=(1, MOST_TURNS))
        check_numbers(self, nearness=(-1e6, 1e6), information=(-1e6, 1e6))
        if is_known(self.low) and is_known(self.high) and np.any(self.low > np.asarray(self.high)):
            raise ValueError(f"low={self.low} must not exceed high={self.high}; try low=1.")

    @property
    def max_turns(self) -> int:
        return RANDOM_TURNS if self.random_level else self.turns

    @property
    def task(self) -> Template:
        widest = {"low": MOST, "high": MOST, "turns": self.max_turns}
        return Template(WORDS if self.in_words else TERSE, widest)

    @property
    def feedback(self) -> tuple[str | Template, ...]:
        if not self.in_words:
            return "higher", "lower", "repeated", "outside", "right", "no move"
        left, named = {"left": self.max_turns}, {"guess": MOST, "left": self.max_turns}
        between = {"low": MOST, "high": MOST} | left
        return (
            Template("No, the number is higher than {guess}. Turns left: {left}.", named),
            Template("No, the number is lower than {guess}. Turns left: {left}.", named),
            Template("You have named {guess} before. Turns left: {left}.", named),
            Template("The number lies between {low} and {high}. Turns left: {left}.", between),
            "Yes, that is the number.",
            "There is no number in that.",
        )

    @property
    def response(self) -> Template:
        return Template("{number}" if self.in_words else r"\boxed{{{number}}}", {"number": MOST})

    def reset(self, key: jax.Array) -> tuple[State, TimeStep]:
        target_key, low_key, high_key = jax.random.split(key, 3)
        low = jnp.clip(jnp.asarray(self.low, jnp.int32), 1, MOST)
        high = jnp.clip(jnp.asarray(self.high, jnp.int32), low, MOST)
        limit = jnp.asarray(self.turns, jnp.int32)
        if self.random_level:
            low = jax.random.randint(low_key, (), 1, 11, jnp.int32)
            high = low + jax.random.randint(high_key, (), 5, 51, jnp.int32)
            limit = jnp.ceil(jnp.sqrt((high - low).astype(jnp.float32))).astype(jnp.int32) + 1
        target = jax.random.randint(target_key, (), low, high + 1, jnp.int32)
        guess = jnp.zeros(self.max_turns, jnp.int32)
        state = State(target, low, high, limit, jnp.zeros((), jnp.int32), guess)
        return state, self.opening(low=low, high=high, turns=limit)

    def step(self, state: State, action: Text, key: jax.Array) -> tuple[State, TimeStep]:
        del key  # the dynamics are deterministic
        guess, reading = self.read_integer(action)
        malformed = ~reading.found
        if not self.in_words:
            malformed |= guess == 0
        outside = (guess < state.low) | (guess > state.high)
        repeated = ~outside & jnp.any(state.guess == guess)
        won = ~malformed & ~outside & ~repeated & (guess == state.target)
        turn = state.turn + 1
        last = turn >= state.limit
        span = jnp.maximum(state.high - state.low, 1)
        nearness = self.nearness * (1 - jnp.abs(guess - state.target) / span)
        reward = jnp.where(won, 1.0, jnp.where(last & ~outside, nearness, 0.0))
        answer = jnp.where(guess < state.target, 0, 1)
        for problem, index in ((repeated, 2), (outside, 3), (won, 4), (malformed, 5)):
            answer = jnp.where(problem, index, answer)
        if self.information is not None:
            reward = reward + self.information * self.bits(state, guess)
        told = {"guess": guess, "low": state.low, "high": state.high, "left": state.limit - turn}
        obs = self.answer(answer, **told)
        ts = self.turn(obs, reward, malformed=malformed, won=won, over=last, reading=reading)
        at = jnp.where(outside | malformed, self.max_turns, state.turn)  # beyond it: dropped
        return state.replace(turn=turn, guess=state.guess.at[at].set(guess, mode="drop")), ts

    def bounds(self, state: State) -> tuple[jax.Array, jax.Array]:
        """The numbers that the answers so far leave possible, from .. to."""
        guess = state.guess
        below = jnp.where((guess > 0) & (guess < state.target), guess + 1, state.low)
        above = jnp.where(guess > state.target, guess - 1, state.high)
        return jnp.max(below), jnp.min(above)

    def bits(self, state: State, guess: jax.Array) -> jax.Array:
        """float32 []: what the answer to a guess tells in the mean of the numbers left possible."""
        low, high = self.bounds(state)
        left = high - low + 1
        below, above = jnp.clip(guess - low, 0, left), jnp.clip(high - guess, 0, left)
        share = jnp.stack([below, left - below - above, above]) / left
        return jnp.sum(jax.scipy.special.entr(share)) / jnp.log(2.0)

    def expert(self, state: State, key: jax.Array) -> Text:
        """Binary search."""
        del key
        low, high = self.bounds(state)
        return self.say(number=(low + high) // 2)

    def random_player(self, state: State, key: jax.Array) -> Text:
        """Any number of the range."""
        return self.say(number=jax.random.randint(key, (), state.low, state.high + 1, jnp.int32))

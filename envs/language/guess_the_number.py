"""GuessTheNumber, the rules of gem-llm 0.1.0: higher or lower until the number is found."""

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, static, timestep
from jaxrl.envs.language.game import ending
from jaxrl.language import LanguageEnvironment
from jaxrl.text import Text, render, select
from jaxrl.text.patterns import boxed_integer

MOST = 61  # no number is above 60
ANSWERS = ("higher", "lower", "repeated", "outside", "right", "no move")


class State(flax.struct.PyTreeNode):
    target: jax.Array  # int32 []
    low: jax.Array  # int32 []
    high: jax.Array  # int32 []
    limit: jax.Array  # int32 []: turns of this episode
    turn: jax.Array  # int32 []: turns taken
    guessed: jax.Array  # bool [MOST]: numbers named so far


class GuessTheNumber(LanguageEnvironment):
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
    information: float = static(0.0)  # reward for each bit that a guess may tell
    random_level: bool = static(False)
    response_bytes: int = static(12)  # room for a response: `\boxed{10}`, or for thoughts too
    gem: bool = static(False)  # the peer's flags at the end of an episode

    @property
    def max_turns(self) -> int:
        return 9 if self.random_level else self.turns

    @property
    def prompt_bytes(self) -> int:
        return len(r"Guess 10-60, 10 turns: \boxed{N}")

    @property
    def feedback_bytes(self) -> int:
        return max(map(len, ANSWERS))

    def reset(self, key: jax.Array) -> tuple[State, TimeStep]:
        target_key, low_key, high_key = jax.random.split(key, 3)
        low, high = jnp.asarray(self.low, jnp.int32), jnp.asarray(self.high, jnp.int32)
        limit = jnp.asarray(self.turns, jnp.int32)
        if self.random_level:
            low = jax.random.randint(low_key, (), 1, 11)
            high = low + jax.random.randint(high_key, (), 5, 51)
            limit = jnp.ceil(jnp.sqrt((high - low).astype(jnp.float32))).astype(jnp.int32) + 1
        target = jax.random.randint(target_key, (), low, high + 1)
        state = State(target, low, high, limit, jnp.zeros((), jnp.int32), jnp.zeros(MOST, bool))
        prompt = render(
            r"Guess {}-{}, {} turns: \boxed{{N}}",
            low, high, limit,
            capacity=self.observation_space.capacity,
        )  # fmt: skip
        return state, timestep(prompt, metrics={"success": jnp.zeros(())})

    def step(self, state: State, action: Text, key: jax.Array) -> tuple[State, TimeStep]:
        del key  # the dynamics are deterministic
        move = boxed_integer(action)
        guess = move.value
        malformed = ~move.found | (guess == 0)
        outside = (guess < state.low) | (guess > state.high)
        place = jnp.clip(guess, 0, MOST - 1)
        repeated = ~outside & state.guessed[place]
        won = ~malformed & ~outside & ~repeated & (guess == state.target)
        turn = state.turn + 1
        last = turn >= state.limit
        nearness = self.nearness * (1 - jnp.abs(guess - state.target) / (state.high - state.low))
        reward = jnp.where(won, 1.0, jnp.where(last & ~outside, nearness, 0.0))
        answer = jnp.where(guess < state.target, 0, 1)
        for problem, index in ((repeated, 2), (outside, 3), (won, 4), (malformed, 5)):
            answer = jnp.where(problem, index, answer)
        obs = select(answer, ANSWERS, self.observation_space.capacity)
        guessed = state.guessed | ((jnp.arange(MOST) == place) & ~outside & ~malformed)
        if self.information:
            reward = reward + self.information * self.bits(state, guess)
        ts = ending(obs, reward, malformed=malformed, won=won, out_of_turns=last, gem=self.gem)
        return state.replace(turn=turn, guessed=guessed), ts

    def bounds(self, state: State) -> tuple[jax.Array, jax.Array]:
        """The numbers that the answers so far leave possible, from .. to."""
        number = jnp.arange(MOST)
        below = jnp.where(state.guessed & (number < state.target), number + 1, state.low)
        above = jnp.where(state.guessed & (number > state.target), number - 1, state.high)
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
        return self._say((low + high) // 2)

    def random_player(self, state: State, key: jax.Array) -> Text:
        """Any number of the range."""
        return self._say(jax.random.randint(key, (), state.low, state.high + 1))

    def _say(self, number: jax.Array) -> Text:
        return render(r"\boxed{{{}}}", number, capacity=self.response_bytes)

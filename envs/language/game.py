"""What the games share: how an episode begins and ends, the answer to a malformed move."""

from typing import Any

import jax

from jaxrl.env import TimeStep, static
from jaxrl.envs.language.judged import Judged
from jaxrl.text import Text, literal
from jaxrl.text.answers import Reading

MOST_TURNS = 1000


class Game(Judged):
    """Turns until the game is won, a response holds no move, or none are left.

    The turn limit is a rule that the prompt states, so running out of turns terminates. In the
    `gem` family it sets both flags, as gem-llm 0.1.0 does; a win on the last turn sets one.
    """

    gem: bool = static(False)  # the peer's flags at the end of an episode

    def turn(
        self,
        obs: Text,
        reward: Any,
        *,
        malformed: jax.Array,
        won: jax.Array,
        over: jax.Array,
        reading: Reading | None = None,
    ) -> TimeStep:
        """The TimeStep of one turn; `over`: no turn follows, be it won or not.

        `reading` is the move that was read, where it is to be counted by its form too.
        """
        formed = ~malformed if reading is None else ~malformed & reading.formed
        reading = Reading(literal("") if reading is None else reading.text, ~malformed, formed)
        won = won & ~malformed
        truncated = over & ~won if self.gem else False
        return self.judged(obs, reward, reading, won, won | over, truncated)

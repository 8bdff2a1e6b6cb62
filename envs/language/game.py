"""What the games share: how an episode begins and ends, the answer to a malformed move."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, static, timestep
from jaxrl.language import LanguageEnvironment
from jaxrl.text import Text

FORMAT_ERROR = -0.1  # reward of a response without a move; it ends the episode
MOST_TURNS = 1000


class Game(LanguageEnvironment):
    """Turns until the game is won, a response holds no move, or none are left.

    The turn limit is a rule that the prompt states, so running out of turns terminates. In the
    `gem` family it sets both flags, as gem-llm 0.1.0 does; a win on the last turn sets one.
    """

    gem: bool = static(False)  # the peer's flags at the end of an episode

    def opening(self, **values: Any) -> TimeStep:
        """The TimeStep of a reset: the prompt with these values."""
        return timestep(self.ask(**values), metrics={"success": jnp.zeros((), jnp.float32)})

    def turn(
        self,
        obs: Text,
        reward: Any,
        *,
        malformed: jax.Array,
        won: jax.Array,
        over: jax.Array,
    ) -> TimeStep:
        """The TimeStep of one turn; `over`: no turn follows, be it won or not."""
        won = won & ~malformed
        reward = jnp.where(malformed, FORMAT_ERROR, reward)
        truncated = over & ~won if self.gem else False
        success = {"success": won.astype(jnp.float32)}
        return timestep(obs, reward, malformed | won | over, truncated, success)

"""What the games share: the turn count, the answer to a malformed move, how an episode ends."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, timestep
from jaxrl.text import Text

FORMAT_ERROR = -0.1  # reward of a response without a move; it ends the episode


def ending(
    obs: Text,
    reward: Any,
    *,
    malformed: jax.Array,
    won: jax.Array,
    out_of_turns: jax.Array,
    gem: bool,
) -> TimeStep:
    """The TimeStep of one turn.

    The turn limit is a rule that the prompt states, so running out of turns terminates. In the
    `gem` family it sets both flags, as gem-llm 0.1.0 does; a win on the last turn sets one.
    """
    won = won & ~malformed
    reward = jnp.where(malformed, FORMAT_ERROR, reward)
    truncated = out_of_turns & ~won if gem else False
    success = {"success": won.astype(jnp.float32)}
    return timestep(obs, reward, malformed | won | out_of_turns, truncated, success)

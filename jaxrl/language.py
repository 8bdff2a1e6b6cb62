"""Environments that are spoken to: observations and actions are texts."""

from typing import Any

import jax

from jaxrl.env import Environment, static
from jaxrl.spaces import TextSpace
from jaxrl.text import Text


class LanguageEnvironment(Environment):
    """An environment whose observation and action are `Text`; an action is one whole turn.

    Subclasses define these sizes, all static. Observations have room for the longer of the two.
    """

    @property
    def max_turns(self) -> int:
        """Most turns that an episode can have."""
        raise NotImplementedError(f"{type(self).__name__} must define max_turns")

    @property
    def prompt_bytes(self) -> int:
        """Bytes of the longest first observation."""
        raise NotImplementedError(f"{type(self).__name__} must define prompt_bytes")

    @property
    def feedback_bytes(self) -> int:
        """Bytes of the longest observation after a step."""
        raise NotImplementedError(f"{type(self).__name__} must define feedback_bytes")

    truncates: bool = static(False)  # an episode may be cut off, its last observation worth reading
    response_bytes: int = static(64)  # bytes of an action

    @property
    def observation_space(self) -> TextSpace:
        return TextSpace(max(self.prompt_bytes, self.feedback_bytes))

    @property
    def action_space(self) -> TextSpace:
        return TextSpace(self.response_bytes)

    def expert(self, state: Any, key: jax.Array) -> Text:
        """A strong player's response, from what the episode has shown so far."""
        raise NotImplementedError(f"{type(self).__name__} has no expert")

    def random_player(self, state: Any, key: jax.Array) -> Text:
        """A response that is valid, and no more."""
        raise NotImplementedError(f"{type(self).__name__} has no random_player")

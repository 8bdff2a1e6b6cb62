"""The sizes of a conversation in tokens, and what in it may not fit."""

from dataclasses import dataclass
from typing import Any

from jaxrl.language import LanguageEnvironment


@dataclass(frozen=True)
class Limits:
    """The sizes of a conversation, in tokens; all static."""

    first: int  # what precedes the first response, F
    response: int  # one response, its end of turn included, R
    following: int  # what follows a response up to the next one, W
    max_turns: int  # U
    context: int  # the whole conversation, C


def limits(
    env: LanguageEnvironment,
    chat: Any,
    response: int = 0,
    context: int = 0,
    first: int = 0,
    following: int = 0,
) -> Limits:
    """The sizes that the longest episode needs; 0 takes what is enough for any.

    An observation that is longer than `first` or `following` is cut, which the record keeps in
    `unread`. Raises ValueError for a context that an episode could outgrow.
    """
    first = first or env.prompt_bytes + chat.overhead
    following = following or env.feedback_bytes + chat.overhead
    response = response or env.response_bytes + 1
    needed = first + env.max_turns * response + (env.max_turns - 1) * following
    if env.truncates:  # what the critic reads after the last turn, and a place behind it
        needed += following + 1
    if context and context < needed:
        raise ValueError(
            f"context={context} is too short for the longest episode, which needs {needed} tokens "
            f"(prompt {first}, {env.max_turns} responses of {response}, answers of {following}); "
            f"try context={needed}."
        )
    return Limits(first, response, following, env.max_turns, context or needed)

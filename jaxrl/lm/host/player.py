"""Playing with the host in it: compiled parts, and between them a user's Python.

Two halves of an iteration's prompts take turns: while one decodes, the host answers the other.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.lm.host.rewards import Rewards
from jaxrl.lm.play.episodes import Episodes
from jaxrl.lm.play.transcribe import Transcriber, said
from jaxrl.text import Text, to_str

Rows = Callable[[Any], tuple[Any, dict[str, Any]]]  # environment state -> prompt, other fields


@dataclass
class Half:
    """Some prompts and what was played from them, on the host: leaves [n * G, ...]."""

    first: int  # global index of the first prompt
    states: Any  # of the environment after its reset [n, ...]
    told: Text  # first observations [n]
    record: Episodes


EVALUATION = -1  # an iteration that belongs to no run: nothing is written down of it


@dataclass(frozen=True)
class Place:
    """Where in a run something is played."""

    seed: int
    iteration: int
    last: int  # iteration of the run


def take_turns(parts: Sequence[Iterator[Any]]) -> None:
    """Go on with each of them in turn until all are over."""
    left = deque(parts)
    while left:
        part = left.popleft()
        if next(part, None) is not None:
            left.append(part)


def conversation(write: Transcriber, one: Episodes, prompt: Any) -> Any:
    """What was said after a prompt: a text, or where that is a list of messages, a list too."""
    length = int(one.length)
    token, action, turn = (np.asarray(x)[:length] for x in (one.token, one.action, one.turn))
    messages = []
    for t in range(int(one.played.sum())):
        if t:
            text = write.observation(token[(turn == t) & ~action])
            messages.append({"role": "user", "content": text})
        text = write.text(said(token[(turn == t) & action], bool(one.cut[t])))
        messages.append({"role": "assistant", "content": text})
    if isinstance(prompt, list):
        return messages
    return "\n".join(message["content"] for message in messages)


def ask_for_rewards(
    rewards: Rewards, rows: Rows, write: Transcriber, half: Half, group_size: int, place: Place
) -> list[list[Any]]:
    """The calls that judge a half's episodes, of each group; does not wait."""
    state = {"global_step": place.iteration, "max_steps": place.last}
    calls = []
    for p in range(len(half.told.length)):
        prompt, fields = rows(jax.tree.map(lambda x: x[p], half.states))  # noqa: B023
        if prompt is None:
            prompt = to_str(jax.tree.map(lambda x: x[p], half.told))  # noqa: B023
        samples = range(p * group_size, (p + 1) * group_size)
        group = [jax.tree.map(lambda x: x[i], half.record) for i in samples]  # noqa: B023
        columns = {name: [value] * group_size for name, value in fields.items()}
        columns |= {
            "prompts": [prompt] * group_size,
            "completions": [conversation(write, one, prompt) for one in group],
            "completion_ids": [_drawn(one) for one in group],
        }
        episode = (half.first + p) * group_size
        calls.append(rewards.ask(place.seed, place.iteration, episode, columns, state))
    return calls


def _drawn(one: Episodes) -> list[int]:
    """The tokens after the prompt, what the environment said among them."""
    return np.asarray(one.token)[int(one.action.argmax()) : int(one.length)].tolist()


def with_rewards(
    record: Episodes, reward: jax.Array, masked: jax.Array, adds: bool
) -> Episodes:
    """A record whose episodes are paid `reward` [N] at their end, beside their own or instead."""
    last = jnp.maximum(record.num_turns - 1, 0)
    own = record.reward if adds else jnp.zeros_like(record.reward)
    row = jnp.arange(len(last), dtype=jnp.int32)
    paid = own.at[row, last].add(reward)
    return record.replace(reward=jnp.where(masked[:, None], 0.0, paid), masked=masked)

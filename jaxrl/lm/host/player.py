"""A run's dealings with a user's Python: who is asked, and what the record becomes of it."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.host_world import HostWorld
from jaxrl.lm.host.answers import Answers
from jaxrl.lm.host.ledger import Ledger
from jaxrl.lm.host.pool import Pool, Reply
from jaxrl.lm.host.rewards import Asked, Rewards
from jaxrl.lm.host.worlds import Place, Worlds
from jaxrl.lm.play.episodes import Episodes
from jaxrl.lm.play.host import Heard
from jaxrl.lm.play.transcribe import Transcriber, said

Rows = Callable[[Any], tuple[Any, dict[str, Any]]]  # environment state -> prompt, other fields
EVALUATION = -1  # an iteration that belongs to no run: nothing is written down of it


@dataclass
class Half:
    """Some prompts and what was played from them, on the host: leaves [P * G, ...]."""

    first: int  # global index of the first prompt
    states: Any  # of the environment after its reset [P, ...]
    prompts: list[str]
    record: Episodes


class Host:
    """Reward functions, a world or tools, the processes that they answer in, and the record."""

    def __init__(
        self,
        env: Any,
        rewards: Sequence[str],
        weights: Sequence[float],
        rows: Rows,
        write: Transcriber,
        *,
        workers: int,
        deadline: float,
        say: Callable[[str], None],
    ):
        """`rows` gives the prompt and the other fields of a row that an environment's state names.

        ValueError, with the error, for what cannot be imported.
        """
        self.rows, self.write, self.ledger = rows, write, Ledger(say)
        self.told: dict[str, float] = {}  # means of what was evaluated last
        self.answers = Answers()
        first = [("function", name) for name in rewards]
        self.pool = Pool(workers, deadline, first)
        try:
            for request in first:
                check(self.pool.ask(0, *request).result(), f"reward={request[1]}")
            self.worlds = self._worlds(env)
        except BaseException:
            self.pool.close()
            raise
        self.rewards = Rewards(rewards, weights, self.pool, self.answers, self.ledger)

    def _worlds(self, env: Any) -> Worlds | None:
        if not isinstance(env, HostWorld):
            return None
        is_game = bool(env.world) and check(
            self.pool.ask(0, "is_game", env.world).result(), f"env={env.world}"
        )
        return Worlds(env, is_game, self.pool, self.answers, self.ledger)

    def starts(self, states: Any) -> list[dict[str, Any]]:
        """What a world begins an episode of each prompt with."""
        found = []
        for state in states.tolist():
            prompt, row = self.rows(state)
            row = row if prompt is None else row | {"prompt": prompt}
            found.append({"seed": state, "row": row})
        return found

    def heard(self, heard: Heard, lane: int) -> str:
        """The text of a lane's response."""
        tokens = np.asarray(heard.response)[lane, : heard.written[lane]]
        return self.write.text(tokens[:-1] if heard.ended[lane] else tokens)

    def ask(self, half: Half, group_size: int, place: Place) -> list[list[Asked]]:
        """The calls that judge what was played, of each group; does not wait."""
        if not self.rewards.functions:
            return []
        state = {"global_step": place.iteration, "max_steps": place.last}
        role = "user" if self.worlds is None or self.worlds.is_game else "tool"
        calls = []
        for p, told in enumerate(half.prompts):
            prompt, fields = self.rows(jax.tree.map(lambda x: x[p], half.states))  # noqa: B023
            prompt = told if prompt is None else prompt
            samples = range(p * group_size, (p + 1) * group_size)
            group = [jax.tree.map(lambda x: x[i], half.record) for i in samples]  # noqa: B023
            columns = {name: [value] * group_size for name, value in fields.items()}
            columns |= {
                "prompts": [prompt] * group_size,
                "completions": [conversation(self.write, one, prompt, role) for one in group],
                "completion_ids": [_after_prompt(one) for one in group],
            }
            episode = (half.first + p) * group_size
            calls.append(self.rewards.ask(place.seed, place.iteration, episode, columns, state))
        return calls

    def judge(self, calls: list[list[Asked]], count: int) -> tuple[np.ndarray, np.ndarray]:
        """(reward float32 [N], masked bool [N]) of what was asked; waits for it."""
        if not calls:
            return np.zeros(count, np.float32), np.zeros(count, bool)
        reward, masked = zip(*map(self.rewards.judge, calls), strict=True)
        return np.concatenate(reward), np.concatenate(masked)

    def paid(self, record: Episodes, reward: Any, masked: Any) -> Episodes:
        """A record whose episodes are worth `reward` [N], in a world beside what that paid."""
        return with_rewards(record, reward, masked, self.worlds is not None)

    def close(self) -> None:
        self.pool.close()


def check(reply: Reply, who: str) -> Any:
    """The value of an answer to a first question; ValueError for any other."""
    if reply.kind != "ok":
        raise ValueError(f"{who}: {reply.value}.")
    return reply.value


def take_turns(parts: Sequence[Iterator[Any]]) -> None:
    """Go on with each of them in turn until all are over."""
    left = deque(parts)
    while left:
        part = left.popleft()
        if next(part, None) is not None:
            left.append(part)


def conversation(write: Transcriber, one: Episodes, prompt: Any, role: str) -> Any:
    """What was said after a prompt: a text, or where that is a list of messages, a list too.

    What an environment says is of this role.
    """
    length = int(one.length)
    token, action, turn = (np.asarray(x)[:length] for x in (one.token, one.action, one.turn))
    messages = []
    for t in range(int(one.played.sum())):
        if t:
            text = write.observation(token[(turn == t) & ~action])
            messages.append({"role": role, "content": text})
        text = write.text(said(token[(turn == t) & action], bool(one.cut[t])))
        messages.append({"role": "assistant", "content": text})
    if isinstance(prompt, list):
        return messages
    return "\n".join(message["content"] for message in messages)


def _after_prompt(one: Episodes) -> list[int]:
    """The tokens after the prompt, what the environment said among them."""
    return np.asarray(one.token)[int(one.action.argmax()) : int(one.length)].tolist()


def with_rewards(record: Episodes, reward: Any, masked: Any, adds: bool) -> Episodes:
    """A record whose episodes are paid `reward` [N] at their end, beside their own or instead."""
    last = jnp.maximum(record.num_turns - 1, 0)
    own = record.reward if adds else jnp.zeros_like(record.reward)
    row = jnp.arange(len(last), dtype=jnp.int32)
    paid = own.at[row, last].add(reward)
    masked = jnp.asarray(masked)
    return record.replace(reward=jnp.where(masked[:, None], 0.0, paid), masked=masked)

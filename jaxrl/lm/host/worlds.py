"""Worlds and tools that Python answers for, turn by turn of an episode.

A world is a game, with reset(seed=..) and step(text) as gem's environments have them, or a class
whose public methods are tools, with reset(**row) and get_reward() as TRL's `environment_factory`.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxrl.host_world import HostWorld
from jaxrl.lm.host import tools
from jaxrl.lm.host.answers import Answers, Where
from jaxrl.lm.host.ledger import Ledger
from jaxrl.lm.host.pool import Pool, Reply
from jaxrl.text.tool_forms import FORMS, ToolForm

OPENING = -2  # the turn of a call about an episode's beginning


@dataclass(frozen=True)
class Place:
    """Where in a run something is played."""

    seed: int
    iteration: int
    last: int  # iteration of the run


@dataclass
class Episode:
    """One that is being played: where it began, and what it has seen."""

    index: int  # in the whole iteration
    start: dict[str, Any]
    past: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)  # (action, answer)


class Asked(NamedTuple):
    """A call about one turn."""

    episode: Episode
    where: Where
    action: Any
    reply: Reply | Future[Reply]


class Answer(NamedTuple):
    """What the model hears, and what its turn was worth."""

    obs: str
    reward: float
    terminated: bool
    truncated: bool
    masked: bool


@dataclass
class Worlds:
    """The host's part of a `HostWorld`."""

    env: HostWorld
    is_game: bool  # it takes texts; else calls of tools are read from them
    pool: Pool
    answers: Answers
    ledger: Ledger

    @property
    def name(self) -> str:
        """For messages."""
        return f"env={self.env.world}" if self.env.world else f"tools={' '.join(self.env.tools)}"

    def open(self, place: Place, first: int, starts: list[dict[str, Any]]) -> list[str]:
        """What is said first in groups of episodes that begin there; waits.

        Every `start` knows it from then on. ValueError where a world cannot begin.
        """
        if not self.env.world:
            return [""] * len(starts)
        calls = []
        for number, start in enumerate(starts):
            where = Where(place.seed, place.iteration, first + number, OPENING, self.env.world)
            fields = dict(self.env.fields)
            known = self.answers.get(where, start)
            asked = dict(start)
            calls.append((where, asked, known or self.pool.ask(
                first + number, "open", self.env.world, fields, start)))  # fmt: skip
        new = []
        for start, (where, asked, reply) in zip(starts, calls, strict=True):
            if isinstance(reply, Future):
                reply = reply.result()
                new.append((where, asked, reply))
            if reply.kind != "ok":
                raise ValueError(f"{self.name} cannot begin: {reply.value}.")
            start["told"] = reply.value
        self.answers.keep(new)
        return [start["told"] for start in starts]

    def ask(self, place: Place, episode: Episode, said: str) -> Asked:
        """Have a turn answered; does not wait."""
        turn = len(episode.past)
        where = Where(place.seed, place.iteration, episode.index, turn, self.env.world)
        action = said if self.is_game else tools.calls(said)
        if not self.is_game:
            self.ledger.add("tool_calls", len(action))
        if not action and not self.env.world:  # nobody is there to ask
            return Asked(episode, where, action, Reply("ok", OVER))
        reply = self.answers.get(where, self.question(episode, action))
        if reply is None:
            key = (place.seed, place.iteration, episode.index)
            world = (self.env.world, dict(self.env.fields), self.env.tools)
            last = turn + 1 >= self.env.turns
            reply = self.pool.ask(
                episode.index, "step", key, world, episode.start, list(episode.past), action, last
            )
        return Asked(episode, where, action, reply)

    def question(self, episode: Episode, action: Any) -> Any:
        return [episode.start, [before for before, _ in episode.past], action]

    def settle(self, asked: list[Asked]) -> list[Answer]:
        """What came of these calls; waits. One that failed ends its episode, which is masked."""
        told, new = [], []
        for call in asked:
            reply = call.reply
            if isinstance(reply, Future):
                reply = reply.result()
                new.append((call.where, self.question(call.episode, call.action), reply))
            if reply.kind != "ok":
                self.ledger.fail(self.name, reply)
                told.append(Answer("", 0.0, True, False, True))
                continue
            self.ledger.worked.add(self.name)
            told.append(self.answer(call.episode, call.action, reply.value))
        self.answers.keep(new)
        return told

    def answer(self, episode: Episode, action: Any, found: dict[str, Any]) -> Answer:
        episode.past.append((action, found))
        over = found["terminated"] or found["truncated"]
        out_of_turns = len(episode.past) >= self.env.turns and not over
        for name, value in found.get("metrics", {}).items():
            if name != "success" or over or out_of_turns:
                self.ledger.add(name, value)
        obs = found["obs"]
        if not self.is_game:
            obs = gave(FORMS[self.env.tool_form], obs, self.env.answer_bytes)
        terminated = found["terminated"] or (out_of_turns and not self.env.truncates)
        truncated = (found["truncated"] or out_of_turns) and not terminated
        if truncated and not self.env.truncates:
            terminated, truncated = True, False
        return Answer(obs, found["reward"], terminated, truncated, False)


def gave(form: ToolForm, texts: list[str], most: int) -> str:
    """What calls gave, in so many bytes; where that is too long the ends of texts are left out."""
    room, shown = max(map(len, texts), default=0), texts
    while room and len(form.results(shown).encode()) > most:
        room = room * 7 // 8
        shown = [x if len(x) <= room else x[: max(room - 3, 0)] + "..."[:room] for x in texts]
    return form.results(shown)


OVER = {"obs": [], "reward": 0.0, "terminated": True, "truncated": False}

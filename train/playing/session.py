"""One page's game: a list of moments, of which the last is now."""

import secrets
import threading
from collections import OrderedDict, deque
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxrl.metrics import hidden
from jaxrl.printable import printable
from jaxrl.spaces import LEGAL, Discrete
from jaxrl.text import Text, to_str
from jaxrl.train.playing import values
from jaxrl.train.playing.players import Moment, Move
from jaxrl.train.playing.world import World, Worlds, place

MOST_MOMENTS, MOST_BYTES = 2000, 2**26  # of a session, to go back to
MOST_SESSIONS = 32
SEEDS = 2**32
ENDS = {
    (True, False): "terminated: The task itself ended. Nothing can follow, so the value of this "
    "observation is 0.",
    (False, True): "truncated: The clock ended it, not the task. More could have followed, so the "
    "value of this observation still counts.",
    (True, True): "terminated and truncated in one step: The task ended, which decides. The value "
    "of this observation is 0.",
}


class Gone(ValueError):
    """A session that newer ones have pushed out, or that never was."""


class Session:
    """A game in a world; every method answers with what the page shows."""

    def __init__(self, world: World):
        self.world, self.lock = world, threading.Lock()
        self.past: deque[Moment] = deque(maxlen=MOST_MOMENTS)
        self.lines = 0  # resets and steps that the log holds

    @property
    def now(self) -> Moment:
        return self.past[-1]

    def reset(self, seed: Any = None) -> dict[str, Any]:
        """Begin episode 0 of a seed, or without one the next episode of the same seed."""
        if seed is not None and not (type(seed) is int and 0 <= seed < SEEDS):
            raise ValueError(f"seed={seed!r:.40} must be an integer from 0 to {SEEDS - 1}; try 0.")
        if seed is None and not self.past:
            seed = 0
        given = "" if seed is None else f"seed={seed}"
        where = (self.now.seed, self.now.episode + 1) if seed is None else (seed, 0)
        state, ts, picture = self.world.begin(*place(*where))
        begin = () if self.world.pilot is None else self.world.pilot.begin
        moment = Moment(state, None, *where, memory=begin)
        return self._add(moment, f"obs, info = env.reset({given})", ts, picture)

    def step(self, action: Any = None, player: Any = None) -> dict[str, Any]:
        """A step with an action of the page's, or with one that a player draws."""
        now, world = self.now, self.world
        if now.done:
            raise ValueError("The episode is over; begin the next one with env.reset().")
        if player is None:
            move = Move(values.given(world.spaces[1], action))
        elif isinstance(player, str) and player in world.players:
            key = world.draw_key(*place(now.seed, now.episode, now.t))
            move = world.players[player].move(self._episode(), key)
        else:
            known = ", ".join(world.players)
            raise ValueError(f"player={player!r:.40} is none here; try one of {known or 'none'}.")
        where = place(now.seed, now.episode, now.t + 1)
        state, ts, picture = world.advance(now.state, move.action, *where)
        moment = replace(now, state=state, t=now.t + 1, memory=self._memory(now))
        moment = replace(moment, action=self._named(move.action), said=self._said(move))
        words = values.literal_of(world.spaces[1], move.action)
        call = f"obs, reward, terminated, truncated, info = env.step({words})"
        return self._add(moment, call, ts, picture)

    def undo(self) -> dict[str, Any]:
        """Go back to the moment before, an episode's end among them."""
        if len(self.past) < 2:
            kept = f"; the last {len(self.past)} moments are kept" if self.lines > 1 else ""
            raise ValueError(f"There is nothing to go back to{kept}.")
        self.past.pop()
        self.lines -= 1
        return self.view(self.world.look(self.now.state))

    def _add(self, moment: Moment, call: str, ts: Any, picture: Any) -> dict[str, Any]:
        obs, reward, terminated, truncated, metrics, picture = jax.device_get(
            (ts.obs, ts.reward, ts.terminated, ts.truncated, ts.metrics, picture)
        )
        moment = replace(
            moment,
            obs=obs,
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            metrics={k: float(x) for k, x in sorted(metrics.items()) if not hidden(k)},
            total=moment.total + float(reward),
            call=call,
            heard=self._heard(obs, moment.t),
        )
        if not self.past:  # the first one tells how many there is room for
            size = sum(x.nbytes for x in jax.tree.leaves((moment.state, obs)))
            most = min(MOST_MOMENTS, max(MOST_BYTES // max(size, 1), 16))
            self.past = deque(maxlen=most)
        self.past.append(moment)
        self.lines += 1
        return self.view(picture)

    def _episode(self) -> list[Moment]:
        """The moments since the last reset."""
        return list(self.past)[-(self.now.t + 1) :]

    def _memory(self, now: Moment) -> Any:
        """A recurrent policy's after now, whoever acts."""
        pilot = self.world.pilot
        if pilot is None or not jax.tree.leaves(now.memory):
            return now.memory
        return pilot.remember(now.memory, now.obs)

    def _named(self, action: Any) -> str:
        """In words where there are some."""
        names, space = self.world.env.action_names, self.world.spaces[1]
        if isinstance(space, Discrete) and names:
            return f"{int(action)} {names[int(action)]}"
        return printable(to_str(action)) if isinstance(action, Text) else values.brief(action)

    def _heard(self, obs: Any, t: int) -> tuple[int, ...]:
        chat = self.world.chat
        if chat is None:
            return ()
        piece = chat.chat.next_piece if t else chat.chat.first_piece
        return tuple(chat.user(piece, to_str(obs)))

    def _said(self, move: Move) -> tuple[int, ...]:
        chat = self.world.chat
        if chat is None or move.said is not None:
            return move.said or ()
        return tuple(chat.response(to_str(move.action))[:-1])

    def view(self, picture: Any = None) -> dict[str, Any]:
        """What the page shows now; `line` is what the log ends with."""
        now, space = self.now, self.world.spaces[0]
        small = values.drawn(space, now.obs) if picture is None else np.asarray(picture)
        legal = now.obs.get(LEGAL) if isinstance(now.obs, dict) else None
        line = {
            "call": now.call,
            "obs": values.brief(now.obs),
            "action": now.action,
            "reward": now.reward,
            "terminated": now.terminated,
            "truncated": now.truncated,
            "info": now.metrics,
            "t": now.t,
        }
        return {
            "line": line,
            "lines": self.lines,
            "back": len(self.past) - 1,
            "seed": now.seed,
            "episode": now.episode,
            "return": now.total,
            "end": ENDS.get((now.terminated, now.truncated), ""),
            "frame": None if small is None else values.png(small),
            "small": picture is None,
            "rows": values.rows(space, now.obs),
            "legal": None if legal is None or legal.ndim != 1 else legal.tolist(),
            "talk": self._talk() if isinstance(now.obs, Text) else None,
        }

    def _talk(self) -> dict[str, Any]:
        """The episode as texts, and the newest tokens as an agent has them."""
        chat, episode = self.world.chat, self._episode()
        assert chat is not None

        def spelled(ids: tuple[int, ...]) -> list[tuple[int, str]]:
            words = chat.words
            known = (words[min(i, len(words) - 1)] for i in ids)
            texts = (printable(word.decode("utf-8", "backslashreplace"), keep="") for word in known)
            return list(zip(ids, texts, strict=True))

        turns = [
            {"obs": printable(to_str(m.obs)), "action": m.action, "reward": m.reward}
            for m in episode[-100:]
        ]
        count = sum(len(m.heard) + len(m.said) + bool(m.t) for m in episode)
        return {
            "turns": turns,
            "said": spelled(self.now.said),
            "heard": spelled(self.now.heard),
            "tokens": count,
        }


class Sessions:
    """Every page's game by its name; the one that rested longest goes when there are too many."""

    def __init__(self, worlds: Worlds):
        self.worlds = worlds
        self._found: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, id: str) -> tuple[str, Session]:
        """A new game, before its first reset."""
        session, name = Session(self.worlds.of(id)), secrets.token_urlsafe(12)
        with self._lock:
            self._found[name] = session
            while len(self._found) > MOST_SESSIONS:
                self._found.popitem(last=False)
        return name, session

    def of(self, name: Any) -> Session:
        """The game of this name; Gone where there is none any more."""
        with self._lock:
            if not isinstance(name, str) or name not in self._found:
                raise Gone(
                    f"This game is no longer kept (the newest {MOST_SESSIONS} are); load the page "
                    "again."
                )
            self._found.move_to_end(name)
            return self._found[name]

"""An environment with its compiled programs, which all who play in it share."""

import inspect
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import envs, spaces
from jaxrl.config import LARGEST
from jaxrl.env import Environment, Wrapper
from jaxrl.host.environment import HostEnvironment
from jaxrl.host_world import HostWorld
from jaxrl.language import LanguageEnvironment
from jaxrl.lm import folders
from jaxrl.lm.host_chat import HostChat
from jaxrl.train import flags, language
from jaxrl.train.playing import players, values
from jaxrl.train.playing.players import jit

MOST_WORLDS = 8  # named by pages, that stay compiled
OF_PLAYERS = LARGEST  # folded into the key of a step, for who draws the action


class World:
    """One environment; ValueError for one that Python steps, whose states are no values.

    The reset and the steps of an episode draw from fold_in(fold_in(key(seed), episode), t), t =
    0, 1, ..., as those of `envs.to_gymnasium` do: the calls in the log give the same episodes.
    """

    def __init__(self, id: str, env: Environment, fields: Mapping[str, Any], pilot: Any = None):
        if isinstance(env, HostEnvironment | HostWorld):
            raise ValueError(
                f"env={id} is stepped by Python, which cannot go back to an earlier state; try "
                "GridWorld-v0."
            )
        self.id, self.env, self.fields = id, env, fields
        self.spaces = env.observation_space, env.action_space  # which are computed when asked for
        self.note = "" if pilot is None else pilot.unfit(id, env)
        self.pilot = None if self.note else pilot
        self.players = players.scripted(env)
        if self.pilot is not None:
            self.players |= self.pilot.players
        self.begin, self.advance = jit(self._begin), jit(self._advance)
        self.look = jit(self._look)
        self.draw_key = jit(lambda *place: jax.random.fold_in(_key(*place), OF_PLAYERS))
        self._warming, self._warm = threading.Lock(), False

    def _begin(self, seed: jax.Array, episode: jax.Array) -> tuple[Any, Any, Any]:
        state, ts = self.env.reset(_key(seed, episode, jnp.zeros((), jnp.int32)))
        return state, ts, self._look(state)

    def _advance(
        self, state: Any, action: Any, seed: jax.Array, episode: jax.Array, t: jax.Array
    ) -> tuple[Any, Any, Any]:
        state, ts = self.env.step(state, action, _key(seed, episode, t))
        return state, ts, self._look(state)

    def _look(self, state: Any) -> Any:
        """The state's picture; None of an environment that draws none."""
        try:
            return self.env.render(state)
        except ValueError:
            return None

    def warm(self) -> None:
        """Compile what a step needs, once."""
        with self._warming:
            if self._warm:
                return
            state, ts, _ = self.begin(*place(0, 0))
            obs, key = jax.device_get(ts.obs), self.draw_key(*place(0, 0, 0))
            for player in self.players.values():
                player.warm(state, obs, self.draw_key(*place(0, 0, 0)))
            if self.pilot is not None and self.pilot.chat is None:
                self.pilot.remember(self.pilot.begin, obs)
            shapes = jax.eval_shape(lambda key: spaces.sample(self.spaces[1], key), key)
            action = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
            jax.block_until_ready(self.advance(state, action, *place(0, 0, 1)))
            self.look(state)
            self._warm = True

    @cached_property
    def chat(self) -> HostChat | None:
        """The conversation in which an agent hears a language environment: a run's, or of bytes."""
        if not isinstance(self.env, LanguageEnvironment):
            return None
        return HostChat(folders.chat_tokenizer(None)) if self.pilot is None else self.pilot.chat

    @cached_property
    def _rules(self) -> type:
        """The class that states them: without wrappers, and of a suite's game the suite's."""
        env = self.env
        while isinstance(env, Wrapper):
            env = env.env
        return type(getattr(env, "game", env))

    def described(self) -> dict[str, Any]:
        """What the page shows of it before its first step."""
        limit = getattr(self.env, "max_steps", None)
        fields = "".join(f", {name}={value!r}" for name, value in self.fields.items())
        return {
            "id": self.id,
            "python": f'env = envs.to_gymnasium("{self.id}"{fields})',
            "about": inspect.getdoc(self._rules) or "",
            "limit": None if limit is None or limit == LARGEST else int(limit),
            "inputs": values.inputs(self.spaces[1], self.env.action_names),
            "players": {name: player.label for name, player in self.players.items()},
            "note": self.note,
            "file": "" if self._file is None else "/".join(self._file.parts[-3:]),
        }

    @cached_property
    def _file(self) -> Path | None:
        try:
            file = inspect.getsourcefile(self._rules)
        except (TypeError, OSError):
            return None
        return None if file is None else Path(file)

    def source(self) -> str:
        """The text of that file."""
        return "" if self._file is None else self._file.read_text(encoding="utf-8")


def place(seed: int, *counts: int) -> tuple[Any, ...]:
    """(seed, episode) or (seed, episode, t) as the programs take them."""
    return np.uint32(seed), *map(np.int32, counts)


def _key(seed: jax.Array, episode: jax.Array, t: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), episode), t)


@dataclass(frozen=True)
class _Asked:
    """What `language.complete` reads: a person plays, who knows words."""

    env: str
    env_args: tuple[str, ...]
    model: ClassVar[str] = ""
    init_from: ClassVar[None] = None


def fields_for_people(id: str, pairs: Sequence[str] = ()) -> dict[str, Any]:
    """An environment's fields of NAME=VALUE, told in words where it can be."""
    return flags.parse_fields(language.complete(_Asked(id, tuple(pairs))).env_args)


def make_world(id: str, fields: dict[str, Any], pilot: Any = None) -> World:
    """The world of an id; ValueError where there is none."""
    return World(id, envs.make(id, **fields), fields, pilot)


class Worlds:
    """The world of the command line, and those that pages name in their addresses."""

    def __init__(self, first: World, pilot: Any = None):
        self.first, self.pilot = first, pilot
        self._made: OrderedDict[str, World] = OrderedDict()
        self._making = threading.Lock()

    def of(self, id: str) -> World:
        """The world of an id, compiled; ValueError for one that a page may not ask for."""
        world = self.first if id in ("", self.first.id) else self._named(id)
        world.warm()
        return world

    def _named(self, id: str) -> World:
        with self._making:
            if id not in self._made:
                _check_listed(id)
                self._made[id] = make_world(id, fields_for_people(id), self.pilot)
            self._made.move_to_end(id)
            while len(self._made) > MOST_WORLDS:
                self._made.popitem(last=False)
            return self._made[id]


def _check_listed(id: str) -> None:
    """For an address nothing is imported that is not listed, and nothing fetched."""
    if ":" in id:
        raise ValueError(f"env={id} names a module; start with python -m train.play --env {id}.")
    spec = envs.spec(id)
    if spec.downloads or spec.needs:
        what = f"downloads {spec.downloads}" if spec.downloads else f"needs {spec.needs}"
        raise ValueError(f"env={id} {what}; start with python -m train.play --env {id}.")

"""pgx's games (arXiv:2303.17503) behind our contract; conformance: tests/test_envs_pgx.py.

The learner has one seat, drawn at reset; whoever sits in the others moves inside `step`, and at
reset where the learner does not begin. So every observation but the last of a game is one in which
the learner is to move, and it is the learner's own view: cards of others are not in it.
"""

import functools
import warnings
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import opponents
from jaxrl.env import Environment, TimeStep, static, timestep
from jaxrl.envs.bridges.avals import like, strong
from jaxrl.envs.fields import Field, check_fields, check_max_steps
from jaxrl.spaces import LEGAL, Box, Discrete, Space
from jaxrl.wrappers import TimeLimit, tree_where

GAMES = (  # of two players or more, of what pgx 2.6.0 makes
    "animal_shogi",
    "backgammon",
    "chess",
    "connect_four",
    "gardner_chess",
    "go_19x19",
    "go_9x9",
    "hex",
    "kuhn_poker",
    "leduc_holdem",
    "othello",
    "shogi",
    "sparrow_mahjong",  # three
    "tic_tac_toe",
)
ALONE = (
    "2048",
    "minatar-asterix",
    "minatar-breakout",
    "minatar-freeway",
    "minatar-seaquest",
    "minatar-space_invaders",
)
MAX_STEPS = {  # the learner's, where the rules may never end a game; all others end theirs
    "backgammon": 1000,
    "minatar-asterix": 1000,
    "minatar-breakout": 1000,
    "minatar-freeway": 2500,  # its own clock, which pgx reports as an end
    "minatar-seaquest": 1000,
    "minatar-space_invaders": 1000,
}
DOWNLOADS: dict[str, str] = {}
LANGUAGE = False
NEEDS = {name: "opponent=random" for name in GAMES}
MENDS = (
    "The moves of the other players are made inside a step, so that a game is an environment of "
    "one agent; the last observation is the learner's view, where pgx shows that of the player "
    "whose turn it would be; games that may never end have a time limit."
)


class Seated(flax.struct.PyTreeNode):
    """A game and the learner's place in it."""

    game: Any  # pgx's state, without its observation
    seat: jax.Array  # int32 []


class Pgx(Environment):
    """A pgx game; `success` and `draw` are how it ended for the learner, who wins more than 0."""

    game: Any = static(None)  # pgx's environment object, or one of that form
    opponent: Any = None  # see jaxrl.opponents; None where the learner is alone

    @property
    def observation_space(self) -> Space:
        return _spaces(self.game)[0]

    @property
    def action_space(self) -> Discrete:
        return _spaces(self.game)[1]

    def reset(self, key: jax.Array) -> tuple[Seated, TimeStep]:
        game_key, seat_key, play_key = jax.random.split(key, 3)
        seat = jax.random.randint(seat_key, (), 0, self.game.num_players, jnp.int32)
        state = _bare(strong(self.game.init(game_key)))
        if self.game.num_players > 1:
            # Of three players two may end a game before the third has moved: it gets another one.
            again = self.game.num_players > 2
            state, _ = self._until_turn(state, seat, play_key, again)
        return Seated(state, seat), timestep(self._observe(state, seat), metrics=self._result(0, 0))

    def step(self, state: Seated, action: Any, key: jax.Array) -> tuple[Seated, TimeStep]:
        move_key, play_key = jax.random.split(key)
        game, reward = self._move(state.game, state.seat, action, move_key)
        if self.game.num_players > 1:
            game, more = self._until_turn(game, state.seat, play_key)
            reward += more
        # The barrier keeps XLA from fusing the game into each of its readers: see gymnax's bridge.
        game, reward = jax.lax.optimization_barrier((game, reward))
        over, obs = game.terminated, self._observe(game, state.seat)
        metrics = self._result(over & (reward > 0), over & (reward == 0))
        return state.replace(game=game), timestep(obs, reward, over, metrics=metrics)

    def _result(self, success: Any, draw: Any) -> dict[str, Any]:
        return {"success": success, "draw": draw} if self.game.num_players > 1 else {}

    def _move(self, game: Any, seat: jax.Array, action: Any, key: jax.Array) -> tuple[Any, Any]:
        """(the game after an action of whose turn it is, what the learner's seat got for it)."""
        moved = like(_bare(self.game.step(game, action, key)), game)
        return moved, moved.rewards[seat]

    def _until_turn(
        self, game: Any, seat: jax.Array, key: jax.Array, again: bool = False
    ) -> tuple[Any, jax.Array]:
        """(the game once it is over or the seat's turn, what the seat got in between).

        With `again`, one that is over is followed by another.
        """

        def others_turn(carry):
            game, _, _ = carry
            return (game.current_player != seat) & ~game.terminated | (game.terminated & again)

        def move(carry):
            game, reward, t = carry
            choice_key, move_key, fresh_key = jax.random.split(jax.random.fold_in(key, t), 3)
            obs = self._observe(game, game.current_player)
            moved, more = self._move(game, seat, self.opponent(obs, choice_key), move_key)
            if again:
                fresh = like(_bare(self.game.init(fresh_key)), moved)
                moved = tree_where(moved.terminated, fresh, moved)
            return moved, reward + more, t + 1

        start = game, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        return jax.lax.while_loop(others_turn, move, start)[:2]

    def _observe(self, game: Any, seat: jax.Array) -> dict[str, jax.Array]:
        # pgx's public `observe` takes a seat with a warning that it will not any more.
        return {"observation": self.game._observe(game, seat), LEGAL: game.legal_action_mask}

    def render(self, state: Seated) -> jax.Array:
        raise ValueError(
            f"{self.game.id} is drawn by pgx as SVG, which nothing here makes pixels of; watch a "
            "run of another suite, or call pgx's own save_svg with state.game."
        )


def _bare(state: Any) -> Any:
    """The state without pgx's copy of the observation, as large as the rest of it."""
    return state.replace(observation=())


@functools.cache
def _spaces(game: Any) -> tuple[dict[str, Box], Discrete]:
    """Of the learner's observations and actions."""
    shown = jax.eval_shape(game.init, jax.random.key(0))
    seen, num_actions = shown.observation, shown.legal_action_mask.shape[0]
    low, high = (-15, 15) if jnp.issubdtype(seen.dtype, jnp.integer) else (0, 1)  # stones, or parts
    dtype = np.dtype(seen.dtype)
    box = Box(np.asarray(low, dtype), np.asarray(high, dtype), seen.shape, dtype)
    legal = Box(False, True, (num_actions,), np.bool_)
    return {"observation": box, LEGAL: legal}, Discrete(num_actions)


def ids() -> tuple[str, ...]:
    return (*GAMES, *ALONE)


def make(name: str, *, max_steps: Any = ..., **fields: Any) -> Environment:
    """pgx's `name`; `opponent` says who plays the others, see `jaxrl.opponents.chosen`.

    `max_steps` counts the learner's moves; by default it is that of MAX_STEPS. None: no limit.
    """
    id = f"pgx/{name}"
    max_steps = MAX_STEPS.get(name) if max_steps is ... else max_steps
    check_max_steps(id, max_steps)
    fields = check_fields(id, fields, {"opponent": Field(None, None)} if name in GAMES else {})
    opponent = fields.get("opponent")
    if name in GAMES and opponent is None:
        raise ValueError(
            f"{id} is a game of several players; opponent= must say who plays the others: "
            f"{opponents.CHOICES}; try opponent=random."
        )
    env = Pgx(_game(name))
    if name in GAMES:
        env = env.replace(opponent=opponents.chosen(id, opponent, env))
    return env if max_steps is None else TimeLimit(env, max_steps)


@functools.cache  # equal structure is one object, so that jit does not compile again
def _game(name: str) -> Any:
    """pgx's environment object."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what it imports
            import pgx
    except ImportError as error:
        raise ImportError(f"pgx/{name} needs pgx: pip install 'jaxrl[pgx]' ({error}).") from error
    return pgx.make(name)

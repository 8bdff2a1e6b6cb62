"""TowerofHanoi, the rules of gem-llm 0.1.0: all disks from A to C, none on a smaller one."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import TimeStep, check_numbers, static
from jaxrl.envs.language.game import MOST_TURNS, Game
from jaxrl.text import Template, Text, select
from jaxrl.text.patterns import boxed
from jaxrl.text.text import pack

RANDOM_LEVELS = np.asarray([(3, 10), (4, 20), (5, 35)], np.int32)  # disks, turns
MOVE = r"[ABCabc]\s*,?\s*[ABCabc]"


class State(flax.struct.PyTreeNode):
    peg: jax.Array  # int32 [disks]: where each disk is, the smallest first; 0, 1, 2 for A, B, C
    disks: jax.Array  # int32 []: how many of them the episode has
    limit: jax.Array  # int32 []: turns of this episode
    turn: jax.Array  # int32 []: turns taken


class TowerofHanoi(Game):
    r"""A response names the peg to move from and the one to move to, as `\boxed{AC}`.

    Reward 1 for the solution, 0 for any other move, legal or not; the last turn pays the share of
    the disks that stand on C. From a peg to itself is a legal move. With `random_level` each
    episode has 3, 4 or 5 disks, and 10, 20 or 35 turns. Pegs are shown as `321||`, `32||1`.
    """

    disks: int = static(3)
    turns: int = static(10)
    random_level: bool = static(False)

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, disks=(1, 9), turns=(1, MOST_TURNS))

    @property
    def most(self) -> int:
        """Most disks that an episode can have."""
        return int(RANDOM_LEVELS[-1, 0]) if self.random_level else self.disks

    @property
    def max_turns(self) -> int:
        return int(RANDOM_LEVELS[-1, 1]) if self.random_level else self.turns

    @property
    def task(self) -> Template:
        widest = {"pegs": "9" * self.most + "||", "turns": self.max_turns}
        return Template(r"{pegs} all to C, {turns} turns: \boxed{{AC}}", widest)

    @property
    def feedback(self) -> tuple[str | Template, ...]:
        pegs = {"pegs": "9" * self.most + "||"}
        return "no move", "right", Template("{pegs}", pegs), Template("no {pegs}", pegs)

    @property
    def response(self) -> Template:
        return Template(r"\boxed{{{source}{goal}}}", {"source": "A", "goal": "C"})

    def reset(self, key: jax.Array) -> tuple[State, TimeStep]:
        level = jnp.asarray([self.disks, self.turns], jnp.int32)
        if self.random_level:
            level = jax.random.choice(key, jnp.asarray(RANDOM_LEVELS))
        zero = jnp.zeros((), jnp.int32)
        state = State(jnp.zeros(self.most, jnp.int32), level[0], level[1], zero)
        return state, self.opening(pegs=self.shown(state), turns=state.limit)

    def step(self, state: State, action: Text, key: jax.Array) -> tuple[State, TimeStep]:
        del key  # the dynamics are deterministic
        move = boxed(MOVE, action)
        letters = move.payload.bytes
        # The low five bits of a letter are its place in the alphabet, whatever its case.
        source, goal = (
            (letters[i] & 31).astype(jnp.int32) - 1 for i in (0, move.payload.length - 1)
        )
        top = self.tops(state)
        legal = move.found & (top[source] < self.most) & (top[goal] >= top[source])
        at = jnp.where(legal, top[source], self.most)
        state = state.replace(peg=state.peg.at[at].set(goal, mode="drop"), turn=state.turn + 1)
        done = jnp.sum((state.peg == 2) & self.exists(state))
        won = legal & (done == state.disks)
        last = state.turn >= state.limit
        reward = jnp.where(won, 1.0, jnp.where(last, done / state.disks, 0.0))
        answer = jnp.where(move.found, jnp.where(won, 1, jnp.where(legal, 2, 3)), 0)
        obs = self.answer(answer, pegs=self.shown(state))
        return state, self.turn(obs, reward, malformed=~move.found, won=won, over=last)

    def exists(self, state: State) -> jax.Array:
        """bool [most]: this disk is in the game."""
        return jnp.arange(self.most) < state.disks

    def on(self, state: State) -> jax.Array:
        """bool [3, most]: this disk is on this peg."""
        return (state.peg == jnp.arange(3)[:, None]) & self.exists(state)

    def tops(self, state: State) -> jax.Array:
        """int32 [3]: the smallest disk of each peg, `most` where it is empty."""
        return jnp.min(jnp.where(self.on(state), jnp.arange(self.most), self.most), 1)

    def shown(self, state: State) -> Text:
        """The disks of each peg from its foot up, 1 the smallest."""
        digits = np.arange(self.most, 0, -1) + ord("0")
        rows = np.concatenate([np.tile(digits, (3, 1)), np.full((3, 1), ord("|"))], 1)
        shown = jnp.pad(self.on(state)[:, ::-1], ((0, 0), (0, 1)), constant_values=True)
        places = rows.size - 1  # no bar after the last peg
        length = shown.ravel()[:places].astype(jnp.int32)
        return pack(jnp.asarray(rows.ravel()), np.arange(places), length, self.most + 2)

    def expert(self, state: State, key: jax.Array) -> Text:
        """The shortest solution from wherever the disks are."""
        del key
        source, goal, needed = jnp.asarray([0, 0, 2], jnp.int32)
        for disk in reversed(range(self.most)):  # where each disk must be for the larger to move
            peg = state.peg[disk]
            away = (disk < state.disks) & (peg != needed)
            source = jnp.where(away, peg, source)
            goal = jnp.where(away, needed, goal)
            needed = jnp.where(away, 3 - peg - needed, needed)
        return self._say(source, goal)

    def random_player(self, state: State, key: jax.Array) -> Text:
        """Any legal move of a disk to another peg."""
        top = self.tops(state)
        legal = (top < self.most)[:, None] & (top > top[:, None])
        move = jax.random.categorical(key, jnp.where(legal, jnp.float32(0), -jnp.inf).ravel())
        return self._say(move // 3, move % 3)

    def _say(self, source: jax.Array, goal: jax.Array) -> Text:
        source_letter, goal_letter = (select(peg, ["A", "B", "C"]) for peg in (source, goal))
        return self.say(source=source_letter, goal=goal_letter)

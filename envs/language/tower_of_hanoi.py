"""TowerofHanoi, the rules of gem-llm 0.1.0: all disks from A to C, none on a smaller one."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import TimeStep, check_numbers, static
from jaxrl.envs.language.game import MOST_TURNS, Game
from jaxrl.text import Template, Text, concat, literal, render, select, where
from jaxrl.text.answers import Reading, ends, kept
from jaxrl.text.patterns import boxed, last_match
from jaxrl.text.text import pack

RANDOM_LEVELS = np.asarray([(3, 10), (4, 20), (5, 35)], np.int32)  # disks, turns
MOVE = r"[ABCabc]\s*,?\s*[ABCabc]"
BETWEEN = r"([ *_`]|peg|rod)*"
ARROW = r"(to|->|[^ -~\s]+)"  # the last is what is not ASCII, as an arrow
IN_WORDS = rf"[^A-Za-z0-9][ABC]({BETWEEN}{ARROW}{BETWEEN})?[ABC][^A-Za-z0-9]"
TERSE = r"{pegs} all to C, {turns} turns: \boxed{{AC}}"
WORDS = (
    "Three pegs A, B and C hold disks, of which 1 is the smallest. Bring all disks to peg C in at "
    "most {turns} turns. A turn moves the top disk of a peg to another peg, never onto a smaller "
    "disk. From the bottom up: {pegs}. Reply with only a move, such as: B to A"
)
SHOWN = "A {}, B {}, C {}"


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
        widest = self.widest | {"turns": self.max_turns}
        return Template(WORDS if self.in_words else TERSE, widest)

    @property
    def feedback(self) -> tuple[str | Template, ...]:
        pegs = self.widest
        if not self.in_words:
            return "no move", "right", Template("{pegs}", pegs), Template("no {pegs}", pegs)
        told, widest = "{pegs}. Turns left: {left}.", pegs | {"left": self.max_turns}
        return (
            "There is no move in that.",
            "Yes, all disks are on peg C.",
            Template(told, widest),
            Template("That is not allowed. " + told, widest),
        )

    @property
    def response(self) -> Template:
        move = "{source} to {goal}" if self.in_words else r"\boxed{{{source}{goal}}}"
        return Template(move, {"source": "A", "goal": "C"})

    @property
    def widest(self) -> dict[str, str]:
        """The longest text of the pegs."""
        three = ("9" * self.most, "none", "none")
        return {"pegs": SHOWN.format(*three) if self.in_words else "9" * self.most + "||"}

    def reset(self, key: jax.Array) -> tuple[State, TimeStep]:
        level = jnp.asarray([self.disks, self.turns], jnp.int32)
        if self.random_level:
            level = jax.random.choice(key, jnp.asarray(RANDOM_LEVELS))
        zero = jnp.zeros((), jnp.int32)
        state = State(jnp.zeros(self.most, jnp.int32), level[0], level[1], zero)
        return state, self.opening(pegs=self.shown(state), turns=state.limit)

    def step(self, state: State, action: Text, key: jax.Array) -> tuple[State, TimeStep]:
        del key  # the dynamics are deterministic
        source, goal, reading = self.read_move(action)
        top = self.tops(state)
        legal = reading.found & (top[source] < self.most) & (top[goal] >= top[source])
        at = jnp.where(legal, top[source], self.most)
        state = state.replace(peg=state.peg.at[at].set(goal, mode="drop"), turn=state.turn + 1)
        done = jnp.sum((state.peg == 2) & self.exists(state))
        won = legal & (done == state.disks)
        last = state.turn >= state.limit
        reward = jnp.where(won, 1.0, jnp.where(last, done / state.disks, 0.0))
        answer = jnp.where(reading.found, jnp.where(won, 1, jnp.where(legal, 2, 3)), 0)
        obs = self.answer(answer, pegs=self.shown(state), left=state.limit - state.turn)
        return state, self.turn(
            obs, reward, malformed=~reading.found, won=won, over=last, reading=reading
        )

    def read_move(self, action: Text) -> tuple[jax.Array, jax.Array, Reading]:
        r"""int32 [], int32 [], Reading: pegs from and to of the last `\boxed{AC}`.

        In words, without one, of the last `A to C`, `A -> C` or `AC` in capital letters; `peg`,
        marks and spaces may stand between.
        """
        move = boxed(MOVE, action)
        letter = move.payload.bytes[0], move.payload.bytes[move.payload.length - 1]
        found = formed = move.found
        if self.in_words:
            behind = last_match(IN_WORDS, action)
            place = jnp.arange(action.capacity, dtype=jnp.int32)
            peg = (action.bytes >= ord("A")) & (action.bytes <= ord("C")) & (place < behind)
            goal = jnp.max(jnp.where(peg, place, 0))
            source = jnp.max(jnp.where(peg & (place < goal), place, 0))
            said = action.bytes[source], action.bytes[goal]
            letter = jax.tree.map(lambda a, b: jnp.where(move.found, a, b), letter, said)
            found = (move.found | (behind >= 0)) & ~action.cut
            formed = found & ends(action, jnp.where(move.found, move.last, goal))
        # The low five bits of a letter are its place in the alphabet, whatever its case.
        source, goal = ((x & 31).astype(jnp.int32) - 1 for x in letter)
        text = concat([peg_name(source), peg_name(goal)], 2)
        return source, goal, Reading(text, found, formed)

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
        if self.in_words:
            disks = literal(bytes(digits.tolist()))
            pegs = [kept(disks, on, self.most) for on in self.on(state)[:, ::-1]]
            told = [where(peg.length == 0, "none", peg) for peg in pegs]
            return render(SHOWN, *told, capacity=len(self.widest["pegs"]))
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
        return self.say(source=peg_name(source), goal=peg_name(goal))


def peg_name(peg: jax.Array) -> Text:
    """A, B or C."""
    return select(peg, ["A", "B", "C"])

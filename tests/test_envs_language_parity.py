"""Games of the `gem` family against gem-llm 0.1.0, move for move.

The peer draws from Python's random; each of its episodes is made to hide what ours hides.
"""

import importlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from test_text import batch

import envs

NEEDED = "pip install --no-deps gem-llm==0.1.0, and nltk numpy pandas reasoning-gym==0.1.23"
pytest.importorskip("gem", reason=NEEDED)

EPISODES = 150
CAPACITY = 48  # bytes of a response beside its move
NOISE = [
    "",
    "none",
    "\\boxed{}",
    "\\boxed{x}",
    "\\boxed{-1}",
    "\\boxed{1",
    "boxed{1}",
    "\\boxed{ 1}",
]


def peer(module: str, name: str) -> Any:
    """An environment of gem-llm."""
    return getattr(importlib.import_module(f"gem.envs.game_env.{module}"), name)()


def ours(id: str, moves: list[list[str]]) -> tuple[Any, Any]:
    """First states, leaves [N], and TimeSteps, leaves [N, T], of episodes with these moves."""
    env = envs.make(id, thought_bytes=CAPACITY)
    flat = batch([move for row in moves for move in row], env.response_bytes)
    said = jax.tree.map(lambda x: x.reshape(len(moves), -1, *x.shape[1:]), flat)

    def episode(key, said):
        start, _ = env.reset(key)
        return start, jax.lax.scan(lambda state, move: env.step(state, move, key), start, said)[1]

    # The games are deterministic after the reset, so its key may be given to every step.
    with jax.debug_key_reuse(False):
        keys = jax.random.split(jax.random.key(1), len(moves))
        start, ts = jax.jit(jax.vmap(episode))(keys, said)
    return jax.tree.map(np.asarray, (start, ts))


def compare(
    id: str, theirs: Any, hide: Callable[[Any, Any], None], moves: list[list[str]]
) -> dict[str, int]:
    """Plays the same moves in both; how often each kind of ending was seen."""
    start, ts = ours(id, moves)
    seen = {"terminated": 0, "truncated": 0, "won": 0, "malformed": 0}
    for i, row in enumerate(moves):
        theirs.reset()
        hide(theirs, jax.tree.map(lambda x, i=i: x[i], start))
        for t, move in enumerate(row):
            _, reward, terminated, truncated, _ = theirs.step(move)
            found = ts.reward[i, t], ts.terminated[i, t], ts.truncated[i, t]
            assert found == (pytest.approx(reward, abs=1e-6), terminated, truncated), (row, t)
            if terminated:
                seen["terminated"] += 1
                seen["truncated"] += truncated
                seen["won"] += int(ts.metrics["success"][i, t])
                seen["malformed"] += reward < 0
                break
        assert ts.terminated[i].any(), "every episode is played to its end"
    return seen


def scripts(say: Callable[[random.Random], str], turns: int, seed: int) -> Iterator[list[str]]:
    """Rows of moves, some with a malformed one at a random turn."""
    rng = random.Random(seed)
    for _ in range(EPISODES):
        row = [say(rng) for _ in range(turns)]
        if rng.random() < 0.4:
            row[rng.randrange(turns)] = rng.choice(NOISE)
        yield row


@pytest.mark.parametrize(("level", "turns"), [("easy", 4), ("hard", 7), ("random", 9)])
def test_guess_the_number_pays_and_ends_as_the_peer(level, turns):
    top = {"easy": 11, "hard": 51, "random": 61}[level]

    def hide(theirs, state):
        theirs.game_number, theirs.max_turns = int(state.target), int(state.limit)
        theirs.min_number, theirs.max_number = int(state.low), int(state.high)

    def say(rng):
        number = rng.choice([rng.randint(1, top), rng.randint(1, top), 1, 5, 5, 0, top + 9, 10**12])
        return (
            rng.choice(["\\boxed{%d}", "\\boxed{7} no: \\boxed{%d}", "so \\boxed{%03d}}"]) % number
        )

    theirs = peer("guess_the_number", "GuessTheNumberEnv")
    seen = compare(f"gem/GuessTheNumber-{level}", theirs, hide, list(scripts(say, turns, 1)))
    assert min(seen.values()) > 0 or level == "random", seen


@pytest.mark.parametrize(("level", "turns"), [("easy", 10), ("hard", 35), ("random", 35)])
def test_tower_of_hanoi_pays_and_ends_as_the_peer(level, turns):
    def hide(theirs, state):
        theirs.num_disks, theirs.max_turns = int(state.disks), int(state.limit)
        theirs.board = theirs._generate_board()

    def say(rng):
        a, b = rng.choices("ABC", k=2)
        form = rng.choice(["\\boxed{%s%s}", "\\boxed{%s , %s}", "\\boxed{AB}, \\boxed{%s\t%s}"])
        return form % rng.choice([(a, b), (a.lower(), b)])

    moves = list(scripts(say, turns, 2))
    solution = solve(3 if level == "easy" else 5)
    for idle in range(5):  # 4 idle moves are one too many for 3 disks, and just fit for 5
        row = ["AA"] * idle + solution + ["AA"] * turns
        moves.append([f"\\boxed{{{move}}}" for move in row[:turns]])
    seen = compare(
        f"gem/TowerofHanoi-{level}", peer("tower_of_hanoi", "TowerofHanoiEnv"), hide, moves
    )
    assert min(seen.values()) > 0 or level == "random", seen


def solve(disks: int, source: str = "A", goal: str = "C") -> list[str]:
    """The textbook's recursion."""
    if not disks:
        return []
    other = ({*"ABC"} - {source, goal}).pop()
    before, after = solve(disks - 1, source, other), solve(disks - 1, other, goal)
    return [*before, source + goal, *after]


@pytest.mark.parametrize(("level", "turns"), [("easy", 10), ("hard", 30), ("random", 30)])
def test_mastermind_pays_and_ends_as_the_peer(level, turns):
    def hide(theirs, state):
        theirs.code_length, theirs.num_numbers = int(state.length), int(state.numbers)
        theirs.max_turns = int(state.limit)
        theirs.game_code = [int(number) for number in state.code if number]

    def say(rng):
        length = 2 if level == "easy" else rng.choice([4, 4, 4, 2])
        if rng.random() < 0.1:
            length += rng.choice([-1, 1, 3])
        top = rng.choice([2, 4, 6, 6, 6, 8, 8, 8, 9, 30])
        guess = [rng.randint(rng.random() > 0.1, top) for _ in range(length)]
        if rng.random() < 0.3:
            guess[0] = 1
        gap = rng.choice([" ", " ", "\t\n", "  "])
        return rng.choice(["\\boxed{%s}", "\\boxed{1 2}\\boxed{%s}"]) % gap.join(map(str, guess))

    moves = list(scripts(say, turns, 3))
    seen = compare(f"gem/Mastermind-{level}", peer("mastermind", "MastermindEnv"), hide, moves)
    assert min(seen[kind] for kind in seen if kind != "won" or level == "easy") > 0, seen

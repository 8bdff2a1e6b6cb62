"""Small programming problems with tests: `python benchmarks/programming_tasks.py --out FILE`.

Each line is {"question", "answer", "tests", "entry", "level"}: the answer is a solution in a fence
and its function's name behind `####`, the tests are those of `jaxrl.sandbox.rewards`. Level 1 is a
line, level 2 a list comprehension, level 3 a loop. The same seed writes the same file and no answer
stands there twice. No function passes that returns always the same or what it was given, nor one
that is right but for its number, which is one off, or for its letter.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.programming_families import CHANGE, FAMILIES, WHICH, Family
from jaxrl import files
from jaxrl.train import flags

LETTERS = "abcdefghilmnoprst"
WORDS = ["apple", "Moon", "river", "stone", "bees", "Tree", "a", "salt", "window", "off", "hill"]
TESTS = 8  # of a problem, without the example of its question
BRACKETS = ["()", "[]", "([])", "["]
EDGES = 3  # cases of a kind of argument that every problem has
DRAWS = 40  # of arguments, from which tests are chosen
PATIENCE = 500  # problems that have been there before, or cannot be told from others


def numbers(low: int, high: int) -> Callable[[random.Random, int], list[int]]:
    """Draws a list of up to twelve, some of them close to n."""
    near = (-1, 0, 1)
    return lambda rng, n: [
        rng.choice((rng.randint(low, high), n + rng.choice(near), n * rng.randint(0, 3)))
        for _ in range(rng.randint(1, 12))
    ]


def letters(alphabet: str) -> Callable[[random.Random, int], str]:
    """Draws a string of up to sixteen, with runs."""
    return lambda rng, n: "".join(
        rng.choice(alphabet) * rng.choice((1, 2, n - 1, n)) for _ in range(rng.randint(1, 4))
    )


# kind: (edge cases, draw, which is told the problem's number n)
INPUTS: dict[str, tuple[list[Any], Callable[[random.Random, int], Any]]] = {
    "int": ([0, -1, 10**6], lambda rng, n: rng.choice(numbers(-30, 30)(rng, n))),
    "natural": ([0, 1, 2], lambda rng, n: rng.randint(3, 60)),
    "count": ([0, 1, 2], lambda rng, n: rng.randint(3, 20)),
    "low": ([0, -5, 3], lambda rng, n: rng.randint(-20, 0)),
    "high": ([0, 5, 3], lambda rng, n: rng.randint(1, 20)),
    "ints": ([[], [0], [7, 7]], numbers(-15, 15)),
    "digits": ([[], [1], [5, 5, 5]], numbers(0, 9)),
    "word": (["", "a", "Hello"], lambda rng, n: rng.choice(WORDS) + rng.choice([*LETTERS, *WORDS])),
    "words": ([[], ["a"], ["a", "a"]], lambda rng, n: rng.sample(WORDS, rng.randint(2, 6))),
    "text": (["", "z", " two  words "], lambda rng, n: " ".join(rng.sample(WORDS, 4))),
    "runs": (["", "a", "aaaa"], letters("ab")),
    "brackets": (
        ["", ")", "([)]"],
        lambda rng, n: "".join(rng.choices(BRACKETS, k=2)),
    ),
}


@dataclass(frozen=True)
class Args:
    out: Path  # the JSONL file to write
    num: int = 240  # problems
    seed: int = 0
    level: int = 3  # the hardest: 1, 2 or 3

    def __post_init__(self):
        if self.level not in (1, 2, 3):
            raise ValueError(f"level={self.level} must be 1, 2 or 3; try 1.")
        if self.num < 1:
            raise ValueError(f"num={self.num} must be 1 or more; try 240.")


@dataclass(frozen=True)
class Drawn:
    """What stands for the braces of a family."""

    n: int
    c: str
    which: str
    change: str

    def filled(self, text: str) -> str:
        words = {"n": str(self.n), "c": self.c}
        for name, key, table in (("which", self.which, WHICH), ("change", self.change, CHANGE)):
            parts = zip(("", "_says", "_code"), (key, *table[key]), strict=True)
            words |= {name + part: word.format(n=self.n) for part, word in parts}
        return text.format(**words)

    def others(self) -> list["Drawn"]:
        """That a solution could be mistaken for."""
        letter = LETTERS[LETTERS.index(self.c) - 1]
        return [replace(self, n=self.n - 1), replace(self, n=self.n + 1), replace(self, c=letter)]


def solution(family: Family, drawn: Drawn, name: str) -> tuple[str, Callable[..., Any]]:
    """Its source, and itself."""
    lines = drawn.filled(family.body).split("\n")
    source = f"def {name}({family.parameters}):\n" + "".join(f"    {line}\n" for line in lines)
    space: dict[str, Any] = {}
    exec(source, space)
    return source, space[name]


def chosen(cases: list[tuple], right: list[Any], wrong: list[list[Any]]) -> list[int]:
    """Cases that tell the right results from each of the wrong ones; [] if there are none.

    Edge cases come first; what is left goes to results that have been rare so far.
    """
    found = list(range(EDGES))
    for results in wrong:
        telling = [i for i in range(len(cases)) if results[i] != right[i]]
        if not telling:
            return []
        if not set(found) & set(telling):
            found.append(telling[0])
    while len(found) < TESTS:
        known = [right[i] for i in found]
        left = [i for i in range(len(cases)) if i not in found]
        found.append(min(left, key=lambda i: known.count(right[i])))
    return found


def problem(family: Family, rng: random.Random) -> dict[str, Any] | None:
    """One of a family; None where the arguments drawn cannot tell it from a wrong one."""
    keys = rng.choice(list(WHICH)), rng.choice(list(CHANGE))
    drawn = Drawn(rng.randint(3, 12), rng.choice(LETTERS), *keys)
    name = drawn.filled(family.name)
    source, function = solution(family, drawn, name)
    kinds = [INPUTS[kind] for kind in family.inputs]
    cases = [*zip(*(edges for edges, _ in kinds), strict=True)]
    cases += [tuple(draw(rng, drawn.n) for _, draw in kinds) for _ in range(DRAWS)]
    cases = list({repr(case): case for case in cases}.values())
    if len(cases) <= TESTS:
        return None
    right = [function(*case) for case in cases]
    others = [solution(family, other, name) for other in drawn.others()]
    wrong = [[f(*case) for case in cases] for text, f in others if text != source]
    wrong += [list(given) for given in zip(*cases, strict=True)]
    tests = chosen(cases, right, wrong)
    if not tests or all(right[i] == right[tests[0]] for i in tests):
        return None
    calls = [f"{name}({', '.join(map(repr, case))})" for case in cases]
    example = next(i for i in reversed(range(len(cases))) if i not in tests)
    question = (
        f"Write a Python function {name}({family.parameters}) that returns "
        f"{drawn.filled(family.says)}. For example, {calls[example]} is {right[example]!r}."
    )
    return {
        "question": question,
        "answer": f"```python\n{source}```\n#### {name}",
        "tests": [f"assert {calls[i]} == {right[i]!r}" for i in tests],
        "entry": name,
        "level": family.level,
    }


def problems(num: int, seed: int, level: int) -> Iterator[dict[str, Any]]:
    """`num` different ones; ValueError where there are not so many."""
    rng, seen, since = random.Random(seed), set(), 0
    families = [family for family in FAMILIES if family.level <= level]
    while len(seen) < num:
        row = problem(rng.choice(families), rng)
        since += 1
        if row is not None and row["answer"] not in seen:
            seen.add(row["answer"])
            since = 0
            yield row
        if since > PATIENCE:
            raise ValueError(f"num={num} problems are not there; try {len(seen) // 10 * 10}.")


def main(args: Args) -> None:
    """Writes the file."""
    rows = problems(args.num, args.seed, args.level)
    files.write_text(args.out, "".join(json.dumps(row) + "\n" for row in rows))
    print(f"{args.out}: {args.num} problems")


def run(argv: Sequence[str]) -> None:
    """The command line."""
    flags.run(Args, __doc__ or "", argv, main)


if __name__ == "__main__":
    run(sys.argv[1:])

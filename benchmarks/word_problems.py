"""Word problems with solutions, in GSM8K's shape: `python benchmarks/word_problems.py --out FILE`.

Each line is {"question", "answer"}; the answer is a sentence for each step, then `#### N`. Level 1
has one step and small numbers, level 2 up to two steps, level 3 up to four. The same seed writes
the same file, no question stands there twice, and every answer is computed from its steps.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jaxrl import files
from jaxrl.envs.dataset.environment import INSTRUCTION
from jaxrl.envs.dataset.rows import held_out
from jaxrl.train import flags

NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Iris", "Jack", "Kira", "Leo"]
THINGS = ["apples", "books", "cards", "coins", "cups", "eggs", "keys", "marbles", "shells", "toys"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MOST = 100_000  # problems of a file
LARGEST = {1: 12, 2: 30, 3: 60}  # number drawn at a level


@dataclass(frozen=True)
class Kind:
    """A problem with names in braces; small letters a to d are numbers that are drawn.

    Each step is a sentence, with its sum in angle brackets: its result is r1, r2 and so on.
    """

    level: int
    question: str
    steps: tuple[str, ...]


KINDS = (
    Kind(
        1,
        "{name} has {a} {things}. {other} gives {name} {b} more. How many {things} does {name} "
        "have now?",
        ("{name} has <a + b> {things}.",),
    ),
    Kind(
        1,
        "{name} had {a} {things} and lost {b} of them. How many {things} are left?",
        ("There are <a - b> {things} left.",),
    ),
    Kind(
        1,
        "There are {a} boxes with {b} {things} in each. How many {things} are there in all?",
        ("There are <a * b> {things} in all.",),
    ),
    Kind(
        1,
        "{name} found {a} {things} on {day} and {b} {things} on the day after. How many {things} "
        "did {name} find?",
        ("{name} found <a + b> {things}.",),
    ),
    Kind(
        1,
        "{name} is {a} years old. {other} is {b} years younger. How old is {other}?",
        ("{other} is <a - b> years old.",),
    ),
    Kind(
        2,
        "{name} buys {a} bags of {b} {things} each and gives {c} {things} to {other}. How many "
        "{things} does {name} keep?",
        ("The bags hold <a * b> {things}.", "{name} keeps <r1 - c> {things}."),
    ),
    Kind(
        2,
        "{name} sold {a} {things} on {day} and twice as many on the day after. How many {things} "
        "did {name} sell in all?",
        ("On the day after it was <2 * a> {things}.", "In all that is <a + r1> {things}."),
    ),
    Kind(
        2,
        "{a} children share {b} {things} equally. Then each of them gets {c} more. How many "
        "{things} does each child have?",
        ("Each child first gets <b / a> {things}.", "Then each has <r1 + c> {things}."),
    ),
    Kind(
        2,
        "A ticket costs {a} dollars for a child and {b} dollars more for an adult. How much do a "
        "child and an adult pay together?",
        ("An adult pays <a + b> dollars.", "Together they pay <a + r1> dollars."),
    ),
    Kind(
        2,
        "{name} has {a} {things}, {other} has {b} more than {name}. How many {things} do they have "
        "together?",
        ("{other} has <a + b> {things}.", "Together they have <a + r1> {things}."),
    ),
    Kind(
        2,
        "{name} reads {a} pages a day for {b} days. The book has {c} pages. How many pages are "
        "left?",
        ("{name} has read <a * b> pages.", "There are <c - r1> pages left."),
    ),
    Kind(
        3,
        "{name} works {a} shifts of {b} hours at {c} dollars an hour, and spends {d} dollars. How "
        "many dollars are left?",
        (
            "{name} works <a * b> hours.",
            "That pays <r1 * c> dollars.",
            "There are <r2 - d> dollars left.",
        ),
    ),
    Kind(
        3,
        "A shop has {a} shelves with {b} {things} each and {c} {things} in the window. {name} buys "
        "half of all {things}. How many {things} does {name} buy?",
        (
            "The shelves hold <a * b> {things}.",
            "With the window that is <r1 + c> {things}.",
            "{name} buys <r2 / 2> {things}.",
        ),
    ),
    Kind(
        3,
        "{name} has {a} {things}. {other} has {b} times as many. They put them together and share "
        "them equally with {c} friends, so that {c} friends and the two of them get the same. How "
        "many {things} does each get?",
        (
            "{other} has <a * b> {things}.",
            "Together they have <a + r1> {things}.",
            "They are <c + 2> people.",
            "Each gets <r2 / r3> {things}.",
        ),
    ),
    Kind(
        3,
        "A train has {a} wagons with {b} seats each. {c} seats are taken, then {d} more people "
        "find a seat. How many seats are free?",
        (
            "The train has <a * b> seats.",
            "Of these <c + d> are taken.",
            "So <r1 - r2> seats are free.",
        ),
    ),
    Kind(
        3,
        "{name} bakes {a} cakes and cuts each into {b} pieces. {other} eats {c} pieces, and the "
        "others go onto plates of {d} pieces. How many plates are needed?",
        (
            "There are <a * b> pieces.",
            "After {other} there are <r1 - c> pieces.",
            "That needs <r2 / d> plates.",
        ),
    ),
)


@dataclass(frozen=True)
class Args:
    out: Path  # the JSONL file to write
    num: int = 5000  # problems
    seed: int = 0
    level: int = 3  # the hardest: 1, 2 or 3
    chats: bool = False  # as conversations for train.sft, without what --env dataset holds out

    def __post_init__(self):
        if self.level not in LARGEST:
            raise ValueError(f"level={self.level} must be 1, 2 or 3; try 1.")
        if not 1 <= self.num <= MOST:
            raise ValueError(f"num={self.num} must be 1 to {MOST}; try 5000.")


def drawn(kind: Kind, rng: random.Random) -> dict[str, Any]:
    """Names and numbers of one problem."""
    name, other = rng.sample(NAMES, 2)
    words = {"name": name, "other": other, "things": rng.choice(THINGS), "day": rng.choice(DAYS)}
    largest = LARGEST[kind.level]
    return words | {letter: rng.randint(2, largest) for letter in "abcd"}


def solved(kind: Kind, values: dict[str, Any]) -> tuple[list[str], int] | None:
    """The sentences and the answer; None where a result is not a whole number of 1 or more."""
    values, sentences = dict(values), []
    result = 0
    for number, step in enumerate(kind.steps, 1):
        before, rest = step.split("<")
        sum_, behind = rest.split(">")
        left, operator, right = (values.get(word, word) for word in sum_.split())
        left, right = int(left), int(right)
        if operator == "/" and left % right:
            return None
        results = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}
        result = values[f"r{number}"] = results[operator]
        if result < 1:
            return None
        sentence = f"{before}{left} {operator} {right} = {result}{behind}"
        sentences.append(sentence.format(**values))
    return sentences, result


def problems(num: int, seed: int, level: int) -> Iterator[dict[str, str]]:
    """`num` different ones."""
    rng, seen = random.Random(seed), set()
    kinds = [kind for kind in KINDS if kind.level <= level]
    while len(seen) < num:
        kind = rng.choice(kinds)
        values = drawn(kind, rng)
        question, found = kind.question.format(**values), solved(kind, values)
        if found is not None and question not in seen:
            seen.add(question)
            sentences, answer = found
            yield {"question": question, "answer": "\n".join([*sentences, f"#### {answer}"])}


def chats(num: int, seed: int, level: int) -> Iterator[dict[str, Any]]:
    """`num` conversations: the question as the environment puts it in words, and its answer."""
    learned = (row for row in problems(MOST, seed, level) if not held_out(row["question"]))
    for row in islice(learned, num):
        asked = f"{row['question']}\n{INSTRUCTION}"
        said = {"user": asked, "assistant": row["answer"]}
        yield {"messages": [{"role": who, "content": text} for who, text in said.items()]}


def main(args: Args) -> None:
    """Writes the file."""
    rows = (chats if args.chats else problems)(args.num, args.seed, args.level)
    files.write_text(args.out, "".join(json.dumps(row) + "\n" for row in rows))
    print(f"{args.out}: {args.num} problems")


def run(argv: Sequence[str]) -> None:
    """The command line."""
    flags.run(Args, __doc__ or "", argv, main)


if __name__ == "__main__":
    run(sys.argv[1:])

r"""A fixed list of questions with answers, from a file of rows: GSM8K's shape and its likes."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import TimeStep, static, timestep
from jaxrl.envs.dataset.gold import CHOICE, MOST_BYTES, NUMBER, STRING
from jaxrl.envs.dataset.rows import Row, read
from jaxrl.envs.language.judged import outcome, unread
from jaxrl.envs.reasoning.question import Question
from jaxrl.language import LanguageEnvironment
from jaxrl.text import Template, Text, concat, equal, literal, resize, select, where
from jaxrl.text.answers import Reading, ends, last_choice, last_ratio, normal, stated

Array = Any  # of jax; of numpy where it is made
INSTRUCTION = "Think step by step, and end your reply with #### and the answer."


class Rows(flax.struct.PyTreeNode):
    """N rows, those for training first; texts lie one after the other, with room at the end."""

    question: Array  # uint8 [bytes]
    question_start: Array  # int32 [N + 1]
    solution: Array  # uint8 [bytes]
    solution_start: Array  # int32 [N + 1]
    kind: Array  # int32 [N]: of the answer
    gold: Array  # uint8 [N, G]: the answer in one spelling
    gold_length: Array  # int32 [N]
    ratio: Array  # int32 [N, 2]: of an answer that is a fraction, else 0
    line: Array  # int32 [N]: of the file
    kinds: tuple[int, ...] = flax.struct.field(pytree_node=False)  # those that there are
    has_ratio: bool = flax.struct.field(pytree_node=False)  # some are fractions
    split: tuple[int, int] = flax.struct.field(pytree_node=False)  # rows for training, for testing
    longest: tuple[int, int] = flax.struct.field(pytree_node=False)  # bytes of question, solution


class DataSet(Question):
    r"""A question of a list; a response is read for its answer, which is right or wrong.

    In words the question is followed by `instruction`; terse it is all there is. An answer is what
    stands behind the last `####` of a response, to the line's end, or in its last `\boxed{}` if
    that comes later. Without either it can still be read, though not in the form asked for: the
    last number or choice there is, of a string the last line.
    """

    rows: Any = None
    data: str = static("")  # the file
    split: Literal["train", "test", "all"] = static("train")
    instruction: str = static(INSTRUCTION)

    @property
    def num_rows(self) -> int:
        """Rows of this split."""
        train, test = self.rows.split
        return {"train": train, "test": test, "all": train + test}[self.split]

    @property
    def first_row(self) -> int:
        return self.rows.split[0] if self.split == "test" else 0

    @property
    def held_out(self) -> LanguageEnvironment:
        """The test split, if it is not empty and this is the other."""
        ours = self.split == "train" and self.rows.split[1] > 0
        return self.replace(split="test") if ours else self

    def row_name(self, row: int) -> str:
        return f"{self.data}, line {int(np.asarray(self.rows.line)[self.first_row + row])}"

    @property
    def prompt_bytes(self) -> int:
        behind = len(self.instruction.encode()) + 1 if self.in_words else 0
        return self.rows.longest[0] + behind

    @property
    def response(self) -> Template:
        """As long as the longest solution."""
        return Template("x" * self.rows.longest[1])

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        row_key, key = jax.random.split(key)
        return self.reset_row(jax.random.randint(row_key, (), 0, self.num_rows, jnp.int32), key)

    def reset_row(self, row: jax.Array | int, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        """The question of a row of this split; the state is its place among all."""
        del key
        row = self.first_row + jnp.clip(jnp.asarray(row, jnp.int32), 0, self.num_rows - 1)
        rows = self.rows
        text = piece(rows.question, rows.question_start, row, rows.longest[0])
        parts = [text, "\n", self.instruction] if self.in_words else [text]
        obs = concat(parts, self.observation_space.capacity)
        return row, timestep(obs, metrics=outcome(False, unread()))

    def step(self, state: jax.Array, action: Text, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        del key  # a question has one answer
        rows, said = self.rows, stated(action)
        gold = Text(rows.gold[state], rows.gold_length[state], jnp.asarray(False))
        kind, ratio = rows.kind[state], rows.ratio[state]
        text, found, same = self.reading(said.text, kind, ratio, gold.capacity + 1)
        found &= ~action.cut
        right = found & ~text.cut & (equal(text, gold) | same)
        text = where(right, gold, text)  # two spellings of the right answer are one answer
        formed = found & said.marked & ends(action, said.last)
        return state, self.verdict(Reading(text, found, formed), right)

    def reading(
        self, said: Text, kind: jax.Array, ratio: jax.Array, capacity: int
    ) -> tuple[Text, jax.Array, jax.Array]:
        """The answer of this kind, bool []: there is one, bool []: it is the fraction `ratio`.

        Kinds that no row has are not looked for.
        """
        no = jnp.asarray(False)
        found, ways = {}, self.rows.kinds
        if NUMBER in ways:
            found[NUMBER] = last_ratio(said, ratio if self.rows.has_ratio else None)
        if CHOICE in ways:
            choice = last_choice(said)
            found[CHOICE] = (choice, choice.length > 0, no)
        if STRING in ways:
            string = normal(said, capacity)
            found[STRING] = (string, string.length > 0, no)
        texts, there, same = zip(*(found[k] for k in ways), strict=True)
        which = jnp.argmax(jnp.asarray(ways) == kind)
        return select(which, texts), jnp.stack(there)[which], jnp.stack(same)[which]

    def expert(self, state: jax.Array, key: jax.Array) -> Text:
        """The row's own solution."""
        del key
        rows = self.rows
        text = piece(rows.solution, rows.solution_start, state, rows.longest[1])
        return resize(text, self.response_bytes)

    def random_player(self, state: jax.Array, key: jax.Array) -> Text:
        """Another row's solution."""
        step = jax.random.randint(key, (), 1, max(self.num_rows, 2), jnp.int32)
        other = self.first_row + (state - self.first_row + step) % self.num_rows
        return self.expert(other, key)


class Prompts(DataSet):
    """A prompt of a list, and one response, which is worth nothing here: see reward functions."""

    system: str = static("")  # message of every row, before the prompt

    expert = LanguageEnvironment.expert
    random_player = LanguageEnvironment.random_player

    @property
    def prompt_bytes(self) -> int:
        return self.rows.longest[0]

    def reset_row(self, row: jax.Array | int, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        del key
        row = self.first_row + jnp.clip(jnp.asarray(row, jnp.int32), 0, self.num_rows - 1)
        text = piece(self.rows.question, self.rows.question_start, row, self.rows.longest[0])
        return row, timestep(resize(text, self.observation_space.capacity))

    def step(self, state: jax.Array, action: Text, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        del action, key
        return state, timestep(literal("", self.observation_space.capacity), terminated=True)


def piece(texts: jax.Array, start: jax.Array, row: jax.Array, capacity: int) -> Text:
    """The row's text; behind the last one there is room for one more."""
    length = start[row + 1] - start[row]
    data = jax.lax.dynamic_slice_in_dim(texts, start[row], capacity)
    data = jnp.where(jnp.arange(capacity) < length, data, 0)
    return Text(data, length, jnp.asarray(False))


def data_set(
    data: str,
    split: str = "train",
    prompt: str = "terse",
    instruction: str = INSTRUCTION,
    thought_bytes: int | None = None,
    format: float | None = None,
) -> DataSet:
    """The environment of a JSONL file; ValueError for a row that cannot be used."""
    if split not in ("train", "test", "all"):
        raise ValueError(f"split={split} must be train, test or all; try train.")
    if not isinstance(instruction, str) or "\0" in instruction:
        raise ValueError(f"instruction={instruction!r} must be a text; try {INSTRUCTION!r}.")
    found = read(Path(data))
    rows, system = packed(found), found[0].system
    kind: Any = DataSet if system is None else partial(Prompts, system=system)
    env = kind(
        prompt=prompt,  # type: ignore
        thought_bytes=thought_bytes,
        format=format,
        rows=rows,
        data=str(data),
        split=split,  # type: ignore
        instruction=instruction,
    )
    if not env.num_rows:
        raise ValueError(f"split={split} of {data} has no rows; try split=all.")
    return env


def packed(read: list[Row]) -> Rows:
    """Rows as arrays."""
    rows = sorted(read, key=lambda row: row.held_out)  # those for training first, in their order
    test = sum(row.held_out for row in rows)
    question, question_start, longest_question = flat([row.question for row in rows])
    solution, solution_start, longest_solution = flat([row.solution for row in rows])
    gold = [row.gold.text.encode() for row in rows]
    table = np.zeros((len(rows), max(map(len, gold))), np.uint8)
    for place, text in enumerate(gold):
        table[place, : len(text)] = [*text]
    on_host = Rows(
        question=question,
        question_start=question_start,
        solution=solution,
        solution_start=solution_start,
        kind=np.asarray([row.gold.kind for row in rows], np.int32),
        gold=table,
        gold_length=np.asarray([*map(len, gold)], np.int32),
        ratio=np.asarray([row.gold.ratio for row in rows], np.int32),
        line=np.asarray([row.line for row in rows], np.int32),
        kinds=tuple(sorted({row.gold.kind for row in rows})),
        has_ratio=any(row.gold.ratio[1] for row in rows),
        split=(len(rows) - test, test),
        longest=(longest_question, longest_solution or MOST_BYTES),
    )
    return jax.tree.map(jnp.asarray, on_host)


def flat(texts: list[str]) -> tuple[Any, Any, int]:
    """uint8 [bytes], int32 [N + 1], the longest: one after the other, and room for one more."""
    raw = [text.encode() for text in texts]
    start = np.cumsum([0, *map(len, raw)]).astype(np.int32)
    longest = max(map(len, raw))
    return np.frombuffer(b"".join(raw) + bytes(longest), np.uint8), start, longest

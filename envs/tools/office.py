"""An office: mail, a calendar, tasks and customers, worked with by tool calls.

After workplace_assistant of NeMo Gym 0.7 (tools' names, tables, verified by state); its world is
fixed and its tables are larger, ours are drawn for each episode and fit in the program.
"""

import functools
import string

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import TimeStep, check_numbers, static
from jaxrl.envs.tools import office_words as words
from jaxrl.envs.tools.office_draw import STARTING, draw, pool_names, rows_of, widest
from jaxrl.envs.tools.tables import Edits, Tables, agreement, edit, result_bytes
from jaxrl.envs.tools.world import MOST_TURNS, Episode, ToolWorld, Verdict
from jaxrl.text import Template, Text, literal, where
from jaxrl.text.answers import Reading
from jaxrl.text.calls import Calls
from jaxrl.text.text import pack
from jaxrl.text.tools import Tool


class Plan(flax.struct.PyTreeNode):
    """The calls that do a task."""

    tool: jax.Array  # int32 [K]
    argument: Text  # [K, P]
    given: jax.Array  # bool [K, P]
    steps: jax.Array  # int32 []: how many there are


class Desk(flax.struct.PyTreeNode):
    """The office as it is, and as it should be."""

    tables: Tables
    target: Tables
    changed: jax.Array  # bool [T, N]: rows in which the target is not what was there at first
    plan: Plan


class Office(ToolWorld):
    """Do what a mail, a meeting, a task or a customer needs, by calls; then say that it is done.

    Reward 1 if the tables are what the true calls make of them: the case of letters counts in
    status, list and board only, and new rows may come in any order. With `partial` another end
    pays that much times the share of the rows to change that are right, less those that are wrong.
    """

    tools: int = static(len(words.OFFICE))  # the first so many of them
    steps: int = static(words.MOST_STEPS)  # most calls that a task needs
    turns: int | None = static(None)  # most responses; None: two more than `steps`
    partial: float | None = None

    def __post_init__(self):
        turns = self.max_turns
        if self.turns is not None and not isinstance(self.turns, int):
            raise ValueError(f"turns={self.turns} must be a whole number; try {self.steps + 2}.")
        check_numbers(self, tools=(2, len(words.OFFICE)), steps=(1, words.MOST_STEPS))
        check_numbers(self, partial=(0, 1), calls=(1, 8))
        if not 1 <= turns <= MOST_TURNS:
            raise ValueError(f"turns={turns} must be 1 to {MOST_TURNS}; try {self.steps + 2}.")
        super().__post_init__()

    @property
    def max_turns(self) -> int:
        return self.steps + 2 if self.turns is None else self.turns

    @property
    def toolbox(self) -> tuple[Tool, ...]:
        return tuple(does.tool for does in words.OFFICE[: self.tools])

    @property
    def result_bytes(self) -> int:
        return result_bytes(words.SIZE)

    @property
    def kinds(self) -> tuple[words.Kind, ...]:
        """The tasks that so many tools and steps allow."""
        return tuple(k for k in words.KINDS if k.needs <= self.tools and len(k.calls) <= self.steps)

    def told(self, kind: words.Kind) -> str:
        return kind.words if self.in_words else kind.terse

    @property
    def prompt_bytes(self) -> int:
        sizes = []
        for text in map(self.told, self.kinds):
            names = [name for _, name, _, _ in string.Formatter().parse(text) if name]
            sizes.append(Template(text, {name: widest()[name] for name in names}).size)
        return max(sizes)

    @property
    def response(self) -> Template:
        return Template("Done." if self.in_words else "done")

    def reset(self, key: jax.Array) -> tuple[Episode, TimeStep]:
        kind_key, draw_key = jax.random.split(key)
        kind = jax.random.randint(kind_key, (), 0, len(self.kinds), jnp.int32)
        twice = jnp.asarray([len(k.calls) == words.MOST_STEPS for k in self.kinds])[kind]
        tables, pool = draw(draw_key, _edits(self.tools).table.max() + 1, twice)
        plan = self.plan(kind, pool)
        target = self.done(tables, plan)
        changed = ~agreement(tables, target, _edits(self.tools))[1]
        obs = _question(tuple(map(self.told, self.kinds)), kind, pool)
        return self.begin(Desk(tables, target, changed, plan), self.fitted(obs))

    def fitted(self, text: Text) -> Text:
        """An observation, whose room is as large as the longest needs."""
        size = self.observation_space.capacity
        return text.replace(bytes=jnp.pad(text.bytes, (0, max(0, size - text.capacity)))[:size])

    def plan(self, kind: jax.Array, pool: Text) -> Plan:
        """The calls of a task of this kind."""
        tool, index, steps = _plans(self.tools, self.steps)
        index = jnp.asarray(index)[kind]
        argument = jax.tree.map(lambda x: x[jnp.maximum(index, 0)], pool)
        given = index >= 0
        length = jnp.where(given, argument.length, 0)
        data = jnp.where(given[..., None], argument.bytes, 0)
        argument = Text(data, length, argument.cut)
        return Plan(jnp.asarray(tool)[kind], argument, given, jnp.asarray(steps)[kind])

    def done(self, tables: Tables, plan: Plan) -> Tables:
        """What the true calls make of the tables."""

        def step(tables, x):
            number, tool, argument = x
            after = edit(tables, _edits(self.tools), tool, argument)[0]
            there = number < plan.steps
            return jax.tree.map(lambda a, b: jnp.where(there, a, b), after, tables), None

        number = jnp.arange(len(plan.tool))
        return jax.lax.scan(step, tables, (number, plan.tool, plan.argument))[0]

    def use(self, world: Desk, tool: jax.Array, given: Calls) -> tuple[Desk, Text]:
        tables, told = edit(world.tables, _edits(self.tools), tool, given.text)
        return world.replace(tables=tables), told

    def finish(self, world: Desk, action: Text) -> Verdict:
        del action  # what is said does not count, only what is done
        right, same = agreement(world.tables, world.target, _edits(self.tools))
        share = jnp.sum(world.changed & same) - jnp.sum(~world.changed & ~same)
        share = jnp.clip(share / jnp.maximum(jnp.sum(world.changed), 1), 0.0, 1.0)
        credit = 0.0 if self.partial is None else self.partial * share
        yes = jnp.asarray(True)
        return Verdict(right, credit, Reading(literal(""), yes, yes))

    def expert(self, state: Episode, key: jax.Array) -> Text:
        """The true calls, then that it is done."""
        del key
        plan = state.world.plan
        step = jnp.minimum(state.turn, len(plan.tool) - 1)
        argument = jax.tree.map(lambda x: x[step], plan.argument)
        call = self.call(plan.tool[step], argument, plan.given[step])
        return where(state.turn < plan.steps, call, self.say())

    def random_player(self, state: Episode, key: jax.Array) -> Text:
        """The expert of another task."""
        reset_key, key = jax.random.split(key)
        other = self.reset(reset_key)[0]
        return self.expert(state.replace(world=other.world), key)


@functools.cache
def _edits(tools: int) -> Edits:
    """What the first so many tools do."""
    rows = words.OFFICE[:tools]
    tables = words.FIELDS[: 1 + max(does.table for does in rows)]
    most = max(len(does.field) for does in rows)
    padded = [list(names) + [""] * (words.NUM_FIELDS - len(names)) for names in tables]
    with jax.ensure_compile_time_eval():
        names = jax.tree.map(np.asarray, rows_of([name for row in padded for name in row]))
    names = jax.tree.map(lambda x: x.reshape(len(tables), words.NUM_FIELDS, *x.shape[1:]), names)
    return Edits(
        kind=np.asarray([does.kind for does in rows], np.int32),
        table=np.asarray([does.table for does in rows], np.int32),
        field=np.asarray([[*d.field, *[words.NONE] * (most - len(d.field))] for d in rows]),
        shown=np.asarray([does.shown for does in rows], np.int32),
        names=names,
        first_new=STARTING,
        exact=np.isin(padded, words.EXACT),
    )


@functools.cache
def _plans(tools: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tool int32 [kinds, K], arguments int32 [kinds, K, P] by their place in the pool, steps."""
    kinds = [k for k in words.KINDS if k.needs <= tools and len(k.calls) <= steps]
    most = max(len(does.field) for does in words.OFFICE[:tools])
    tool = np.zeros((len(kinds), steps), np.int32)
    index = np.full((len(kinds), steps, most), -1, np.int32)
    place = pool_names()
    for i, kind in enumerate(kinds):
        for j, (number, names) in enumerate(kind.calls):
            tool[i, j] = number
            index[i, j, : len(names)] = [place.index(name) if name else -1 for name in names]
    return tool, index, np.asarray([len(kind.calls) for kind in kinds], np.int32)


def _question(told: tuple[str, ...], kind: jax.Array, pool: Text) -> Text:
    """The text of a kind with what was drawn for it."""
    parsed = [list(string.Formatter().parse(text)) for text in told]
    most = max(map(len, parsed))
    plain = [[part[0] for part in parts] + [""] * (most - len(parts)) for parts in parsed]
    place = pool_names()
    index = [[place.index(part[1]) if part[1] else -1 for part in parts] for parts in parsed]
    index = np.asarray([row + [-1] * (most - len(row)) for row in index])
    size = max(len(text.encode()) for row in plain for text in row)
    rows = rows_of([text for row in plain for text in row], size)
    rows = jax.tree.map(lambda x: x.reshape(len(told), most, *x.shape[1:])[kind], rows)
    chosen = jnp.asarray(index)[kind]
    value = jax.tree.map(lambda x: x[jnp.maximum(chosen, 0)], pool)
    data = jnp.concatenate([rows.bytes, value.bytes], 1)
    length = jnp.stack([rows.length, jnp.where(chosen >= 0, value.length, 0)], 1).ravel()
    start = np.arange(most)[:, None] * data.shape[1] + np.asarray([0, size])
    room = max(sum(len(part[0]) + words.SIZE for part in parts) for parts in parsed)
    return pack(data.ravel(), start.ravel(), length, room)

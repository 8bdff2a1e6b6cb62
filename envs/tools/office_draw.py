"""An office drawn afresh: its rows, and the words of a task in it."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs.tools import office_words as words
from jaxrl.envs.tools.tables import Tables, lower
from jaxrl.text import Text, concat, from_int, resize

STARTING = 6  # rows of a table at first
ROWS = 8  # rows that it may have, N
MOST_DRAWN = 128  # integers of a draw
DATE = b"2023-12-00 00:00:00"


def rows_of(texts: list[str], size: int = words.SIZE) -> Text:
    """Texts [n], constants."""
    data = np.zeros((len(texts), size), np.uint8)
    for i, text in enumerate(texts):
        raw = text.encode()
        data[i, : len(raw)] = np.frombuffer(raw, np.uint8)
    length = np.asarray([len(text.encode()) for text in texts], np.int32)
    return Text(jnp.asarray(data), jnp.asarray(length), jnp.zeros(len(texts), bool))


LISTS = {
    "first": words.FIRST.split(),
    "last": words.LAST.split(),
    "subject": words.SUBJECTS.split(),
    "body": words.BODIES.split(";"),
    "event": words.EVENTS.split(";"),
    "task": words.TASKS.split(";"),
    "company": words.COMPANIES.split(";"),
    "status": list(words.STATUSES),
    "list": list(words.LISTS),
    "board": list(words.BOARDS),
    "duration": list(words.DURATIONS),
}


@functools.cache
def widest() -> dict[str, str]:
    """The longest text of everything that a task may name."""
    longest = {name: max(texts, key=len) for name, texts in LISTS.items()}
    address = longest["first"] + "." + longest["last"] + words.DOMAIN
    people = {"name": longest["first"], "address": address}
    rows = {"old_subject": longest["subject"], "old_event": longest["event"]}
    ids = dict.fromkeys(("email_id", "event_id", "task_id", "task_id2", "customer_id"), "999")
    people |= {name + "2": text for name, text in people.items()}
    fields = {"=" + f: f for f in ("event_start", "list_name", "status", "assigned_to_email")}
    return longest | people | rows | ids | fields | {"start": DATE.decode()}


def pool_names() -> list[str]:
    """What stands in the pool of a task, in order: all that a call may be given."""
    return sorted({name for k in words.KINDS for _, given in k.calls for name in given} - {""})


def take(rows: Text, index: jax.Array) -> Text:
    return jax.tree.map(lambda x: x[index], rows)


def _draws(key: jax.Array) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """Two functions that draw: different places of a list, and integers.

    All of it is one draw and one sort, for each costs a part of a second of compilation.
    """
    longest = max(map(len, LISTS.values()))
    shape = len(LISTS), longest
    chance = jax.random.uniform(key, (len(LISTS) * longest + MOST_DRAWN,), jnp.float32)
    beyond = np.asarray([np.arange(longest) >= len(texts) for texts in LISTS.values()])
    order = jnp.argsort(chance[:-MOST_DRAWN].reshape(shape) + beyond, -1).astype(jnp.int32)
    drawn = 0

    def some(name: str, n: int) -> jax.Array:
        """int32 [n]: different places of a list."""
        return order[list(LISTS).index(name), :n]

    def any_of(n: int, low: int, high: int) -> jax.Array:
        """int32 [n]: from low to high - 1."""
        nonlocal drawn
        drawn += n
        assert drawn <= MOST_DRAWN
        share = chance[len(chance) - drawn : len(chance) - drawn + n]
        return low + jnp.minimum(share * (high - low), high - low - 1).astype(jnp.int32)

    return some, any_of


def draw(key: jax.Array, num_tables: int, twice: jax.Array) -> tuple[Tables, Text]:
    """(tables, the pool: texts that a task may name); `twice`: the first person has two tasks."""
    lists = {name: rows_of(texts) for name, texts in LISTS.items()}
    some, any_of = _draws(key)
    first = take(lists["first"], some("first", STARTING))
    last = take(lists["last"], some("last", STARTING))
    small = first.replace(bytes=lower(first.bytes))
    address = jax.vmap(lambda a, b: concat([a, ".", b, words.DOMAIN], words.SIZE))(small, last)
    row = any_of(5, 0, STARTING)  # of each table, the one that a task is about
    other = (row[words.TASK] + 1 + any_of(1, 0, STARTING - 1)[0]) % STARTING
    assigned = any_of(STARTING, 2, STARTING).at[row[words.TASK]].set(0)
    assigned = assigned.at[other].set(jnp.where(twice, 0, assigned[other]))
    subject, event = some("subject", STARTING + 1), some("event", STARTING + 1)
    start = _starts(any_of(STARTING + 1, 1, 29), any_of(STARTING + 1, 9, 18))
    task_list, status = any_of(STARTING, 0, 4), any_of(STARTING, 0, 5)
    ids = any_of(5, 100, 300)[:, None] + any_of(5, 7, 90)[:, None] * jnp.arange(STARTING)
    identity = jax.vmap(jax.vmap(lambda x: resize(from_int(x), words.SIZE)))(ids)

    def column(name: str, index: jax.Array) -> Text:
        return take(lists[name], index)

    def addresses() -> Text:
        return take(address, any_of(STARTING, 0, STARTING))

    task, company = some("task", STARTING), some("company", STARTING)
    body, length = any_of(STARTING, 0, len(LISTS["body"])), any_of(STARTING, 0, 5)
    due, board = _starts(any_of(STARTING, 1, 29), None), column("board", any_of(STARTING, 0, 3))
    held, lengths = take(start, jnp.arange(STARTING)), column("duration", length)
    columns = [
        [first, address],
        [addresses(), column("subject", subject[:-1]), column("body", body)],
        [column("event", event[:-1]), addresses(), held, lengths],
        [column("task", task), take(address, assigned), column("list", task_list), due, board],
        [column("company", company), addresses(), column("status", status)],
    ]
    columns = [[take(identity, jnp.int32(t)), *texts] for t, texts in enumerate(columns)]

    def new(name: str) -> Text:
        return column(name, any_of(1, 0, len(LISTS[name]))[0])

    def other_than(name: str, now: jax.Array) -> Text:
        size = len(LISTS[name])
        return column(name, (now + 1 + any_of(1, 0, size - 1)[0]) % size)

    pool = _of_rows(columns, row) | {
        "body": new("body"),
        "duration": new("duration"),
        "subject": column("subject", subject[-1]),
        "event": column("event", event[-1]),
        "start": take(start, STARTING),
        "task_id2": take(columns[words.TASK][0], other),
        "list": other_than("list", task_list[row[words.TASK]]),
        "status": other_than("status", status[row[words.CUSTOMER]]),
    }
    pool = jax.tree.map(lambda *x: jnp.stack(x), *(pool[name] for name in pool_names()))
    return _tables(columns[:num_tables]), pool


def _of_rows(columns: list[list[Text]], row: jax.Array) -> dict[str, Text]:
    """What a task may name of the first two people, of the chosen row of each table, of fields."""
    people = columns[words.PEOPLE]
    pool = {"name": take(people[1], 0), "name2": take(people[1], 1)}
    pool |= {"address": take(people[2], 0), "address2": take(people[2], 1)}
    chosen = [[take(texts, row[t]) for texts in columns[t]] for t in range(len(columns))]
    pool["email_id"], pool["old_subject"] = chosen[words.EMAIL][0], chosen[words.EMAIL][2]
    pool["event_id"], pool["old_event"] = chosen[words.EVENT][:2]
    pool["task_id"], pool["task"] = chosen[words.TASK][:2]
    pool["customer_id"], pool["company"] = chosen[words.CUSTOMER][:2]
    fields = [name for name in pool_names() if name[0] == "="]
    return pool | {name: take(rows_of([name[1:]]), 0) for name in fields}


def _starts(day: jax.Array, hour: jax.Array | None) -> Text:
    """Texts [n]: a date, and an hour but for the last row, which begins at half past it."""
    digits = jnp.tile(jnp.asarray(list(DATE), jnp.uint8), (len(day), 1))
    digits = digits.at[:, 8].add((day // 10).astype(jnp.uint8))
    digits = digits.at[:, 9].add((day % 10).astype(jnp.uint8))
    length = len(DATE) if hour is not None else len("2023-12-00")
    if hour is not None:
        digits = digits.at[:, 11].add((hour // 10).astype(jnp.uint8))
        digits = digits.at[:, 12].add((hour % 10).astype(jnp.uint8)).at[-1, 14].add(3)
    digits = jnp.where(jnp.arange(len(DATE)) < length, digits, 0)
    digits = jnp.pad(digits, ((0, 0), (0, words.SIZE - len(DATE))))
    count = jnp.full(len(day), length, jnp.int32)
    return Text(digits, count, jnp.zeros(len(day), jnp.bool_))


def _tables(fields: list[list[Text]]) -> Tables:
    """The rows of each table, and room for new ones."""
    tables = []
    for columns in fields:
        empty = [rows_of([""] * STARTING)] * (words.NUM_FIELDS - len(columns))
        tables.append(jax.tree.map(lambda *x: jnp.stack(x, 1), *columns, *empty))
    rows = jax.tree.map(lambda *x: jnp.stack(x), *tables)
    room = ((0, 0), (0, ROWS - STARTING), (0, 0))
    alive = jnp.broadcast_to(jnp.arange(ROWS) < STARTING, (len(fields), ROWS))
    return Tables(jnp.pad(rows.bytes, (*room, (0, 0))), jnp.pad(rows.length, room), alive)

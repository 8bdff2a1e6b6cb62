"""An office drawn afresh: its rows, and the words of a task in it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs.tools import office_words as words
from jaxrl.envs.tools.tables import Tables, lower
from jaxrl.text import Text, concat, from_int, resize

STARTING = 6  # rows of a table at first
ROWS = 8  # rows that it may have, N
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


def draw(key: jax.Array, num_tables: int, twice: jax.Array) -> tuple[Tables, Text]:
    """(tables, the pool: texts that a task may name); `twice`: the first person has two tasks."""
    keys = iter(jax.random.split(key, 32))
    lists = {name: rows_of(texts) for name, texts in LISTS.items()}

    def some(name: str, n: int) -> jax.Array:
        """int32 [n]: different places of a list."""
        order = jnp.argsort(jax.random.uniform(next(keys), (len(LISTS[name]),), jnp.float32))
        return order[:n].astype(jnp.int32)

    def any_of(n: int, low: int, high: int) -> jax.Array:
        return jax.random.randint(next(keys), (n,), low, high, jnp.int32)

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
    lists_now, states_now = column("list", task_list), column("status", status)
    fields = [
        [first, address],
        [addresses(), column("subject", subject[:-1]), column("body", body)],
        [column("event", event[:-1]), addresses(), held, lengths],
        [column("task", task), take(address, assigned), lists_now, due, board],
        [column("company", company), addresses(), states_now],
    ]
    tables = _tables(identity, fields[:num_tables])

    def other_than(name: str, now: jax.Array) -> Text:
        size = len(LISTS[name])
        return take(lists[name], (now + 1 + any_of(1, 0, size - 1)[0]) % size)

    pool = {
        "body": column("body", any_of(1, 0, len(LISTS["body"]))[0]),
        "duration": column("duration", any_of(1, 0, len(LISTS["duration"]))[0]),
        "name": take(first, 0), "name2": take(first, 1),
        "address": take(address, 0), "address2": take(address, 1),
        "subject": column("subject", subject[-1]), "event": column("event", event[-1]),
        "old_subject": column("subject", subject[row[1]]),
        "old_event": column("event", event[row[2]]),
        "start": take(start, STARTING),
        "task": column("task", task[row[3]]), "task_id2": take(take(identity, 3), other),
        "company": column("company", company[row[4]]),
        "list": other_than("list", task_list[row[3]]),
        "status": other_than("status", status[row[4]]),
    }  # fmt: skip
    for table, name in enumerate(("email_id", "event_id", "task_id", "customer_id"), 1):
        pool[name] = take(take(identity, table), row[table])
    for name in pool_names():
        if name[0] == "=":
            pool[name] = take(rows_of([name[1:]]), 0)
    return tables, jax.tree.map(lambda *x: jnp.stack(x), *(pool[name] for name in pool_names()))


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


def _tables(identity: Text, fields: list[list[Text]]) -> Tables:
    """The rows of each table, and room for new ones."""
    shape = (len(fields), ROWS, words.NUM_FIELDS)
    data = jnp.zeros((*shape, words.SIZE), jnp.uint8)
    length = jnp.zeros(shape, jnp.int32)
    for t, columns in enumerate(fields):
        for f, column in enumerate([take(identity, jnp.int32(t)), *columns]):
            data = data.at[t, :STARTING, f].set(column.bytes)
            length = length.at[t, :STARTING, f].set(column.length)
    alive = jnp.broadcast_to(jnp.arange(ROWS) < STARTING, shape[:2])
    return Tables(data, length, alive)

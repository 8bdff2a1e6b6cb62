"""Tables of texts inside jit: rows are created, found, changed and deleted by calls."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.text import Text, from_int, literal, resize, select
from jaxrl.text.text import pack

SEARCH, CREATE, UPDATE, DELETE = range(4)
ANY, NONE = -1, -2  # in place of a field: all of them, none
FIRST_NEW = 900  # the identity of the first row that is created; those before are below
MOST_FOUND = 3  # rows that a search tells
DONE, FULL, NO_ROW, NO_FIELD = range(4)
ANSWERS = ("done", "error: no room for more", "error: no row has that id", "error: no such field")
NOTHING = "nothing found"


class Tables(flax.struct.PyTreeNode):
    """T tables of N rows of F fields of S bytes; field 0 is a row's identity."""

    bytes: jax.Array  # uint8 [T, N, F, S]
    length: jax.Array  # int32 [T, N, F]
    alive: jax.Array  # bool [T, N]


class Edits(NamedTuple):
    """What each tool does to which table."""

    kind: np.ndarray  # int32 [tools]: SEARCH, CREATE, UPDATE or DELETE
    table: np.ndarray  # int32 [tools]
    field: np.ndarray  # int32 [tools, P]: of a search or a new row, each argument's; or ANY, NONE
    shown: np.ndarray  # int32 [tools, 3]: fields of a row that a search tells, or NONE
    names: Text  # [T, F]: what fields are called
    first_new: int  # the first row of those that may be created
    exact: np.ndarray  # bool [T, F]: upper and lower case are told apart


def lower(data: jax.Array) -> jax.Array:
    """Letters of ASCII small."""
    return jnp.where((data >= 65) & (data <= 90), data + 32, data)


def edit(tables: Tables, edits: Edits, tool: jax.Array, argument: Text) -> tuple[Tables, Text]:
    """The tables after a call with these arguments [P], and what it answers."""
    kind, table = jnp.asarray(edits.kind)[tool], jnp.asarray(edits.table)[tool]
    size = tables.bytes.shape[-1]
    rows = jax.tree.map(lambda x: x[table], tables)
    argument = jax.vmap(lambda x: resize(x, size))(argument)
    columns = jnp.asarray(edits.field)[tool]
    place = jnp.arange(rows.alive.shape[0])
    is_row = rows.alive & _same(rows.bytes[:, 0], rows.length[:, 0], argument, 0)
    names = jax.tree.map(lambda x: jnp.asarray(x)[table], edits.names)
    named = _same(names.bytes, names.length, argument, 1)
    named = named.at[0].set(False)  # an identity stays
    free = (place >= edits.first_new) & ~rows.alive
    new = jnp.argmax(free)

    updates, creates = kind == UPDATE, kind == CREATE
    status = jnp.where(updates & ~jnp.any(named), NO_FIELD, DONE)
    status = jnp.where((kind >= UPDATE) & ~jnp.any(is_row), NO_ROW, status)
    status = jnp.where(creates & ~jnp.any(free), FULL, status)
    fine = (status == DONE) & (kind != SEARCH)

    value = jax.tree.map(lambda x: x[min(2, len(columns) - 1)], argument)
    identity = resize(from_int(FIRST_NEW + new), size)
    fields, sizes = jnp.zeros_like(rows.bytes[0]), jnp.zeros_like(rows.length[0])
    to = jnp.where(columns >= 0, columns, len(sizes))
    fields = fields.at[to].set(argument.bytes, mode="drop").at[0].set(identity.bytes)
    sizes = sizes.at[to].set(argument.length, mode="drop").at[0].set(identity.length)
    changed = fine & updates & is_row[:, None] & named
    created = fine & creates & (place == new)
    data = jnp.where(changed[..., None], value.bytes, rows.bytes)
    data = jnp.where(created[:, None, None], fields, data)
    length = jnp.where(changed, value.length, rows.length)
    length = jnp.where(created[:, None], sizes, length)
    alive = (rows.alive | created) & ~(is_row & fine & (kind == DELETE))
    rows_after = Tables(data, length, alive)
    after = jax.tree.map(lambda all, one: all.at[table].set(one), tables, rows_after)
    told = _found(rows, _matches(rows, columns, argument), jnp.asarray(edits.shown)[tool])
    short = select(status, ANSWERS, told.capacity)
    is_search = kind == SEARCH
    return after, jax.tree.map(lambda a, b: jnp.where(is_search, a, b), told, short)


def result_bytes(size: int) -> int:
    """Bytes of the longest answer, for fields of S = `size` bytes."""
    return max(MOST_FOUND * 3 * (size + 2), *map(len, ANSWERS))


def _same(data: jax.Array, length: jax.Array, argument: Text, index: int) -> jax.Array:
    """bool [n]: the text [n, S] is this argument, if there are so many."""
    index = min(index, argument.length.shape[0] - 1)
    wanted, count = argument.bytes[index], argument.length[index]
    return (length == count) & jnp.all(data[:, : wanted.shape[0]] == wanted[: data.shape[-1]], -1)


def _matches(rows: Tables, columns: jax.Array, argument: Text) -> jax.Array:
    """bool [N]: a row holds each argument that is not empty in its field, whatever the case."""
    data, word = lower(rows.bytes), lower(argument.bytes)
    size, place = data.shape[-1], jnp.arange(data.shape[-1])
    length = argument.length[:, None, None, None]
    here = place + length <= rows.length[..., None]  # [P, N, F, S]: it may begin here
    mask = _fours(jnp.where(place < argument.length[:, None], 255, 0).astype(jnp.uint8))
    fours, word = jnp.pad(_fours(data), ((0, 0), (0, 0), (0, size))), _fours(word) & mask
    for i in range(0, size, 4):  # four bytes at once: six times as fast
        window = fours[..., i : i + size] & mask[:, i, None, None, None]
        here &= window == word[:, i, None, None, None]
    there = jnp.any(here, -1)  # [P, N, F]
    field = jnp.arange(there.shape[-1])
    wanted = (field == columns[:, None, None]) | ((columns[:, None, None] == ANY) & (field > 0))
    asked = (argument.length > 0) & (columns != NONE)
    return rows.alive & jnp.all(jnp.any(there & wanted, -1) | ~asked[:, None], 0)


def _fours(data: jax.Array) -> jax.Array:
    """uint32 [.., S]: each byte [.., S] and the three after it."""
    more = [(0, 0)] * (data.ndim - 1)
    after = jnp.pad(data, [*more, (0, 3)]).astype(jnp.uint32)
    size = data.shape[-1]
    return sum((after[..., i : i + size] << 8 * i for i in range(1, 4)), after[..., :size])


def _found(rows: Tables, matches: jax.Array, shown: jax.Array) -> Text:
    """`393, budget, sam@atlas.com` of each of the first rows that match, a line each."""
    rank = jnp.cumsum(matches) - 1
    matches &= rank < MOST_FOUND
    size = rows.bytes.shape[-1]
    there = matches[:, None] & (shown >= 0)  # [N, 3]
    earlier = jnp.cumsum(there, 1) - there
    line = (rank > 0) & matches
    marks = jnp.where(earlier[..., None] > 0, jnp.asarray(list(b", ")), jnp.asarray(list(b"\n ")))
    mark_length = jnp.where(there, jnp.where(earlier > 0, 2, line[:, None]), 0)
    data = jnp.concatenate([marks.astype(jnp.uint8), rows.bytes[:, shown]], -1)
    length = jnp.stack([mark_length, jnp.where(there, rows.length[:, shown], 0)], -1)
    start = np.arange(data.shape[0] * 3)[:, None] * (size + 2) + np.asarray([0, 2])
    told = pack(data.ravel(), start.ravel(), length.ravel().astype(jnp.int32), result_bytes(size))
    nothing = literal(NOTHING, told.capacity)
    return jax.tree.map(lambda a, b: jnp.where(jnp.any(matches), a, b), told, nothing)


def agreement(ours: Tables, theirs: Tables, edits: Edits) -> tuple[jax.Array, jax.Array]:
    """bool []: the same rows; bool [T, N]: this row is the same.

    The case of letters counts in `exact` fields only. Rows that were created may stand in another
    order, and their identities do not count.
    """
    exact = jnp.asarray(edits.exact)[:, None, :, None]
    first = edits.first_new

    def rows(x: Tables) -> jax.Array:
        return jnp.where(exact, x.bytes, lower(x.bytes))

    mine, other = rows(ours), rows(theirs)
    same = jnp.all(mine == other, -1) & (ours.length == theirs.length)
    is_id = (jnp.arange(same.shape[-1]) == 0) & (jnp.arange(same.shape[1]) >= first)[:, None]
    same = jnp.all(same | is_id, -1)
    same = (same & ours.alive & theirs.alive) | ~(ours.alive | theirs.alive)

    def count(a: Tables, x: jax.Array, b: Tables, y: jax.Array) -> jax.Array:
        """int32 [T, new]: how many new rows of b are equal to each of a."""
        x, y = x[:, first:, None, 1:], y[:, None, first:, 1:]
        alike = jnp.all(x == y, (-1, -2)) & jnp.all(
            a.length[:, first:, None, 1:] == b.length[:, None, first:, 1:], -1
        )
        return jnp.sum(alike & b.alive[:, None, first:], -1)

    new_a, new_b = ours.alive[:, first:], theirs.alive[:, first:]
    as_often = count(ours, mine, theirs, other) == count(ours, mine, ours, mine)
    fresh = jnp.sum(new_a) == jnp.sum(new_b)
    equal = jnp.all(same[:, :first]) & jnp.all(as_often | ~new_a) & fresh
    return equal, same

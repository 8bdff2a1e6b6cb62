"""Texts inside jit against Python's own strings."""

import random
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from jaxrl import text
from jaxrl.text import Text, from_int, literal, render, to_str

LEAST, LARGEST = -(2**31), 2**31 - 1
NUMBERS = [0, 1, -1, 9, 10, -10, 99, 100, 999_999_999, 10**9, 2 * 10**9, LARGEST, LEAST, LEAST + 1]


def batch(strings: list[str], capacity: int) -> Text:
    """Strings as one batch of texts."""
    rows = [string.encode().ljust(capacity, b"\0") for string in strings]
    data = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, capacity)
    length = np.asarray([len(string.encode()) for string in strings], np.int32)
    return Text(jnp.asarray(data), jnp.asarray(length), jnp.zeros(len(strings), bool))


def strings(texts: Text) -> list[str]:
    rows = zip(np.asarray(texts.bytes), np.asarray(texts.length), strict=True)
    return [row[:length].tobytes().decode() for row, length in rows]


def random_strings(symbols: str | list[str], n: int, longest: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(symbols, k=rng.randint(0, longest)))[:longest] for _ in range(n)]


def test_integers_are_written_as_str_writes_them():
    rng = random.Random(0)
    values = NUMBERS + [rng.randint(LEAST, LARGEST) >> rng.randint(0, 31) for _ in range(500)]
    said = jax.jit(jax.vmap(from_int))(jnp.asarray(values, jnp.int32))
    assert strings(said) == [str(value) for value in values]
    assert said.bytes.shape[1] == 11 and not np.any(said.cut)


def saturated(string: str) -> int:
    return max(-LARGEST, min(LARGEST, int(string)))


def test_integers_are_read_in_order_signed_and_saturating():
    made = random_strings([*"0123456789- a", "214748364", "99999999999", "000"], 600, 24)
    made += [str(value) for value in NUMBERS] + ["2147483648", "-2147483649", "00000000000012"]
    n = 4
    value, count = jax.jit(jax.vmap(partial(text.integers, n=n)))(batch(made, 24))
    for i, string in enumerate(made):
        wanted = [saturated(found) for found in re.findall(r"-?\d+", string)]
        assert count[i] == len(wanted), string
        assert value[i].tolist() == (wanted + [0] * n)[:n], string


def test_the_first_integer_of_a_text_or_zero():
    said = batch(["x 12 7", "none", "-5"], 8)
    assert jit(jax.vmap(text.integer))(said).tolist() == [12, 0, -5]


@pytest.mark.parametrize("template", ["{}", "a{}b", "{}{}", r"\boxed{{{}}} of {}", "none", "{{}}"])
def test_a_template_is_filled_as_str_format_fills_it(template):
    wanted = template.replace("{{", "").count("{}") if template != "{{}}" else 0
    values = [(a, b)[:wanted] for a in NUMBERS for b in (7, -12345)]
    columns = [jnp.asarray(column, jnp.int32) for column in zip(*values, strict=True)]
    fill = jax.jit(jax.vmap(lambda *v: render(template, *v, capacity=40), axis_size=len(values)))
    said = fill(*columns)
    assert strings(said) == [template.format(*value) for value in values]
    assert not np.any(said.cut)


def test_a_template_takes_texts_and_strings_too():
    said = render("{}, {} and {}", literal("one", 9), "two", 3, capacity=20)
    assert to_str(said) == "one, two and 3" and said.capacity == 20


@pytest.mark.parametrize(
    ("template", "message"),
    [("{} {}", "wants 2 values, not 1"), ("{x}", "no names or formats"), ("{:3}", "no names")],
)
def test_a_template_that_does_not_fit_its_values_is_refused(template, message):
    with pytest.raises(ValueError, match=message):
        render(template, 1, capacity=9)


@pytest.mark.parametrize("capacity", [5, 9, 30])
def test_texts_follow_one_another_and_what_does_not_fit_is_told(capacity):
    columns = [random_strings("abc", 200, 9, seed) for seed in range(3)]
    join = jax.jit(jax.vmap(lambda a, b, c: text.concat([a, "-", b, c], capacity)))
    said = join(*(batch(column, 9) for column in columns))
    wanted = [f"{a}-{b}{c}" for a, b, c in zip(*columns, strict=True)]
    assert strings(said) == [string[:capacity] for string in wanted]
    assert said.cut.tolist() == [len(string) > capacity for string in wanted]
    beyond = np.arange(capacity) >= np.asarray(said.length)[:, None]
    assert not np.any(np.asarray(said.bytes)[beyond])


def test_a_text_made_of_one_that_was_cut_is_cut():
    short = text.resize(literal("hello"), 3)
    assert to_str(short) == "hel" and short.cut
    assert text.concat(["x", short], 20).cut
    assert not text.resize(literal("hello", 9), 5).cut
    assert text.where(jnp.asarray(True), short, "long one").cut
    assert not text.where(jnp.asarray(False), short, "long one").cut


def test_substrings_are_those_of_python_and_stay_inside():
    made = random_strings("abcdef", 100, 8)
    rng = random.Random(1)
    spans = [(rng.randint(0, 9), rng.randint(0, 9)) for _ in made]
    start, stop = (jnp.asarray(x) for x in zip(*spans, strict=True))
    cut = jit(jax.vmap(partial(text.substring, capacity=8)))(batch(made, 8), start, stop)
    assert strings(cut) == [s[a:b] for s, (a, b) in zip(made, spans, strict=True)]


def test_find_says_where_python_finds_the_first_and_the_last():
    made, parts = random_strings("ab", 300, 10), random_strings("ab", 300, 3, seed=1)
    said, part = batch(made, 10), batch(parts, 3)
    first = jax.jit(jax.vmap(text.find))(said, part).tolist()
    last = jax.jit(jax.vmap(text.find_last))(said, part).tolist()
    assert first == [s.find(p) for s, p in zip(made, parts, strict=True)]
    assert last == [s.rfind(p) if p else 9 if len(s) == 10 else len(s)
                    for s, p in zip(made, parts, strict=True)]  # fmt: skip


def test_texts_are_equal_whatever_their_capacity():
    made, others = random_strings("ab", 200, 3), random_strings("ab", 200, 3, seed=1)
    same = jit(jax.vmap(text.equal))(batch(made, 5), batch(others, 8)).tolist()
    assert same == [a == b for a, b in zip(made, others, strict=True)]
    assert any(same) and not all(same)
    assert text.equal(literal("ab", 9), "ab") and not text.equal(literal("a\0"), "a")


def test_select_takes_the_text_with_that_index():
    options = ["higher", "no", literal("right", 20)]
    said = jax.jit(jax.vmap(lambda i: text.select(i, options)))(jnp.arange(3))
    assert strings(said) == ["higher", "no", "right"] and said.bytes.shape == (3, 20)


def test_lists_are_joined_by_their_separator():
    listed = jit(jax.vmap(lambda v, n: text.listed(v, n, ", ", capacity=40), (0, None)))
    value = jnp.asarray([[5, -3, 120], [0, 1, 2]])
    for count in range(4):
        said = listed(value, count)
        assert strings(said) == [", ".join(map(str, row[:count])) for row in value.tolist()]


def test_a_board_is_rows_on_lines():
    cell = jnp.asarray([[0, 1, 2], [2, 1, 0]])
    assert to_str(text.board(cell, ".#o")) == ".#o\no#."
    assert to_str(text.board(cell, ".#o", " ")) == ". # o\no # ."


def test_a_literal_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="capacity=3 is too small for 'four'; try 4"):
        literal("four", 3)


def test_bytes_that_are_no_utf8_are_shown_as_such():
    assert to_str(literal("é")) == "é" and literal("é").length == 2
    assert to_str(literal(b"a\xff")) == r"a\xff"

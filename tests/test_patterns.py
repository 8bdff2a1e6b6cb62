r"""Payloads of the last `\boxed{...}` against Python's `re`."""

import random
import re

import jax
import numpy as np
import pytest
from test_text import batch, strings

from jaxrl.text import literal
from jaxrl.text.patterns import boxed, boxed_integer

CAPACITY = 40
PATTERNS = {
    r"\d+": "12",
    r"-?\d+": "-7",
    r"\d+(?:\s+\d+)*": "1 2\t3",
    r"[ABCabc]\s*,?\s*[ABCabc]": "A, c",
    r"[a-zA-Z]+\s\d+\s\d+": "flag 0 3",
    r"(up|down|left|right)": "down",
    r"[-0-9+*/() ]*": "(1+2)*3",
    r"[^\\{}]*": "any thing!",
    r"(a|b)*abb": "abaabb",
    r"(a|ab)(c|bcd)?": "abcd",
}


def boxed_strings(example: str, n: int, seed: int) -> list[str]:
    """Pieces of matches, whole matches, and what breaks them."""
    rng = random.Random(seed)
    whole = f"\\boxed{{{example}}}"
    pieces = ["\\boxed{", "\\boxed", "{", "}", "\\", "boxed{", whole, whole, example, *example]
    pieces += [" ", "1", "a", "A", "\n", "\\boxed{\\boxed{", "}}"]
    made = ["".join(rng.choices(pieces, k=rng.randint(0, 9))) for _ in range(n)]
    return [whole, "", *(string[:CAPACITY] for string in made)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_last_payload_is_that_of_re_findall(pattern):
    made = boxed_strings(PATTERNS[pattern], 1500, seed=len(pattern))
    move = jax.jit(jax.vmap(lambda said: boxed(pattern, said)))(batch(made, CAPACITY))
    last = [re.findall(rf"\\boxed\{{((?:{pattern}))\}}", string) for string in made]
    wanted = [None if not m else m[-1] if isinstance(m[-1], str) else m[-1][0] for m in last]
    assert np.asarray(move.found).tolist() == [payload is not None for payload in wanted]
    assert strings(move.payload) == [payload or "" for payload in wanted]
    assert 200 < sum(payload is not None for payload in wanted) < 1400


@pytest.mark.parametrize("signed", [False, True])
def test_the_last_integer_is_that_of_re_findall_and_saturates(signed):
    pattern = r"\\boxed{(-?\d+)}" if signed else r"\\boxed{(\d+)}"
    made = boxed_strings("-4" if signed else "99", 1500, seed=2)
    made += [rf"\boxed{{{n}}}" for n in (2**31 - 1, 2**31, 10**25, "0007", -5, -(10**11))]
    move = jax.jit(jax.vmap(lambda said: boxed_integer(said, signed=signed)))(batch(made, CAPACITY))
    for string, value, found in zip(made, *map(np.asarray, move), strict=True):
        last = re.findall(pattern, string)
        assert found == bool(last), string
        wanted = int(last[-1]) if last else 0
        assert value == max(-(2**31) + 1, min(2**31 - 1, wanted)), string


def test_what_stands_beyond_the_length_is_not_read():
    said = batch([r"\boxed{1}\boxed{2}"] * 11, 18).replace(length=np.arange(8, 19))
    move = jax.jit(jax.vmap(boxed_integer))(said)
    assert move.value.tolist() == [0] + [1] * 9 + [2]


def test_a_payload_longer_than_its_room_is_cut():
    move = boxed("a*", literal(r"\boxed{aaaa}"), capacity=3)
    assert move.payload.length == 3 and move.payload.cut and move.found


@pytest.mark.parametrize("pattern", [".", "a{2}", "(a", "a)", "[a", "a**", r"\q", "^a", "é", "\\"])
def test_a_pattern_beyond_the_syntax_is_refused_by_name(pattern):
    with pytest.raises(ValueError, match=re.escape(f"pattern={pattern!r}")):
        boxed(pattern, literal("x"))


@pytest.mark.parametrize("pattern", [r"[^a]", r"\}", r"\\", r"[\{]+"])
def test_a_payload_that_could_hold_a_brace_is_refused(pattern):
    with pytest.raises(ValueError, match="a brace or a backslash, which end a payload"):
        boxed(pattern, literal("x"))


def test_a_pattern_with_too_many_states_is_refused():
    with pytest.raises(ValueError, match="more than 256 states"):
        boxed("(a|b)*a" + "(a|b)" * 9, literal("x"))

"""What is read out of free text: the last answer, all of it, and nothing else."""

import random
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit
from test_text import batch, strings

from envs.dataset.gold import CHOICE, NUMBER, STRING, Gold, gold
from jaxrl.text.answers import fingerprint, last_number, whole
from jaxrl.text.patterns import last_match

ROOM = 64
LARGEST = 2**31 - 1

# (said, the number in one spelling or None, whether the text ends with it)
READ = [
    ("4", "4", True),
    ("It is 3. No, 5: it is 4.", "4", True),
    ("3, 4", "4", True),
    ("8-4=4", "4", True),
    ("8 - 4 = 4", "4", True),
    ("8-4", None, False),
    ("8 - 4", None, False),
    ("What is 8-4? Reply with only the number.", None, False),
    ("3 + 1", None, False),
    ("2*2", None, False),
    ("2 \u00d7 2", None, False),
    ("8 \u00f7 2", None, False),
    ("8/2", None, False),
    ("2^2", None, False),
    ("(3+5)-4", None, False),
    ("8\u22124", None, False),
    ("8\u20134", None, False),
    ("8 \u2013 4", None, False),
    ("8 -  4", None, False),
    (r"\boxed{8\u20134}".replace(r"\u2013", "\u2013"), None, False),
    ("2**2", None, False),
    ("2x2", None, False),
    ("2 x  2", None, False),
    (r"2 \times 2", None, False),
    (r"2\cdot2", None, False),
    ("\u20134", "-4", True),
    ("box 4", "4", True),
    ("-4", "-4", True),
    ("\u22124", "-4", True),
    ("is -4.", "-4", True),
    ("8-12=-4", "-4", True),
    ("1) -4", "-4", True),
    ("a\n- 4", "4", True),
    ("COVID-19", "19", True),
    ("-$4.00", "-4", True),
    ("$-4", "-4", True),
    (r"\$4", "4", True),
    ("1,234", "1234", True),
    ("12,345,678.50", "12345678.5", True),
    ("1,23", "23", True),
    ("1234,567", "567", True),
    ("0.5,678", "678", True),
    ("12.0", "12", True),
    ("12.5", "12.5", True),
    ("12.", "12", True),
    ("007", "7", True),
    ("0.50", ".5", True),
    (".5", ".5", True),
    ("v.5", "5", True),
    ("...5", "5", True),
    ("1.2.3", None, False),
    ("-0.0", "0", True),
    ("50%", "50", True),
    ("5 kg", "5", False),
    ("**4**.", "4", True),
    (r"\boxed{4}", "4", True),
    (r"$\boxed{4}$.", "4", True),
    (r"\boxed{4} or 5", "4", False),
    (r"\boxed{3} \boxed{4}", "4", True),
    (r"\boxed{3, 4}", "4", True),
    (r"\boxed{4", "4", True),
    (r"\boxed{\text{4}}", "4", True),
    (r"\boxed{\frac{8}{2}}", None, False),
    (r"\boxed{N}", None, False),
    (r"\boxed{} 4", None, False),
    ("1" * 40, "1" * 32, True),
    ("-", None, False),
    ("four", None, False),
    ("", None, False),
]


MOST = 504
last_numbers, wholes, fingerprints = (jit(jax.vmap(f)) for f in (last_number, whole, fingerprint))


def read(said: list[str], cut: bool = False):
    """The last number of each, read by one program whatever their number."""
    texts = batch([*said, *[""] * (MOST - len(said))], ROOM)
    found = last_numbers(texts.replace(cut=jnp.full(MOST, cut)))
    return jax.tree.map(lambda x: x[: len(said)], jax.tree.map(np.asarray, found))


def test_the_last_number_of_a_text_counts_by_the_stated_rules():
    found = read([said for said, _, _ in READ])
    for (said, number, formed), text, *flags in zip(
        READ, strings(found.text), found.found, found.formed, strict=True
    ):
        assert [bool(flag) for flag in flags] == [number is not None, formed], said
        assert number is None or text == number, said


def test_a_text_that_was_cut_has_no_answer():
    said = ["It is 12"]
    assert read(said).found[0] and not read(said, cut=True).found[0]


def test_a_number_as_an_integer_saturates_and_a_fraction_is_none():
    said = ["41", "-41", "12.5", "12.0", "2147483646", "2147483648", "9" * 30, "-99999999999"]
    value = wholes(read(said).text)
    assert value.tolist() == [41, -41, LARGEST, 12, LARGEST - 1, LARGEST, LARGEST, -LARGEST]


def test_equal_answers_have_equal_fingerprints_and_others_do_not():
    rng = np.random.default_rng(0)
    said = ["no idea", "1,000", "1000.0", "so 1000", *map(str, rng.integers(0, 10**9, 500))]
    mark = np.asarray(fingerprints(read(said)))
    assert mark[0] == -1 and mark[1] == mark[2] == mark[3]
    assert len({*mark[3:]}) == len({"1000", *said[4:]})
    assert np.all((mark[1:] >= 0) & (mark[1:] < 2**24) & (mark[1:] == np.round(mark[1:])))


def written(rng: random.Random, value: Decimal) -> str:
    """A number as somebody may write it."""
    text = f"{abs(value):,}" if rng.random() < 0.5 else f"{abs(value)}"
    text += ("" if "." in text else ".") + "0" * rng.randint(1, 3) if rng.random() < 0.3 else ""
    text = rng.choice(["", "$"]) + text + rng.choice(["", "%", " km"])
    return ("-" if value < 0 else "") + text


def test_the_host_and_the_program_spell_a_number_alike_however_it_is_written():
    rng, cases = random.Random(0), []
    for _ in range(500):
        value = Decimal(rng.randint(-(10 ** rng.randint(1, 12)), 10 ** rng.randint(1, 12)))
        value = value.scaleb(-rng.choice([0, 0, 1, 2, 5]))
        cases.append(written(rng, value))
    spelled = [gold(text) for text in cases]
    assert {one.kind for one in spelled} == {NUMBER}
    assert strings(read([f"First 12, then {text}" for text in cases]).text) == [
        one.text for one in spelled
    ]


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("She sold 48/2 = <<48/2=24>>24.\nIn all 72.\n#### 72", Gold(NUMBER, "72")),
        ("#### 1,234.50", Gold(NUMBER, "1234.5")),
        (r"so it is $\boxed{\frac{3}{4}}$.", Gold(NUMBER, ".75", (3, 4))),
        (r"\boxed{-\dfrac{2}{6}}", Gold(NUMBER, "-1/3", (-1, 3))),
        ("6/3", Gold(NUMBER, "2", (2, 1))),
        (".5", Gold(NUMBER, ".5")),
        ("#### .75", Gold(NUMBER, ".75")),
        (r"#### \boxed{5}", Gold(NUMBER, "5")),
        (r"#### $72$", Gold(NUMBER, "72")),
        ("(7)", Gold(NUMBER, "7")),
        (r"\boxed{-\frac{-3}{4}}", Gold(STRING, r"-\frac{-3}{4}")),
        ("12 million", Gold(STRING, "12 million")),
        ("10 am", Gold(STRING, "10 am")),
        ("2 pi", Gold(STRING, "2 pi")),
        (r"\boxed{\$5.00}", Gold(NUMBER, "5")),
        (r"\boxed{12\text{ cm}}", Gold(NUMBER, "12")),
        ("-$3", Gold(NUMBER, "-3")),
        ("30 km", Gold(NUMBER, "30")),
        ("+7", Gold(NUMBER, "7")),
        ("(B)", Gold(CHOICE, "B")),
        ("C.", Gold(CHOICE, "C")),
        (" Paris,  the City. ", Gold(STRING, "paris, the city")),
        ("3 red apples", Gold(STRING, "3 red apples")),
        (r"\boxed{x^{2}+1}", Gold(STRING, "x^{2}+1")),
        ("1 3/4", Gold(STRING, "1 3/4")),
        ("A1", Gold(STRING, "a1")),
    ],
)
def test_the_answer_of_a_row_is_a_number_a_fraction_a_choice_or_a_string(answer, wanted):
    assert gold(answer) == wanted


def test_a_pattern_is_found_where_it_ends_last_at_the_ends_of_a_text_too():
    cases = {"A": 1, "xA": -1, "A b B": 5, "B A.": 3, "AB": -1, "": -1}
    said = batch(list(cases), 8)
    ends = jit(jax.vmap(lambda text: last_match(r"[^A-Za-z][AB][^A-Za-z]", text)))(said)
    assert ends.tolist() == list(cases.values())

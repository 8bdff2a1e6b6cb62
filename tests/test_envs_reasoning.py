"""Questions: right answers are paid, and nothing else is."""

import random
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit
from test_text import batch, strings

import envs
from envs.reasoning.arithmetic import evaluate
from jaxrl.language import OF
from jaxrl.text import literal

CAPACITY = 24
ROOM = 32  # bytes of a response in these tests beside its answer


def python_value(string: str, numbers: list[int]) -> Fraction | None:
    """By Python's own parser, in fractions; None unless each number is used once."""
    used = [int(digits) for digits in re.findall(r"\d+", string)]
    unary = re.search(r"(^|[-+*/(]) *[-+]", string)
    if sorted(used) != sorted(numbers) or unary or re.search(r"\*\*|\* +\*|//|/ +/", string):
        return None
    source = re.sub(r"\d+", lambda found: f"Fraction({int(found[0])})", string.strip())
    try:
        return eval(source, {"Fraction": Fraction})
    except (SyntaxError, ZeroDivisionError, TypeError):
        return None


def random_expression(rng: random.Random, numbers: list[int]) -> str:
    """A random tree over the numbers in this order, with spaces and needless parentheses."""
    if len(numbers) == 1:
        return rng.choice(["{}", "{}", "{}", "({})", " {} "]).format(numbers[0])
    cut = rng.randrange(1, len(numbers))
    parts = [random_expression(rng, part) for part in (numbers[:cut], numbers[cut:])]
    joined = rng.choice("+-*/").join(parts)
    return rng.choice(["{}", "({})", "( {})"]).format(joined)


def random_cases(n: int) -> list[tuple[list[int], str]]:
    """Numbers, and an expression of them that is often broken in one place."""
    rng, cases = random.Random(0), []
    while len(cases) < n:
        numbers = [rng.choice([1, 1, 2, 3, rng.randint(1, 99)]) for _ in range(rng.randint(2, 4))]
        string = random_expression(rng, rng.sample(numbers, len(numbers)))
        if rng.random() < 0.4:
            at = rng.randrange(len(string) + 1)
            noise = rng.choice([*"0123456789+-*/() ", "", "()", "+1"])
            string = string[:at] + noise + string[at + rng.randrange(2) :]
        if len(string) <= CAPACITY:
            cases.append((numbers, string))
    return cases


def test_expressions_have_the_value_and_the_faults_that_python_finds():
    cases = random_cases(3000)
    said = batch([string for _, string in cases], CAPACITY)
    number = jnp.asarray([numbers + [0] * (4 - len(numbers)) for numbers, _ in cases])
    count = jnp.asarray([len(numbers) for numbers, _ in cases])
    found = jax.jit(jax.vmap(lambda *args: evaluate(*args, most_depth=12)))(said, number, count)
    wanted = [python_value(string, numbers) for numbers, string in cases]
    for case, value, *ours in zip(cases, wanted, *map(np.asarray, found), strict=True):
        numerator, denominator, valid = map(int, ours)
        assert bool(valid) == (value is not None), case
        assert value is None or Fraction(numerator, denominator) == value, case
    assert 500 < sum(value is None for value in wanted) < 2500
    assert any(value is not None and value.denominator > 1 for value in wanted)


def test_parentheses_deeper_than_the_room_are_no_answer():
    for depth, valid in ((3, True), (4, False)):
        said = literal("(" * depth + "1" + ")" * depth)
        assert evaluate(said, jnp.asarray([1]), jnp.asarray(1), 3).valid == valid


def play_one(env, key):
    reset_key, expert_key, random_key, step_key = jax.random.split(key, 4)
    state, first = env.reset(reset_key)
    expert, valid = env.expert(state, expert_key), env.random_player(state, random_key)
    with jax.debug_key_reuse(False):  # one state stepped twice; its steps use no key
        results = [env.step(state, said, step_key)[1] for said in (expert, valid)]
    return state, first, (expert, results[0]), (valid, results[1])


def play(id, **fields):
    env = envs.make(id, **fields)
    return env, *play_many(env)


@jit
def play_many(env):
    """One program for all numbers that an environment's fields can have."""
    return jax.vmap(lambda key: play_one(env, key))(jax.random.split(jax.random.key(0), 300))


QUESTIONS = [
    ("reasoning/chain_sum", {}),
    ("reasoning/chain_sum", {"terms": 4, "digits": 4}),
    ("reasoning/countdown", {}),
    ("reasoning/countdown", {"numbers": 4, "largest": 99}),
]


@pytest.mark.parametrize(("id", "fields"), QUESTIONS)
def test_the_expert_is_right_and_a_valid_player_mostly_wrong(id, fields):
    env, _, first, (expert, right), (valid, ts) = play(id, **fields)
    assert not np.any(first.obs.cut | expert.cut | valid.cut)
    assert np.max(first.obs.length) <= env.prompt_bytes
    assert np.all(right.reward == 1) and np.all(right.metrics["success"] == 1)
    assert np.all(right.terminated & ~right.truncated)
    assert 0 <= np.mean(ts.metrics["success"]) < 0.1
    assert np.all(ts.reward == ts.metrics["success"]), "valid: never the reward of no answer"
    assert set(strings(ts.obs)) <= {"right", "wrong"}


def test_the_question_of_chain_sum_is_what_its_answer_says():
    _, _, first, (expert, _), _ = play("reasoning/chain_sum", terms=3, digits=3)
    for question, answer in zip(strings(first.obs), strings(expert), strict=True):
        assert re.fullmatch(r"\d{3}([+-]\d{3}){2}=\\boxed\{N\}", question)
        assert eval(question.split("=")[0]) == int(answer[7:-1])
    minus = [float("-" in question) for question in strings(first.obs)]
    assert 0 < sum(minus) < len(minus)
    assert first.metrics[OF + "minus"].tolist() == minus
    assert first.metrics[OF + "plus"].tolist() == [1 - x for x in minus]


def test_the_solution_of_countdown_is_of_the_numbers_asked_for():
    _, _, first, (expert, _), _ = play("reasoning/countdown", numbers=4, largest=20)
    for question, answer in zip(strings(first.obs), strings(expert), strict=True):
        target, *numbers = map(int, re.findall(r"\d+", question.split(",")[0]))
        assert numbers == sorted(numbers) and max(numbers) <= 20 and 1 <= target <= 999
        assert python_value(answer[7:-1], numbers) == target


def example(id: str, **fields):
    """A state, its numbers to be replaced."""
    shape, _ = jax.eval_shape(envs.make(id, **fields).reset, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)


MOST = 24  # answers at a time


@jit
def judged(env, state, said):
    return jax.vmap(lambda one: env.step(state, one, jax.random.key(0))[1])(said)


def rewards(id: str, answers: list[str], state, **fields) -> list[float]:
    env = envs.make(id, thought_bytes=ROOM, **fields)
    said = batch([*answers, *[""] * (MOST - len(answers))], env.response_bytes)
    with jax.debug_key_reuse(False):
        ts = jax.tree.map(lambda x: x[: len(answers)], judged(env, state, said))
    assert np.all(ts.terminated) and np.all(ts.metrics["success"] == (ts.reward == 1))
    return ts.reward.tolist()


def test_a_sum_takes_the_number_alone():
    state = example("reasoning/chain_sum")
    state = state.replace(number=jnp.asarray([12, -34, 0, 0]))
    right = [r"\boxed{-22}", r"so \boxed{5}, no: \boxed{-22}.", r"\boxed{-022}"]
    wrong = [r"\boxed{22}", r"\boxed{-220}", r"\boxed{-22}\boxed{1}", r"\boxed{-99999999999}"]
    none = ["", "-22", r"\boxed{}", r"\boxed{-22 or 22}", r"\boxed{12-34}", r"\boxed{ -22}",
            r"\boxed{--22}", r"\boxed{-}", r"\boxed{-22", r"\boxed{-22.0}"]  # fmt: skip
    found = rewards("reasoning/chain_sum", right + wrong + none, state)
    assert found == pytest.approx([1] * len(right) + [0] * len(wrong) + [-0.1] * len(none))


def test_partial_credit_counts_the_sign_and_the_digits_in_their_places():
    state = example("reasoning/chain_sum")
    state = state.replace(number=jnp.asarray([12, -34, 0, 0]))
    share = {"-22": 2, "22": 2 / 3, "-32": 2 / 3, "-2": 2 / 3, "-122": 3 / 4, "7": 0, "-20": 2 / 3}
    said = [rf"\boxed{{{answer}}}" for answer in share]
    found = rewards("reasoning/chain_sum", said, state, partial=0.5)
    assert found == pytest.approx([0.5 * x for x in share.values()])
    state = state.replace(number=jnp.asarray([7, -7, 0, 0]))
    said = [r"\boxed{0}", r"\boxed{-10}", r"\boxed{10}", ""]
    found = rewards("reasoning/chain_sum", said, state, partial=0.5)
    assert found == pytest.approx([1, 0.5 / 3, 1 / 3, -0.1])
    with pytest.raises(ValueError, match=r"partial=2.0 must be a number from 0 to 1"):
        envs.make("reasoning/chain_sum", partial=2.0)


def test_a_countdown_takes_each_number_once_and_nothing_but_the_target():
    state = example("reasoning/countdown")
    state = state.replace(number=jnp.asarray([3, 8, 8, 0]), target=jnp.asarray(40))
    right = [r"\boxed{8*(8-3)}", r"no \boxed{1}; \boxed{( 8 - 3 ) * 8}", r"\boxed{((8-03))*8}"]
    wrong = [r"\boxed{40}", r"\boxed{8*5}", r"\boxed{8*8-3}", r"\boxed{8*(8-3)+0}", r"\boxed{()}",
             r"\boxed{8*(8-3)+8-8}", r"\boxed{8*(8-3}", r"\boxed{8(8-3)}", r"\boxed{3/(8-8)}",
             r"\boxed{-3*8+8*8}", r"\boxed{3 8 8}", r"\boxed{ }", r"\boxed{8*5+0*3*8}"]  # fmt: skip
    none = ["", "8*(8-3)", r"\boxed{}", r"\boxed{8*(8-3)=40}", r"\boxed{8x(8-3)}"]
    found = rewards("reasoning/countdown", right + wrong + none, state)
    assert found == pytest.approx([1] * len(right) + [0] * len(wrong) + [-0.1] * len(none))


def test_a_quotient_that_is_no_whole_number_reaches_no_target_until_it_is_one():
    state = example("reasoning/countdown", max_numbers=3)
    state = state.replace(number=jnp.asarray([4, 6, 6]), target=jnp.asarray(9))
    assert rewards("reasoning/countdown", [r"\boxed{6/4*6}", r"\boxed{6*6/4}"], state) == [1, 1]
    state = state.replace(target=jnp.asarray(1))
    assert rewards("reasoning/countdown", [r"\boxed{6/(4*6)}", r"\boxed{6/4-6}"], state) == [0, 0]


def test_one_program_asks_questions_of_several_difficulties():
    env = envs.make("reasoning/chain_sum")

    @jax.jit
    def ask(terms, digits):
        return jax.vmap(lambda t, d, k: env.replace(terms=t, digits=d).reset(k)[1].obs)(
            terms, digits, jax.random.split(jax.random.key(0), 3)
        )

    said = strings(ask(jnp.asarray([1, 2, 9]), jnp.asarray([3, 1, 2])))
    assert [re.sub(r"\d", "0", s).replace("-", "+") for s in said] == [
        r"000=\boxed{N}",
        r"0+0=\boxed{N}",
        r"00+00+00+00=\boxed{N}",  # clipped to max_terms
    ]


@pytest.mark.parametrize(
    ("id", "fields", "message"),
    [
        (
            "reasoning/chain_sum",
            {"terms": 5},
            r"terms=5 must be a number from 1 to 4; .* larger max",
        ),
        ("reasoning/chain_sum", {"digits": 0}, r"digits=0 must be a number from 1 to 4; try 2"),
        ("reasoning/chain_sum", {"max_digits": 9}, r"max_digits=9 must be a number from 1 to 8"),
        ("reasoning/chain_sum", {"thought_bytes": -1}, r"thought_bytes=-1 must be 0 to"),
        ("reasoning/countdown", {"numbers": 1}, r"numbers=1 must be a number from 2 to 4"),
        ("reasoning/countdown", {"largest": 100}, r"largest=100 must be a number from 1 to 99"),
        ("reasoning/countdown", {"max_numbers": 5}, r"max_numbers=5 .* max_largest=99: .* exact"),
    ],
)
def test_a_difficulty_without_room_is_refused(id, fields, message):
    with pytest.raises(ValueError, match=message):
        envs.make(id, **fields)

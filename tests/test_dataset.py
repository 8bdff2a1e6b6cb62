"""A list of questions with answers: what a file may hold, and what is right."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizer_files
from quick import jit
from test_text import batch, strings

import envs
from benchmarks.word_problems import chats, problems
from envs.dataset.rows import read
from jaxrl.algos import grpo as grpo_algorithm
from jaxrl.check import check_structure
from jaxrl.language import ANSWER
from jaxrl.lm import folders
from jaxrl.lm.learn import rows as prompts
from jaxrl.lm.learn.rows import longest_row
from jaxrl.text import to_str
from train import evaluate, grpo, sft

GSM8K = {
    "question": "Nina sold clips to 48 friends in May, and half as many in June. How many in all?",
    "answer": "In June 48/2 = <<48/2=24>>24 clips.\nIn all 48+24 = <<48+24=72>>72.\n#### 72",
}
ROWS = [
    GSM8K,
    {"question": "a decimal", "answer": "#### 1,234.50"},
    {"question": "a fraction", "answer": r"so $\boxed{\frac{3}{4}}$.", "id": 7, "source": "mine"},
    {"question": "a choice", "answer": "(B)"},
    {"question": "a string", "answer": " Paris,  the City. "},
    {"question": "a negative", "answer": -7},
    {"question": "a third", "answer": "1/3"},
]
# row -> what is right, with and without the asked form; what is wrong; what is no answer
JUDGED = {
    0: (["#### 72", "#### $72.00 clips", "#### 1\n####\n72", r"#### 3 \boxed{72}"],
        ["72", "I say 71. No, 72"], ["#### 71", "72 or 73", r"\boxed{72} #### 3", "#### 72 73"],
        ["48+24", "", "####"]),
    1: (["#### 1234.5"], ["1,234.500"], ["1234.51", "-1234.5", "1234"], ["none"]),
    2: (["#### 6/8", r"\boxed{\dfrac{3}{4}}", "#### .75"], ["3/4"],
        ["-3/4", "4/3", r"\boxed{-\frac{3}{4}}", "4", "3/40", "3 x/4"], ["1 3/4", "3/4/1"]),
    3: (["#### B", r"\boxed{(B)}"], ["It is (B).", "A car. B"], ["B or A", "C"], ["b", "AB"]),
    4: (["#### paris, the city"], ["I think\n**Paris, the  City**."], ["Paris", "Paris the city"],
        ["", "."]),
    5: (["#### -7", "#### \u22127"], ["-7"], ["7", "#### 7"], ["-"]),
    6: (["#### 2/6"], ["1/3"], ["0.3333", "-1/3", "1"], ["1/3/3"]),
}  # fmt: skip


def file(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    path = file(tmp_path_factory.mktemp("rows"), ROWS)
    return envs.make("dataset", data=str(path), split="all", prompt="instruct", format=0.1)


@pytest.fixture(scope="module")
def judge(env):
    """(places [N], texts [N]) -> TimeStep [N], one after the other: N is no part of the program."""
    step = jit(lambda state, said: env.step(state, said, jax.random.key(0))[1])

    def judged(state, said):
        one = [jax.tree.map(lambda x, i=i: x[i], (state, said)) for i in range(len(state))]
        found = [step(*each) for each in one]
        return jax.tree.map(lambda *x: np.stack(x), *found)

    return judged


ANSWERS = [
    *(".5", "#### .75", r"#### \boxed{5}", "6/3", "#### 8/4", r"\boxed{\frac{4}{2}}", "$72$"),
    *("(7)", "#### $72$", "3/4", r"\frac{-3}{4}", r"-\frac{3}{4}", r"\boxed{-\frac{-3}{4}}"),
    *("12 million", "10 am", "2 pi", "1,234.50", "B", "(C)", "New York", "30 km", "5%", "-$3"),
    *(r"\boxed{\$5.00}", "\u22124", "+7", "1e3", "x = 3", "**Paris**.", "2:30", "0", "-0.0"),
    *("1/3", r"\boxed{x^{2}+1}"),
]


def test_what_a_row_states_is_right_when_it_is_said_again(tmp_path):
    """Whatever is accepted: or nobody could be right."""
    rows = [{"question": f"{i}", "answer": answer} for i, answer in enumerate(ANSWERS)]
    env = envs.make("dataset", data=str(file(tmp_path, rows)), split="all")
    row = jnp.arange(env.num_rows)

    @jax.jit
    @jax.vmap
    def said_again(row):
        key = jax.random.key(0)
        state, _ = env.reset_row(row, key)
        return state, env.step(state, env.expert(state, key), key)[1].metrics["success"]

    state, success = said_again(row)
    wrong = [ANSWERS[env.rows.line[s] - 1] for s, ok in zip(state, success, strict=True) if not ok]
    assert wrong == []


def place(env, row):
    """Where a row of the file lies among those on the device."""
    return env.rows.line.tolist().index(row + 1)


def test_answers_are_judged_exactly_and_their_form_apart(env, judge):
    said, at, wanted = [], [], []
    for row, kinds in JUDGED.items():
        for kind, texts in enumerate(kinds):
            said += texts
            at += [place(env, row)] * len(texts)
            wanted += [[(1, 0, 0, 1.1), (1, 0, 1, 1.0), (0, 0), (0, 1)][kind]] * len(texts)
    text = jax.tree.map(np.asarray, batch(said, env.response_bytes))
    ts = judge(np.asarray(at, np.int32), text)
    m = ts.metrics
    found = zip(m["success"], m["no_answer"], m["wrong_form"], ts.reward, strict=True)
    for text, expected, got in zip(said, wanted, found, strict=True):
        assert np.allclose([float(x) for x in got][: len(expected)], expected), (text, got)
    assert np.all((np.asarray(m[ANSWER]) == -1) == (np.asarray(m["no_answer"]) == 1))
    right = [a for a, w, i in zip(np.asarray(m[ANSWER]), wanted, at, strict=True)
             if w[0] and i == place(env, 2)]  # fmt: skip
    assert len({*right}) == 1, "two spellings of the right answer are one answer"


def test_each_row_is_told_and_its_own_solution_is_right_in_the_asked_form(env, judge):
    key = jax.random.key(0)

    @jit
    @jax.vmap
    def begin(row):
        state, ts = env.reset_row(row, key)
        return state, ts, env.expert(state, key), env.random_player(state, key)

    state, ts, said, other = jax.tree.map(np.asarray, begin(np.arange(env.num_rows)))
    told = dict(zip((int(n) for n in env.rows.line), strings(ts.obs), strict=True))
    assert told[1] == GSM8K["question"] + "\n" + env.instruction
    assert "In June 48/2 = 24 clips.\nIn all 48+24 = 72.\n#### 72" in strings(said)
    ts = judge(state, said)
    assert np.allclose(ts.reward, 1.1) and np.all(ts.terminated)
    ts = judge(state, said.replace(cut=np.ones_like(said.cut)))
    assert np.all(ts.metrics["no_answer"] == 1), "more may have followed what did not fit"
    assert np.all(judge(state, other).metrics["success"] == 0)
    terse = env.replace(prompt="terse")
    assert to_str(jit(terse.reset_row)(place(env, 0), key)[1].obs) == GSM8K["question"]


def test_a_data_set_keeps_the_contract_in_both_prompts(env):
    with jax.debug_key_reuse(False):
        for prompt in ("terse", "instruct"):
            check_structure(env.replace(prompt=prompt), seed=0)


def test_rows_are_split_by_a_hash_of_the_question_alone(tmp_path):
    rows = [{"question": f"number {i}", "answer": i} for i in range(300)]
    parts = {}
    for split in ("train", "test", "all"):
        env = envs.make("dataset", data=str(file(tmp_path, rows)), split=split)
        reset = jit(jax.vmap(lambda row, env=env: env.reset_row(row, jax.random.key(0))[1].obs))
        parts[split] = strings(reset(jnp.arange(env.num_rows)))
    assert sorted(parts["train"] + parts["test"]) == sorted(parts["all"])
    for question in parts["all"]:
        tenth = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") % 10 == 0
        assert (question in parts["test"]) == tenth and (question in parts["train"]) != tenth
    env = envs.make("dataset", data=str(file(tmp_path, rows[::-1])))
    test = env.held_out
    assert test.split == "test" and test.held_out is test
    drawn = jit(jax.vmap(lambda key: test.reset(key)[1].obs))(
        jax.random.split(jax.random.key(0), 99)
    )
    assert {*strings(drawn)} <= {*parts["test"]} and len({*strings(drawn)}) > 15
    assert envs.make("CartPole-v1") is not None and envs.make("reasoning/chain_sum").num_rows == 0


def test_a_file_may_have_a_mark_other_line_ends_and_rows_that_stand_there_twice(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = json.dumps(GSM8K)
    path.write_bytes(b"\xef\xbb\xbf" + f"{row}\r\n\r\n{row}".encode())
    assert [one.line for one in read(path)] == [1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "it is not JSON"),
        ("[1]", 'an object with "question" and "answer" is needed'),
        ('{"question": "q"}', 'the row has no "answer"'),
        ('{"question": "q", "answer": ""}', '"answer" is empty'),
        ('{"question": " ", "answer": 1}', '"question" is empty'),
        ('{"question": "q", "answer": null}', '"answer" is a NoneType, not a text'),
        ('{"question": "q", "answer": true}', '"answer" is a bool, not a text'),
        ('{"question": "q", "answer": "so many words ####"}', "the answer is empty"),
        ('{"question": "q", "answer": "one\\ntwo"}', "the answer has several lines and neither"),
        ('{"question": "q", "answer": "#### 1/0"}', "the answer 1/0 divides by 0"),
        ('{"question": "q", "answer": "%s"}' % ("x" * 300), "the answer is a string of 300 bytes"),
        ('{"question": "q", "answer": "%s"}' % ("7" * 40), "more than 32 digits and signs"),
        ('{"question": "first", "answer": 2}', "the question of line 1 has another answer here"),
        ('{"question": "q", "answer": 2, "choices": ["1"]}', 'the row has "choices", which is not'),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_refused_with_its_line(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "first", "answer": 1}) + "\n\n" + line + "\n")
    with pytest.raises(ValueError) as error:
        envs.make("dataset", data=str(path))
    assert str(error.value).startswith(f"{path}, line 3: ") and message in str(error.value)


def test_a_file_without_rows_and_a_split_without_any_are_refused(tmp_path):
    path = file(tmp_path, [])
    with pytest.raises(ValueError, match="holds no rows; each line is"):
        envs.make("dataset", data=str(path))
    path = file(tmp_path, [{"question": "number 0", "answer": 1}])
    assert not read(path)[0].held_out
    with pytest.raises(ValueError, match=r"split=test of .* has no rows; try split=all"):
        envs.make("dataset", data=str(path), split="test")
    with pytest.raises(ValueError, match="split=dev must be train, test or all"):
        envs.make("dataset", data=str(path), split="dev")
    with pytest.raises(ValueError, match="dataset needs a value for data"):
        envs.make("dataset")


def trained_on(path, trainer=grpo, algo=None, **options):
    given = {} if algo is None else {"algo": algo}
    return trainer.TRAINER.setup(trainer.Args(env="dataset", data=path, **options, **given))


def test_trainers_read_the_rows_from_data_and_measure_their_prompts(tmp_path):
    path = file(tmp_path, ROWS)
    task = trained_on(path, sft, env_args=("split=all",))
    assert task.env.num_rows == len(ROWS) and task.env.data == str(path)
    assert sft.Args(env="dataset", data=path).files()["data"] == path
    spoken = folders.chat_tokenizer(None)
    tokens, row = longest_row(task.env, spoken)
    assert tokens == len(GSM8K["question"]) + spoken.chat.overhead and row == f"{path}, line 1"
    short = grpo_algorithm.Config(prompt_tokens=tokens - 1)
    with pytest.raises(ValueError) as error:
        trained_on(path, algo=short, env_args=("split=all",))
    assert f"too short for {path}, line 1: its prompt has {tokens} tokens" in str(error.value)
    for wrong in ({"path": None}, {"env_args": (f"data={path}",)}):
        with pytest.raises(ValueError, match="env=dataset needs a file of rows; try --data"):
            trained_on(**({"path": path} | wrong))


def test_rows_are_measured_in_pieces_and_one_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "PIECE", 3)
    questions = [f"number {i}" + "\x04" * (i == 6) for i in range(8)]
    path = file(tmp_path, [{"question": x, "answer": 1} for x in questions])
    env = envs.make("dataset", data=str(path), split="all")
    at = [place(env, row) for row in range(8)]
    assert [[*prompts._told(env)][i] for i in at] == questions
    spoken = folders.chat_tokenizer(None)
    assert longest_row(env, spoken) == (9 + spoken.chat.overhead, f"{path}, line 7")
    lacking = tmp_path / "tokenizer.json"
    changed = json.loads(tokenizer_files.file("qwen2").read_text())
    del changed["model"]["vocab"][chr(256 + 4)]
    lacking.write_text(json.dumps(changed))
    with pytest.raises(ValueError) as error:
        longest_row(env, folders.chat_tokenizer(lacking, "chatml"))
    told = r"'user\nnumber 6\x04' cannot be read: byte 4 has no token; leave it out."
    assert str(error.value) == f"{path}, line 7: {told}"
    cfg = grpo_algorithm.Config(prompt_tokens=5, unread="mask")
    assert prompts.with_room(env, folders.chat_tokenizer(lacking, "chatml"), cfg) is cfg


def test_word_problems_are_distinct_the_same_by_seed_and_right():
    rows = list(problems(600, 0, 3))
    assert rows == list(problems(600, 0, 3)) != list(problems(600, 1, 3))
    assert len({row["question"] for row in rows}) == 600
    for row in rows:
        *sentences, last = row["answer"].split("\n")
        assert 1 <= len(sentences) <= 4
        for sentence in sentences:
            words = sentence.split(" = ")
            left, operator, right = words[0].split()[-3:]
            value = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
            result = value[operator](int(left), int(right))
            assert words[1].split()[0].rstrip(".") == str(result) and result > 0
        assert last == f"#### {result}"
    assert {len(row["answer"].split("\n")) for row in problems(50, 0, 1)} == {2}


def test_conversations_ask_as_the_environment_does_and_leave_the_test_split_alone(tmp_path):
    rows = {row["question"]: row["answer"] for row in problems(300, 0, 1)}
    (path := tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows.items())
    )
    env = envs.make("dataset", data=path, prompt="instruct", split="test")
    asked = jax.jit(lambda row: env.reset_row(row, jax.random.key(0))[1].obs)
    tested = {to_str(asked(row)) for row in range(env.num_rows)}
    said = [[part["content"] for part in chat["messages"]] for chat in chats(250, 0, 1)]
    assert tested and not tested & {question for question, _ in said}
    learned = envs.make("dataset", data=path, prompt="instruct", split="train")
    asked = jax.jit(lambda row: learned.reset_row(row, jax.random.key(0))[1].obs)
    for question, answer in said[:3]:
        assert rows[question.split("\n")[0]] == answer
    assert {to_str(asked(row)) for row in range(3)} == {question for question, _ in said[:3]}


def test_rows_are_not_given_to_an_environment_without_any(tmp_path):
    path = file(tmp_path, ROWS)
    args = evaluate.Args(model="nano", env="reasoning/chain_sum", data=path)
    with pytest.raises(ValueError, match=r"is not read by env=reasoning/chain_sum; try --env data"):
        evaluate.of_model(args)

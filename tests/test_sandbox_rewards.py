"""Rewards by unit tests cannot be fooled, and the programming tasks can be solved."""

import json

import pytest

from benchmarks.programming_families import FAMILIES
from benchmarks.programming_tasks import problems, run
from jaxrl.envs.dataset.rows import read
from jaxrl.sandbox import CodeTool, Outcome, bwrap, judge
from jaxrl.sandbox.completion import code_of
from jaxrl.sandbox.rewards import all_tests, unit_tests

pytest.importorskip("pydantic_monty", reason="pip install 'jaxrl[sandbox]'")
ADD = "def add(a, b):\n    return a + b\n"
TESTS = ["assert add(2, 3) == 5", "assert add(-4, 1) == -3", "assert add('a', 'b') == 'ab'"]


@pytest.fixture(scope="module", params=["monty", "bwrap"])
def tool(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bwrap, "ESCAPES", {})  # test_sandbox.py has them
        try:
            found = CodeTool(request.param, seconds=0.3)
        except (ValueError, ImportError) as error:
            pytest.skip(str(error))
    yield found
    found.close()


def fenced(code):
    return f"Here it is:\n```python\n{code}```\nDone."


def test_a_solution_is_paid_for_each_test_that_it_passes(tool):
    wrong = "def add(a, b):\n    return 5\n"
    halves = "def add(a, b):\n    return abs(a + b)\n"
    completions = [fenced(code) for code in (ADD, wrong, halves, "")]
    row = {"prompts": ["?"] * 4, "completions": completions, "tests": [TESTS] * 4}
    told = {}
    rewards = unit_tests(**row, entry=["add"] * 4, log_metric=told.__setitem__, tool=tool)
    assert rewards == [1.0, 1 / 3, 1 / 3, 0.0]
    assert told == {"sandbox_failures": 0.0}
    assert all_tests(**row, tool=tool) == [1.0, 0.0, 0.0, 0.0]


CHEATS = {
    "an object that equals everything": """
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 5
    def __repr__(self): return '5'
def add(a, b): return Any()
""",
    "a list of them": """
class Any:
    def __eq__(self, other): return True
def add(a, b): return [Any(), Any()]
""",
    "an early end": "raise SystemExit(0)",
    "another early end": "import sys\nsys.exit(0)",
    "the end of the process": "import os\nos._exit(0)",
    "an end when it is asked": "def add(a, b): raise SystemExit",
    "another print, len and type": """
def print(*a): pass
def len(x): return 0
def type(x): return int
def spelled(x): return 'true'
def add(a, b): return None
""",
    "another json": "import json\ntry: json.dumps = lambda x: 'true'\nexcept Exception: pass\n"
    "def add(a, b): return None",
    "lines among the answers": """
import os
line = b'{"kind": "%s", "output": "", "message": "", "value": "true"}\\n'
for fd in range(10):
    for kind in (b'ok', b'failure', b'ok'):
        try: os.write(fd, line % kind)
        except Exception: pass
def add(a, b): return None
""",
    "an answer with no line's end": """
import os
for fd in range(10):
    try: os.write(fd, b'x' * 100)
    except Exception: pass
os._exit(0)
""",
    "a text of the value": "def add(a, b): return str(a) + '+' + str(b)",
    "no function": "add = 5",
    "a loop": "while True: pass",
    "a loop when it is asked": "def add(a, b):\n    while True: pass",
    "too much memory": "def add(a, b):\n    x = [0]\n    while True: x = x + x",
    "no code": "I do not know.",
}


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_passes_a_test_or_is_taken_for_a_failure_of_the_sandbox(tool, name):
    rewards = unit_tests([""], [fenced(CHEATS[name])], [TESTS[:2]], tool=tool)
    assert rewards == [0.0]


def test_what_is_expected_is_nowhere_to_be_found(tool):
    """Not in a frame, nor in anything that the interpreter knows of."""
    code = """
found = []
try:
    import gc, sys
    frame = sys._getframe()
    while frame:
        found += [*frame.f_locals.values(), *frame.f_globals.values()]
        frame = frame.f_back
    found += gc.get_objects()
except Exception:
    found += locals().values()
def add(a, b):
    for value in found:
        if str(int('602214076022') + 1) in str(value):
            return int('602214076022') + 1
"""
    calls = [f"assert add({x}, {602214076023 - x}) == 602214076023" for x in (5, 602214076022)]
    assert unit_tests([""], [fenced(code)], [calls], tool=tool) == [0.0]


def test_a_failure_of_the_sandbox_is_no_reward(monkeypatch):
    class Broken:
        def run(self, code, calls, stdin):
            return [Outcome("failure", message="gone")] * (1 + len(calls))

    tool = CodeTool.__new__(CodeTool)
    tool.backend = Broken()
    told = {}
    row = {"prompts": [""], "completions": [fenced(ADD)], "tests": [TESTS], "tool": tool}
    assert unit_tests(**row, log_metric=told.__setitem__) == [None]
    assert all_tests(**row) == [None]
    assert told == {"sandbox_failures": 1.0}


def test_programs_are_judged_by_what_they_print(tool):
    tests = [{"stdin": "2 3\n", "stdout": "5"}, {"stdin": "1 1\n", "stdout": "2 \n"}]
    code = "a, b = input().split()\nprint(int(a) + int(b))\n"
    assert judge.passed(tool, code, tests) == [True, True]
    assert judge.passed(tool, "print(5)", tests) == [True, False]
    assert judge.passed(tool, "print(5)\nraise SystemExit", tests) == [False, False]


@pytest.mark.parametrize(
    "test",
    [
        "assert add(1, 2)",
        "assert add(1, 2) == add(2, 1)",
        "assert add(1, 2) == 3 == 3",
        "assert add(1, 2) != 3",
        "add(1, 2) == 3",
        "assert (",
        {"stdin": "1"},
        {"stdin": 1, "stdout": "2"},
        5,
    ],
)
def test_what_cannot_be_judged_outside_is_refused(test):
    with pytest.raises(ValueError, match=r"^tests=.*; try .*\.$"):
        judge.passed(CodeTool.__new__(CodeTool), ADD, [test])


def test_a_row_without_tests_is_refused():
    for tests in (None, [[]], ["assert f() == 1"]):
        with pytest.raises(ValueError, match=r"^tests.*; try .*\.$"):
            unit_tests([""], [ADD], tests, tool=CodeTool.__new__(CodeTool))


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("x = 1", "x = 1"),
        ("a\n```python\nx = 1\n```\nb\n```py\nx = 2\n```\nc", "x = 2\n"),
        ("```python\nx = 1\n```\nIt prints\n```\n5\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```text\nno\n```", ""),
        ("a <python>x = 1</python> b <python>x = 2</python>", "x = 2"),
        ("<python>\n```python\nx = 3\n```\n</python>", "x = 3\n"),
        ("<python>x = 1</python>\n```python\nx = 2\n```", "x = 2\n"),
        ("```python\nx = 1", "x = 1"),
        ([{"role": "assistant", "content": "```python\nx = 1\n```"}], "x = 1\n"),
        (
            [
                {"role": "assistant", "content": "<python>x = 1</python>"},
                {"role": "tool", "content": "```python\nx = 9\n```"},
                {"role": "assistant", "content": "```python\nx = 2\n```"},
            ],
            "x = 2\n",
        ),
        ([{"role": "assistant", "content": None}], ""),
        ([], ""),
    ],
)
def test_the_last_block_of_python_counts(completion, code):
    assert code_of(completion) == code


def test_long_completions_are_read_in_no_time():
    for text in ("`" * 10**5, "<python>" * 10**4, "```python\n" * 10**4, "```py " * 10**4):
        assert isinstance(code_of(text), str)


@pytest.fixture(scope="module")
def rows():
    return [*problems(240, 0, 3)]


def test_tasks_are_many_and_the_same_for_a_seed(rows, tmp_path):
    file = tmp_path / "tasks.jsonl"
    run(["--out", str(file)])
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows
    assert len({row["question"] for row in rows}) == 240 > 200
    assert min(len(row["tests"]) for row in rows) >= 5
    levels = [row["level"] for row in rows]
    assert min(map(levels.count, (1, 2, 3))) > 50
    assert len({tuple(family.name) for family in FAMILIES}) == len(FAMILIES)
    there = read(file)  # as `--env dataset` does
    assert len(there) == 240 and 5 < sum(row.held_out for row in there) < 60
    with pytest.raises(ValueError, match="num=5000 problems are not there; try 1"):
        [*problems(5000, 0, 1)]


def test_every_solution_passes_and_no_naive_one_does(rows):
    """In the sandbox: a constant, what was given, nothing."""
    tests = [row["tests"] for row in rows]
    assert all_tests(prompts=tests, completions=[r["answer"] for r in rows], tests=tests) == [
        1.0
    ] * len(rows)
    some = rows[::3]
    tests = [row["tests"] for row in some]
    for body in ("return {value}", "return args[0]", "pass"):
        written = []
        for row in some:
            _, value = judge.call_and_value(row["tests"][-1])
            written.append(f"def {row['entry']}(*args):\n    {body.format(value=repr(value))}")
        assert max(all_tests(prompts=tests, completions=written, tests=tests)) == 0.0

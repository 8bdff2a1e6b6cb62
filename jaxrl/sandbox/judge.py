"""Unit tests of code that must not know them: it is asked outside, and compared outside.

A test is a line `assert CALL == VALUE`, or {"stdin": .., "stdout": ..} of a whole program. Only the
call enters the sandbox. So no code passes by redefining `assert`, `==` or `print`, by ending early,
by an object that equals everything, or by looking for what is expected of it.
"""

import ast
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jaxrl.sandbox.tool import CodeTool


def passed(tool: CodeTool, code: str, tests: Sequence[Any]) -> list[bool] | None:
    """Which tests the code passes; None where the sandbox failed. ValueError for what is no test.

    The calls share one run of the program and its limits; every other test runs it again.
    """
    if isinstance(tests, str) or not tests:
        raise ValueError(f"tests={tests!r} must be a list; try ['assert add(1, 2) == 3'].")
    calls = {i: call_and_value(test) for i, test in enumerate(tests) if isinstance(test, str)}
    asked = tool.ask(code, [call for call, _ in calls.values()]) if calls else []
    outcomes = dict(zip(calls, asked, strict=True))
    right = {i: outcomes[i].ok and outcomes[i].value == value for i, (_, value) in calls.items()}
    for i, test in enumerate(tests):
        if i not in calls:
            stdin, stdout = _texts(test)
            outcomes[i] = tool.run(code, stdin)
            right[i] = outcomes[i].ok and _lines(outcomes[i].output) == _lines(stdout)
    if any(outcome.kind == "failure" for outcome in outcomes.values()):
        return None
    return [right[i] for i in range(len(tests))]


@lru_cache(maxsize=4096)
def call_and_value(test: str) -> tuple[str, Any]:
    """The two sides of `assert CALL == VALUE`."""
    try:
        (asserted,) = ast.parse(test.strip()).body
        assert isinstance(asserted, ast.Assert) and isinstance(asserted.test, ast.Compare)
        assert len(asserted.test.ops) == 1 and isinstance(asserted.test.ops[0], ast.Eq)
        return ast.unparse(asserted.test.left), ast.literal_eval(asserted.test.comparators[0])
    except (AssertionError, SyntaxError, ValueError, TypeError):
        text = (
            f"tests={test!r} must be CALL == VALUE with a plain value; try assert add(1, 2) == 3."
        )
        raise ValueError(text) from None


def _texts(test: Any) -> tuple[str, str]:
    texts = [test.get(name) for name in ("stdin", "stdout")] if isinstance(test, Mapping) else []
    if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"tests={test!r} must have texts stdin and stdout; try {{'stdin': '2', 'stdout': '4'}}."
        )
    return str(texts[0]), str(texts[1])


def _lines(text: str) -> list[str]:
    """Lines without the white space at their ends."""
    return [line.rstrip() for line in text.rstrip().splitlines()]

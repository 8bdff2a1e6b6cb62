"""Rewards by unit tests, in TRL's form: `--reward jaxrl.sandbox.rewards:unit_tests`.

A row's field `tests` is a list of tests (`jaxrl.sandbox.judge`). None, so no reward at all, where
the sandbox failed. What the sandbox refused, or a limit ended, did not pass.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxrl.sandbox.completion import code_of
from jaxrl.sandbox.judge import passed
from jaxrl.sandbox.tool import CodeTool, default

Shares = list[float | None]


def unit_tests(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    tests: Sequence[Sequence[Any]] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    tool: CodeTool | None = None,
    **columns: Any,
) -> Shares:
    """The share of its tests that each completion's code passes."""
    del prompts, columns  # other fields of the row
    if tests is None:
        raise ValueError("tests is no field of these rows; try benchmarks/programming_tasks.py.")
    tool = tool or default()
    shares: Shares = []
    for completion, own in zip(completions, tests, strict=True):
        right = passed(tool, code_of(completion), own)
        shares.append(None if right is None else sum(right) / len(right))
    if log_metric is not None:
        log_metric("sandbox_failures", float(shares.count(None)))
    return shares


def all_tests(**row: Any) -> Shares:
    """1 for each completion whose code passes all of its tests, else 0."""
    return [None if share is None else float(share == 1) for share in unit_tests(**row)]

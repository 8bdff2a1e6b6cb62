"""The examples of docs/embedding.md, as they stand there."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parent.parent / "docs" / "embedding.md"


def test_the_examples_run():
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["returns"].shape == (len(names["steps"]), 2)
    assert names["action"].shape == () and names["run"].policy.spec.observation_space.shape == (
        2,
        4,
    )
    assert np.isfinite(names["run"].metrics["eval_return"]).any()
    assert names["scores"].shape == (6,) and names["best"].network is not None
    assert names["reward"].shape == (1000, 64)
    losses = np.asarray(names["quotient"](names["metrics"]["loss"]))[:, -1]
    assert len(np.unique(losses)) == 6  # every learner is another one

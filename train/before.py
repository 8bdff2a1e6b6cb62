"""What a policy scores before it learns: the first iteration of learning plays with it as it is."""

from typing import Any

import numpy as np

from jaxrl.lm.learn.report import FAILED, VARIED
from jaxrl.metrics import Metrics

Before = dict[str, Any]  # success, episodes, failed by reason, nothing_scored


def before(host: Metrics, index: int) -> Before | None:
    """Of iteration `index` of leaves [count, K]; None where nothing says what succeeded.

    Over all K members. Only of episodes that a policy played: what imitates knows no `VARIED`.
    """
    if "success" not in host or VARIED not in host:
        return None

    def total(name: str) -> tuple[float, float]:
        above, below = (float(np.sum(x[index], dtype=np.float64)) for x in host[name])
        return above, below

    successes, episodes = total("success")
    if not episodes:
        return None
    share = successes / episodes
    failed = {name: total(f"failed_{name}") for name in FAILED if f"failed_{name}" in host}
    return {
        "success": share,
        "episodes": int(episodes),
        "failed": {name: above / below for name, (above, below) in failed.items() if above},
        "nothing_scored": share == 0 and not np.any(host[VARIED].numerator[index]),
    }


def words(found: Before, warm: bool, env: Any, run: Any) -> list[str]:
    """A line for a person, and where nothing scored another that says what to do about it."""
    when = "after the warm start" if warm else "before training"
    line = (
        f"{when}: success {found['success']:.3g} over {found['episodes']} episodes"
        f"{told(found['failed'])}"
    )
    if not found["nothing_scored"]:
        return [line]
    ways = [f"read what it says with python -m train.transcripts --run {run}"]
    if env.prompt == "terse":
        ways.append("tell a model that knows words the task in words (--env-args prompt=instruct)")
    if found["failed"].get("cut", 0) > 0.1:
        ways.append("give longer responses room (a larger --algo.response-tokens)")
    ways.append("try prompts and models without training (python -m train.evaluate --help)")
    said = "nothing scored and rewards hardly differ, from which little can be learned"
    return [line, f"{said}; {'; '.join(ways)}"]


def told(failed: dict[str, float]) -> str:
    """`; failed: 0.60 wrong, 0.20 no answer`, the reasons that there were."""
    often = sorted(failed, key=lambda name: -failed[name])
    parts = [f"{failed[name]:.2f} {name.replace('_', ' ')}" for name in often]
    return f"; failed: {', '.join(parts)}" if parts else ""

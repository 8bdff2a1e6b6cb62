"""Random kills in every phase of a run and of its resuming: not one bit may be lost.

A life is one run that is killed several times, goes on each time, and must end as the run that
was never disturbed.
"""

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from campaign.figures import Figures, side_by_side
from campaign.processes import Job, told
from campaign.shelf import LANGUAGE, PPO, PQN, Recipe, Shelf

EARLY = ("starting", "training", "training", "saving", "saving")
LATE = ("starting", "evaluating", "evaluating", "ending")
DELAYS = {  # s after the phase has begun, at most
    "starting": 4.0,
    "training": 0.4,
    "saving": 0.02,
    "evaluating": 1.5,
    "ending": 0.3,
}


def kills(shelf: Shelf, wanted: int, recipes: tuple[Recipe, ...] = (PPO, PQN, LANGUAGE)) -> Figures:
    """At least `wanted` kills, spread over lives of the recipes."""
    figures = Figures("kills")
    for recipe in recipes:
        shelf.reference(recipe)

    def live(number: int) -> None:
        recipe = recipes[number % len(recipes)]
        life(shelf, recipe, number, figures)

    number = 0
    while figures.counts["kills"] < wanted and number < wanted:
        side_by_side(live, [number, number + 1])
        number += 2
    return figures


def plan(rng: random.Random) -> list[str]:
    """The phases in which a life is killed, in the order in which a run comes to them."""
    early, late = rng.randint(2, 5), rng.randint(1, 3)
    return [rng.choice(EARLY) for _ in range(early)] + [rng.choice(LATE) for _ in range(late)]


def life(
    shelf: Shelf, recipe: Recipe, number: int, figures: Figures, phases: list[str] | None = None
) -> None:
    """One run, killed at random moments that `number` seeds, compared at its end."""
    rng = random.Random(number)
    run, words = shelf.folder / f"killed-{number}", shelf.words(f"killed-{number}")
    story = []
    for phase in plan(rng) if phases is None else phases:
        job, resumed = shelf.go_on(recipe, run, words), (run / "config.json").exists()
        delay = rng.uniform(0, DELAYS[phase])
        job.wait_until(moment(phase, run, job))
        time.sleep(delay)
        killed = job.send(signal.SIGKILL)
        ended = job.end()
        doing = f"{'resumed, ' if resumed else ''}{phase}"
        story.append(f"{doing} + {delay:.3f} s")
        if killed and ended.code == -signal.SIGKILL:
            figures.counts.update(["kills", f"killed: {doing}", f"kills of {recipe.name}"])
        elif ended.code != 0:
            figures.case(["resume"], f"{' | '.join(story)} | {told(ended)}")
            break
    else:
        ended = shelf.go_on(recipe, run, words).end()
        wrong = shelf.judge(recipe, run, ended)
        figures.case(wrong, f"{recipe.name} {number}: {' | '.join(story)} | {told(ended)}", "lives")
    shutil.rmtree(run, ignore_errors=True)


def moment(phase: str, run: Path, job: Job) -> Callable[[], bool]:
    """When the phase begins, as what is to be seen from outside; what was there before is not."""
    metrics, summary = run / "metrics.jsonl", run / "summary.json"
    before = changed(metrics), changed(summary), unfinished(run)

    def training() -> bool:
        return job.says("train ") and changed(metrics) != before[0]

    return {
        "starting": lambda: True,
        "training": training,
        "saving": lambda: bool(unfinished(run) - before[2]),
        "evaluating": lambda: job.says("evaluate "),
        "ending": lambda: changed(summary) != before[1],
    }[phase]


def changed(file: Path) -> int:
    """When it was written last, in ns; 0 for never."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def unfinished(run: Path) -> set[str]:
    """Checkpoints that are being written."""
    try:
        return {p.name for p in (run / "checkpoints").iterdir() if "tmp" in p.name}
    except OSError:
        return set()

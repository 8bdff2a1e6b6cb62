"""Stop signals in every phase of a run, and of the tools: none is ignored and nothing is lost."""

import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from campaign.figures import Figures, side_by_side
from campaign.kills import moment
from campaign.processes import Ended, Job, faults, module, told
from campaign.shelf import LANGUAGE, PPO, Recipe, Shelf

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PHASES = ("import", "compile", "first chunk", "training", "saving", "evaluating", "plotting", "end")
OVER = ("plotting", "end")  # a run that has come so far may as well end: exit code 0
DELAYS = {"import": 0.8, "compile": 1.0, "training": 0.3, "evaluating": 0.8}  # s, at most
BOUND = 10.0  # s from a signal to the end, at most
LEAST = 0.4  # s that Python itself needs to start, until which a signal is not ours

Case = tuple[Recipe, str, signal.Signals, int]  # recipe, phase, signal, how often


def cases(recipes: Sequence[Recipe] = (PPO, LANGUAGE)) -> list[Case]:
    """Every signal once in every phase of every recipe, and twice in those where work goes on."""
    once = [(r, phase, s, 1) for r in recipes for phase in PHASES for s in SIGNALS]
    busy = ("compile", "training", "saving", "evaluating")
    return once + [(recipes[0], phase, s, 2) for phase in busy for s in SIGNALS[:2]]


def stops(
    shelf: Shelf, chosen: Sequence[Case] | None = None, *, tools: bool = True, width: int = 2
) -> Figures:
    """The cases, and signals to the tools while they start and while they work."""
    figures = Figures("stop signals")
    chosen = cases() if chosen is None else chosen
    for recipe in {case[0].name: case[0] for case in chosen}.values():
        shelf.reference(recipe)
    numbered = list(enumerate(chosen))
    side_by_side(lambda item: stop(shelf, *item, figures), numbered, width)
    if tools:
        shelf.reference(LANGUAGE)
        asked = [(t, d, s) for t in tools_of(shelf) for d in (0.5, 1.5, 3.0) for s in SIGNALS[:2]]
        side_by_side(lambda item: stop_tool(shelf, *item, figures), list(enumerate(asked)))
    return figures


def stop(shelf: Shelf, number: int, case: Case, figures: Figures) -> None:
    """One run that gets a signal, and goes on to the same end."""
    recipe, phase, signum, times = case
    run, words = shelf.folder / f"stopped-{number}", shelf.words(f"stopped-{number}")
    shutil.rmtree(run, ignore_errors=True)
    rng, job = random.Random(number), shelf.start(recipe, run, words)
    begins = began(phase, run, job)
    job.wait_until(begins)
    time.sleep(rng.uniform(0, DELAYS.get(phase, 0.0)))
    sent, moment_sent = job.send(signum), time.monotonic()
    if times == 2:
        time.sleep(rng.uniform(0, 0.3))
        job.send(signum)
    ended = job.end(max(60.0, 2 * BOUND))
    took = time.monotonic() - moment_sent
    kinds = of_signal(ended, signum, took, over=phase in OVER) if sent else []
    name = f"{recipe.name}, {phase}: {times} x {signum.name}"
    story = f"{name}: after {took:.1f} s {told(ended)}"
    if not (run / "curve.png").exists() or ended.code:
        ended = shelf.go_on(recipe, run, words).end()
        story += f"\n    then {told(ended)}"
    kinds += shelf.judge(recipe, run, ended)
    count = "signals" if sent else "came too late"
    figures.case(kinds, story, count, f"{count}: {phase}")
    figures.counts["signals"] += times - 1
    shutil.rmtree(run, ignore_errors=True)


def began(phase: str, run: Path, job: Job):
    """When the phase begins, as what is to be seen from outside."""
    if phase in ("training", "saving", "evaluating"):
        return moment(phase, run, job)
    return {
        "import": lambda: time.monotonic() > job.started + LEAST,
        "compile": lambda: job.says("compile "),
        "first chunk": lambda: job.says("train "),
        "plotting": moment("ending", run, job),
        "end": lambda: (run / "curve.png").exists(),
    }[phase]


def of_signal(ended: Ended, signum: int, took: float, over: bool) -> list[str]:
    """What is wrong with how a command ended after a signal."""
    codes = (128 + signum, 0) if over else (128 + signum,)
    kinds = faults(ended, codes)
    if took > BOUND and "hang" not in kinds:
        kinds.append("late")
    return ["ignored" if kind == "silent" else kind for kind in kinds]


def tools_of(shelf: Shelf) -> dict[str, list[object]]:
    """The tools that work for some seconds, on a finished language run."""
    run, out = shelf.reference(LANGUAGE), shelf.folder / "made-by"
    env = ("--env", "language/GuessTheNumber-easy", "--episodes", 256)
    return {
        "evaluate": module("train.evaluate", "--run", run, "--episodes", 2048),
        "export": module("train.export", "--run", run, "--out", out / "export"),
        "tokenizer": module("train.tokenizer", *env, "--out", out / "tokenizer"),
    }


def stop_tool(
    shelf: Shelf, number: int, case: tuple[str, float, signal.Signals], figures: Figures
) -> None:
    """A tool that gets a signal: it leaves what it makes whole or not at all."""
    tool, delay, signum = case
    parent = shelf.folder / f"tool-{number}"
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir()
    argv = [
        parent / Path(word).name
        if isinstance(word, Path) and word.parent.name == "made-by"
        else word
        for word in tools_of(shelf)[tool]
    ]
    job = Job(argv, shelf.words(f"tool-{number}"), shelf.cache)
    time.sleep(delay)
    sent, moment_sent = job.send(signum), time.monotonic()
    ended = job.end(max(60.0, 2 * BOUND))
    kinds = of_signal(ended, signum, time.monotonic() - moment_sent, over=False) if sent else []
    whole = {"export": "tokenizer_config.json", "tokenizer": "tokenizer.json"}
    left = [p for p in parent.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"]
    if tool in whole and (parent / tool).exists() and not (parent / tool / whole[tool]).exists():
        left.append(parent / tool)
    kinds += ["left half" for _ in left[:1]]
    name = f"{tool} + {delay:.1f} s: {signum.name}"
    figures.case(kinds, f"{name}: {told(ended)}", "signals" if sent else "came too late", tool)
    shutil.rmtree(parent)

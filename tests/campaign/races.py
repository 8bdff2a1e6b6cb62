"""Several processes at the door of one run folder: one enters, the others say so in one line."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from campaign.figures import Figures
from campaign.processes import Ended, Job, faults, module, told
from campaign.shelf import SMALL, Recipe, Shelf


def races(shelf: Shelf, starts: int = 8, recipe: Recipe = SMALL) -> Figures:
    """`starts` into one new folder, as many without a name in the same second, two that go on."""
    figures = Figures("races")
    shelf.reference(recipe)
    one_folder(shelf, recipe, starts, figures)
    no_name(shelf, recipe, starts, figures)
    going_on(shelf, recipe, 2, figures)
    return figures


def together(shelf: Shelf, flags: list[list[object]], cwd: Path, door: str) -> list[Ended]:
    """Commands that all wait at the same door until it opens, and their ends."""
    gate = cwd / "open"
    argvs = [module("campaign.door", door, gate, *words) for words in flags]
    words = [shelf.words(f"{cwd.name}-{i}") for i in range(len(flags))]
    jobs = [Job(argv, word, shelf.cache, cwd) for argv, word in zip(argvs, words, strict=True)]
    for i, job in enumerate(jobs):
        job.wait_until((cwd / f"open.{job.process.pid}").exists)
        assert not job.over(), words[i].with_suffix(".err").read_text()
    gate.touch()
    return [job.end(120) for job in jobs]


def clean(shelf: Shelf, name: str) -> Path:
    folder = shelf.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def one_winner(
    shelf: Shelf, recipe: Recipe, run: Path, ends: list[Ended], name: str, figures: Figures
) -> None:
    """One comes to the end of the run, equal to the reference; the others have exit code 2."""
    winners = [ended for ended in ends if ended.code == 0]
    for ended in ends:
        kinds = faults(ended, (0, 2))
        if ended in winners:
            kinds += ["a second winner"] if ended is not winners[0] else []
            kinds += shelf.judge(recipe, run, ended)
        figures.case(kinds, f"{name}: {told(ended)}", f"{name}: exit code {ended.code}")
    if not winners:
        figures.case(["no winner"], name)


def one_folder(shelf: Shelf, recipe: Recipe, count: int, figures: Figures) -> None:
    folder = clean(shelf, "race-of-starts")
    flags = [[recipe.trainer, *recipe.flags, "--run-dir", folder / "run"]] * count
    ends = together(shelf, flags, folder, "create")
    one_winner(shelf, recipe, folder / "run", ends, f"{count} in one folder", figures)
    shutil.rmtree(folder)


def no_name(shelf: Shelf, recipe: Recipe, count: int, figures: Figures) -> None:
    """Everyone gets a folder of its own, and all of them the same run."""
    folder = clean(shelf, "race-without-names")
    ends = together(shelf, [[recipe.trainer, *recipe.flags]] * count, folder, "create")
    runs = sorted((folder / "runs").iterdir())
    for ended in ends:
        kinds = faults(ended, (0,))
        figures.case(kinds, f"{count} without a name: {told(ended)}", "without a name")
    for run in runs:
        wrong = shelf.judge(recipe, run, ends[0])
        figures.case(wrong, f"{run.name} without a name", "folders without a name")
    if len(runs) != count:
        figures.case(["folders"], f"{count} starts without a name made {len(runs)} folders")
    shutil.rmtree(folder)


def going_on(shelf: Shelf, recipe: Recipe, count: int, figures: Figures) -> None:
    """Two that go on with one run, which a kill has left half done."""
    folder = clean(shelf, "race-of-resumes")
    run, words = folder / "run", shelf.words("race-of-resumes")
    job = shelf.start(recipe, run, words)
    job.wait_until(lambda: any((run / "checkpoints").glob("*/sha256.json")))
    job.process.kill()
    job.end()
    ends = together(shelf, [[recipe.trainer, "--resume", run]] * count, folder, "reopen")
    one_winner(shelf, recipe, run, ends, f"{count} resume one folder", figures)
    shutil.rmtree(folder)


def wait(gate: Path, enter: Callable) -> Callable:
    """`enter`, once the file is there; tells in a file of its own that it waits."""
    import os

    def later(*args, **options):
        gate.with_name(f"{gate.name}.{os.getpid()}").touch()
        while not gate.exists():
            time.sleep(0.0005)
        return enter(*args, **options)

    return later

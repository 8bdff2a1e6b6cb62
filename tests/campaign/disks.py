"""Disks that fill up, files that may not grow, run folders that vanish or may not be written.

Small file systems are mounted in a name space of their own: `python -m campaign.disks` runs inside
`unshare` and prints its figures, and nothing stays mounted.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from campaign.figures import Figures, side_by_side
from campaign.kills import moment
from campaign.processes import ROOT, Job, faults, told
from campaign.shelf import LANGUAGE, PPO, Recipe, Shelf

PATIENCE = 60.0  # s that a run on a full disk may take to end
ROOM = 64 << 20  # bytes of a disk once room is made
# Bytes. From nothing but config.json over the first log line, TensorBoard and the first checkpoint
# to the last one, the policy, the summary and the curve.
SIZES = [4 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 400 << 10, 700 << 10]
SIZES += [1 << 20, 1300 << 10, 1600 << 10, 2 << 20, 3 << 20, 4 << 20]
FILLED = ("training", "saving", "evaluating", "ending")  # phases at which others fill the disk
LIMITS = (4, 16, 48, 128)  # KiB that no file may exceed


def full_disks(
    shelf: Shelf,
    sizes: list[int] = SIZES,
    filled: tuple[str, ...] = FILLED,
    limits: tuple[int, ...] = LIMITS,
    taken: tuple[str, ...] = ("deleted", "no checkpoints", "read-only"),
    recipes: tuple[Recipe, ...] = (PPO, LANGUAGE),
) -> Figures:
    """Every way for every recipe; those that need a mount in a name space, or left out."""
    figures = Figures("full disks")
    for recipe in recipes:
        shelf.reference(recipe)
    mounts = name_space()
    if mounts and (sizes or filled):
        inside(mounts, shelf, sizes, filled, recipes, figures)
    else:
        figures.counts["left out: no mount"] += len(recipes) * (len(sizes) + len(filled))
    cases = [(r, f"files of {kib} KiB", limited(kib)) for r in recipes for kib in limits]
    cases += [(r, way, lose(way)) for r in recipes for way in taken]
    side_by_side(lambda case: alone(shelf, *case, figures), cases)
    return figures


def name_space() -> list[str]:
    """The words before a command that may mount; [] where this machine allows none."""
    for words in (["unshare", "-m"], ["unshare", "-rm"]):
        script = "mount -t tmpfs none /mnt"
        if (
            shutil.which("unshare")
            and not subprocess.run([*words, "sh", "-c", script], capture_output=True).returncode
        ):
            return words
    return []


def inside(
    mounts: list[str],
    shelf: Shelf,
    sizes: list[int],
    filled: tuple[str, ...],
    recipes: tuple[Recipe, ...],
    figures: Figures,
) -> None:
    """The cases with a disk of their own, in a name space of their own."""
    asked = json.dumps(
        [str(shelf.folder), str(shelf.cache), sizes, filled, list(map(asdict, recipes))]
    )
    done = subprocess.run(
        [*mounts, sys.executable, "-m", "campaign.disks", asked],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures.add(Figures(**json.loads(done.stdout.splitlines()[-1])))


def main(asked: str) -> None:
    """What `inside` runs."""
    folder, cache, sizes, filled, recipes = json.loads(asked)
    shelf, figures = Shelf(Path(folder), Path(cache)), Figures("full disks")
    made = [Recipe(r["name"], r["trainer"], tuple(r["flags"])) for r in recipes]
    cases = [(r, f"a disk of {size} bytes", size, "") for r in made for size in sizes]
    cases += [
        (r, f"a disk that fills while {phase}", ROOM, phase) for r in made for phase in filled
    ]
    side_by_side(lambda case: on_a_disk(shelf, *case, figures), cases)
    print(json.dumps(vars(figures)))


def on_a_disk(
    shelf: Shelf, recipe: Recipe, name: str, size: int, phase: str, figures: Figures
) -> None:
    """A run whose disk is full, from the start or from a phase on; then there is room again."""
    disk = shelf.folder / f"{recipe.name} {name}".replace(" ", "-")
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], check=True)
    ballast = disk / "ballast"

    def disturb(job: Job, run: Path) -> None:
        if phase:
            job.wait_until(moment(phase, run, job))
            fill(ballast)

    def mend() -> None:
        ballast.unlink(missing_ok=True)
        subprocess.run(["mount", "-o", f"remount,size={ROOM}", disk], check=True)

    try:
        attempt(shelf, recipe, name, disk / "run", figures, disturb, mend)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
        disk.rmdir()


def fill(ballast: Path) -> None:
    """Write until the disk is full."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * (1 << 20))
        except OSError:
            pass


def nothing(*_: object) -> None:
    """No disturbance, nothing to mend."""


def attempt(
    shelf: Shelf,
    recipe: Recipe,
    name: str,
    run: Path,
    figures: Figures,
    disturb: Callable[[Job, Path], None] = nothing,
    mend: Callable[[], None] = nothing,
    before: tuple[object, ...] = (),
) -> None:
    """A run that something is done to, judged; and, once that is mended, its way to the end."""
    words = shelf.words(f"{recipe.name} {name}".replace(" ", "-"))
    job = shelf.start(recipe, run, words, before=before)
    disturb(job, run)
    ended = job.end(PATIENCE)
    kinds, story = faults(ended, (0, 1, 2)), f"{recipe.name} on {name}: {told(ended)}"
    reached, whole = f"reached {reach(run)}, exit code {ended.code}", (run / "curve.png").exists()
    if ended.code == 0 and not whole:
        kinds.append("silent")
    if ended.code or not whole:
        mend()
        ended = shelf.go_on(recipe, run, words).end()
        story += f"\n    then {told(ended)}"
    kinds += shelf.judge(recipe, run, ended)
    figures.case(kinds, story, reached, f"{recipe.name}: {name}")


def reach(run: Path) -> str:
    """The last thing that a run has written."""
    marks = ("curve.png", "summary.json", "policy", "checkpoints", "metrics.jsonl", "config.json")
    return next((mark for mark in marks if (run / mark).exists()), "nothing")


def limited(kib: int) -> tuple[Callable[[Job, Path], None], tuple[object, ...]]:
    """No file may become larger."""
    return nothing, ("sh", "-c", f'ulimit -f {2 * kib}; exec "$@"', "sh")


def lose(way: str) -> tuple[Callable[[Job, Path], None], tuple[object, ...]]:
    """The run folder, or a part of it, is taken away or may not be written any more."""

    def disturb(job: Job, run: Path) -> None:
        job.wait_until(moment("training", run, job))
        if way == "read-only":
            rights(run, 0o555)
        else:
            shutil.rmtree(run if way == "deleted" else run / "checkpoints", ignore_errors=True)

    return disturb, bound_by_rights() if way == "read-only" else ()


def rights(run: Path, mode: int) -> None:
    """Of a run's folders."""
    for path in (run, run / "checkpoints"):
        if path.is_dir():
            path.chmod(mode)


def bound_by_rights() -> tuple[object, ...]:
    """The words before a command that hold it to the rights of files, though it may be root's."""
    bound = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
    return bound if shutil.which("setpriv") else ()


def alone(
    shelf: Shelf,
    recipe: Recipe,
    name: str,
    how: tuple[Callable[[Job, Path], None], tuple[object, ...]],
    figures: Figures,
) -> None:
    """A case that needs no disk of its own."""
    folder = shelf.folder / f"{recipe.name} {name}".replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run, (disturb, before) = folder / "run", how

    def mend() -> None:
        rights(run, 0o755)
        if name == "deleted":  # what it may have written after that is no run
            shutil.rmtree(run, ignore_errors=True)

    attempt(shelf, recipe, name, run, figures, disturb, mend, before)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1])

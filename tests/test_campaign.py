"""The campaign's short form: a few cases of each part; `python -m pytest -m campaign` has all."""

import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from campaign import hostile, inputs
from campaign.disks import full_disks, name_space
from campaign.figures import Figures, side_by_side
from campaign.forgeries import forgeries
from campaign.inputs import refused
from campaign.kills import life
from campaign.races import one_folder
from campaign.sandbox import Bad
from campaign.shelf import SMALL, Shelf, differing
from campaign.stops import stops

DISK = 128 << 10  # bytes: full at one of the first checkpoints


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Shelf:
    """Programs are kept from one run of the suite to the next."""
    folder = tmp_path_factory.mktemp("campaign")
    return Shelf(folder, Path(jax.config.values["jax_compilation_cache_dir"] or folder / "cache"))


@pytest.fixture(scope="module")
def disturbed(shelf) -> dict[str, Figures]:
    """Each part that starts processes, two at a time."""
    shelf.reference(SMALL)
    found = {name: Figures(name) for name in ("kills", "races")}

    def disks() -> None:
        mounts = name_space()
        sizes, limits = ([DISK], ()) if mounts else ([], (16,))
        found["disks"] = full_disks(shelf, sizes, (), limits, (), (SMALL,))

    def signals() -> None:
        cases = [(SMALL, "saving", signal.SIGTERM, 1), (SMALL, "evaluating", signal.SIGINT, 1)]
        found["stops"] = stops(shelf, cases, tools=False, width=1)

    work = [
        lambda: life(shelf, SMALL, 0, found["kills"], ["training", "evaluating"]),
        signals,
        disks,
        lambda: one_folder(shelf, SMALL, 2, found["races"]),
    ]
    side_by_side(lambda part: part(), work)
    return found


def test_what_differs_in_a_bit_is_seen(shelf, tmp_path):
    """Or nothing here would hold anything."""
    run, other = shelf.reference(SMALL), tmp_path / "run"
    shutil.copytree(run, other)
    assert differing(run, other) == {}
    data = bytearray((other / "metrics.jsonl").read_bytes())
    data[len(data) // 2] ^= 1
    (other / "metrics.jsonl").write_bytes(data)
    with np.load(other / "policy/weights.npz") as file:
        weights = dict(file)
    next(x for x in weights.values() if x.dtype == np.float32).view(np.uint32).flat[0] ^= 4
    np.savez(other / "policy/weights.npz", allow_pickle=False, **weights)
    newest = max((other / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    found = differing(run, other)
    assert found.pop("checkpoint") and found == {"metrics.jsonl": 1, "policy": 1}


def test_a_run_that_is_killed_twice_loses_nothing(disturbed):
    disturbed["kills"].check()
    assert disturbed["kills"].counts["kills"] >= 1


def test_a_full_disk_is_said_in_one_line_and_the_run_goes_on(disturbed):
    disturbed["disks"].check()
    assert not [name for name in disturbed["disks"].counts if "curve.png" in name]


def test_a_signal_while_saving_or_evaluating_is_obeyed(disturbed):
    disturbed["stops"].check()
    assert disturbed["stops"].counts["signals"] >= 1


def test_of_two_at_the_door_of_a_folder_one_enters(disturbed):
    disturbed["races"].check()


def every(bad: list[Bad], *names: str) -> list[Bad]:
    """The cases of these names."""
    return [next(one for one in bad if one.name == name) for name in names]


def test_hostile_files_are_refused(shelf):
    names = ["an index that leads outside", "a trillion layers", "a template of nested loops"]
    names += ["a shape of 10^13", "a tokenizer nested deep", "half a surrogate"]
    names += ["a config that is a pipe"]
    hostile.hostile(shelf, every(hostile.TABLE, *names), inside=True).check()


def test_bad_command_lines_are_refused(shelf):
    names = ["an env arg that is the id", "environments beyond 32 bits", "data that is a folder"]
    names += ["a run folder of 300 letters", "a module with an error in it"]
    refused("bad inputs", shelf, every(inputs.TABLE, *names), inside=True).check()


def test_no_text_forges_a_turn():
    forgeries(["qwen2"]).check()

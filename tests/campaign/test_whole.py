"""The whole campaign: `python -m pytest -m campaign`, about an hour of two quiet cores.

With JAXRL_CAMPAIGN=FILE each part adds its figures to that file, one JSON line a part.
"""

from pathlib import Path

import pytest

from campaign.disks import full_disks
from campaign.figures import Figures, measured
from campaign.forgeries import forgeries
from campaign.hostile import hostile
from campaign.inputs import TABLE, refused
from campaign.kills import kills
from campaign.races import races
from campaign.shelf import Shelf
from campaign.stops import stops

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(4 * 3600)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Shelf:
    folder: Path = tmp_path_factory.mktemp("campaign")
    return Shelf(folder, folder / "cache")


def test_a_hundred_kills_and_not_a_bit_differs(shelf):
    figures = measured(kills, shelf, 100)
    figures.check()
    assert figures.counts["kills"] >= 100


def test_a_full_disk_is_said_and_a_run_goes_on_when_there_is_room(shelf):
    figures = measured(full_disks, shelf)
    figures.check()
    if figures.counts["left out: no mount"]:
        pytest.skip("this machine lets nobody mount: only limits of files were tried")


def test_no_stop_signal_is_ignored_and_nothing_is_lost(shelf):
    figures = measured(stops, shelf)
    figures.check()
    assert figures.counts["signals"] >= 40


def test_bad_command_lines_are_refused_in_one_line(shelf):
    measured(refused, "bad inputs", shelf, TABLE).check()


def test_hostile_files_are_refused_and_nothing_outside_is_read(shelf):
    measured(hostile, shelf).check()


def test_no_text_forges_a_turn():
    measured(forgeries).check()


def test_one_folder_has_one_run(shelf):
    measured(races, shelf).check()


def test_a_kind_of_fault_that_is_there_is_seen():
    """Or the campaign would hold nothing."""
    figures = Figures("probe")
    figures.case(["hang"], "python -m train.ppo", "exit code -9")
    with pytest.raises(AssertionError, match="1 faults in 1 cases"):
        figures.check()

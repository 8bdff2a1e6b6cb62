"""What a run logged and is gone when it goes on: told, and written down."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_going_on import LINES, NEWEST, make, resuming

from jaxrl.train.resume import Past, layout_of
from train.logs import Lines
from train.run_folder import read_config


@pytest.fixture
def run_dir(tmp_path) -> Path:
    return make(tmp_path / "run")


def lines_of(kept: list[int], transcripts: list[int], run_dir: Path) -> Past:
    record = {"config": read_config(run_dir), "transcripts": [3, 4]}
    record["lines"] = LINES | {"spans": [[0, 1, 2], [2, 2, 1]]}  # of iterations 1, 2, 4
    past = Past(read_config(run_dir), record, NEWEST, run_dir / "checkpoints/4", resuming(run_dir))
    lines = Lines(1)
    past.find_lines({"metrics.jsonl": kept, "transcripts.jsonl": transcripts}, lines)
    there = [s + e * i for s, e, c in lines.spans for i in range(1, c + 1)]
    assert (there, lines.start) == (kept, NEWEST)
    return past


@pytest.mark.parametrize(
    ("kept", "ranges", "words"),
    [
        ([1, 2, 4], None, ""),
        ([1, 2], [[3, 4]], "the lines of iterations 3-4"),
        ([1, 4], [[2, 2]], "the lines of iterations 2: "),
        ([4], [[1, 2]], "the lines of iterations 1-2: "),
        ([2], [[1, 1], [3, 4]], "the lines of iterations 1, 3-4: "),
        ([], [[1, 4]], "the lines of iterations 1-4: "),
    ],
)
def test_lines_that_were_logged_and_are_gone_are_told_and_recorded(run_dir, kept, ranges, words):
    past = lines_of(kept, [2, 2, 4], run_dir)
    assert past.lost == ({"metrics.jsonl": ranges} if ranges else {})
    assert len(past.words) == bool(ranges) and words in "".join(past.words)


@pytest.mark.parametrize(
    ("there", "lost", "words"),
    [
        ([2], [[3, 4]], "2 of its 3 lines, of iterations 3-4"),
        ([], [[1, 4]], "3 of its 3 lines, of iterations 1-4"),
        ([2, 4], [[1, 4]], "1 of its 3 lines, of iterations 1-4"),
    ],
)
def test_transcripts_that_are_gone_are_told_too(run_dir, there, lost, words):
    past = lines_of([1, 2, 4], there, run_dir)
    assert past.lost == {"transcripts.jsonl": lost} and words in past.words[0]


def test_what_was_resumed_is_written_down(run_dir):
    args = replace(resuming(run_dir), eval_episodes=3)
    past = lines_of([1, 2], [2, 2, 4], run_dir)
    layout = layout_of(past.mesh(args, 16, 512), 16)
    config = past.extended(args, layout)
    (entry,) = config["resumed"]
    assert (entry["iteration"], entry["devices"]) == (NEWEST, 1)
    assert entry["packages"] == config["packages"] and entry["lost"] == past.lost
    assert entry["options"] == {"eval_episodes": [128, 3]}
    again = Past(config, {"config": config}, NEWEST, run_dir / "checkpoints/4", args)
    assert again.words == [] and len(again.extended(args, layout)["resumed"]) == 2

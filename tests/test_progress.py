"""What a run says while it works: lines that fit a terminal, and plain ones in a log."""

import io
import re
import sys

import pytest

from train import progress
from train.progress import Progress


class Terminal(io.StringIO):
    """One that is written to, of any width."""

    def isatty(self) -> bool:
        return True


def run(monkeypatch, stream: io.StringIO, updates: int, total: int = 40_000_000) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    shown = Progress(total, "step", shows=True)
    with shown.phase("compile 12 configurations x 10 seed(s) on 8 devices (cpu), one core each"):
        pass
    shown.resumed(0)
    for i in range(1, updates + 1):
        shown.update(total * i // updates, -123456.7)
    shown.close()
    return stream.getvalue()


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_phase_is_a_line_that_fits_the_terminal_and_ends_with_the_return(monkeypatch, columns):
    monkeypatch.setattr(progress, "width", lambda: columns)
    said = run(monkeypatch, Terminal(), 20)
    states = re.split(r"[\r\n]+", said)
    assert max(map(len, states)) <= min(columns, 120)
    compiled, trained = (line.rpartition("\r")[2].rstrip() for line in said[:-1].split("\n"))
    assert compiled.startswith("compile 12 conf") and compiled.endswith(" s")
    assert trained.startswith("train 100%") and "return -123456.7" in trained
    assert ("step/s" in trained) == (columns >= 80)


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_a_log_has_whole_lines_without_control_characters_a_hundred_at_most(monkeypatch, seconds):
    monkeypatch.setattr(progress, "LOG_SECONDS", seconds)
    said = run(monkeypatch, io.StringIO(), 5000, total=5000)
    lines = said.splitlines()
    assert said.replace("\n", "").isprintable() and said.endswith("\n")
    percents = 101 if seconds == 0 else 2  # each from 0 to 100, or the first and the last
    assert len(lines) == 1 + percents
    assert lines[0].startswith("compile 12 configurations x 10 seed(s) on 8 devices (cpu), one")
    assert lines[1].startswith("train   0%: 1 of 5,000 steps, ")
    assert lines[-1].startswith("train 100%: 5,000 of 5,000 steps, ")
    assert lines[-1].endswith(" a second, return -123456.7")


def test_a_small_return_is_told_with_the_digits_that_it_has():
    values = (-1234.56, 10.0, 0.774, -0.1, float("nan"))
    assert [*map(progress.told, values)] == ["-1234.6", "10.0", "0.774", "-0.100", "nan"]


def test_who_shows_nothing_says_nothing(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    silent = Progress(10, shows=False)
    with silent.phase("compile"):
        silent.update(10, 1.0)
    silent.say("a line")
    silent.close()
    assert stream.getvalue() == ""

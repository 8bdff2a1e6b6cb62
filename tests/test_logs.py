"""Lines of metrics do not show how a run was cut into chunks, nor where it was broken off."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxrl.metrics import HIDDEN, Sums
from train.logs import Lines, extend, found, open_lines, whole_lines

END = 23  # iterations of a run; the last line is shorter than the others


def run_of(end: int = END, members: int = 3) -> dict[str, Sums]:
    """Numbers whose float64 sums depend on the order in which they are added."""
    rng = np.random.default_rng(0)

    def numbers(low: float) -> np.ndarray:
        x = rng.uniform(low, 1, (end, members)) * 10.0 ** rng.integers(-20, 20, (end, members))
        return x.astype(np.float32)

    host = {name: Sums(numbers(-1), numbers(0)) for name in ("loss", "episode_return")}
    return host | {HIDDEN + "reward": Sums(numbers(0), numbers(0))}


def gathered(host: dict, cuts: list[int], every: int, end: int = END, saved: str = "") -> list:
    """(iteration, means as bytes) of each line, the run cut into chunks at `cuts`.

    With `saved` it is broken off after each: what a checkpoint keeps goes through JSON.
    """
    lines, said, before = Lines(every), [], 0
    for last in [*cuts, end]:
        chunk = {n: Sums(*(x[before:last] for x in sums)) for n, sums in host.items()}
        for done, means in lines.add(chunk, last, last - before, end):
            said.append((done, {name: x.tobytes() for name, x in means.items()}))
        before = last
        if saved:
            kept, lines = json.loads(json.dumps(lines.as_json())), Lines(every)
            lines.resume(kept)
            lines.spans = kept["spans"]
    assert [s + e * i for s, e, c in lines.spans for i in range(1, c + 1)] == [x[0] for x in said]
    return said


@pytest.mark.parametrize("saved", ["", "saved"])
@pytest.mark.parametrize("every", [1, 2, 7, END, 2000])
@pytest.mark.parametrize("cuts", [[], [1], [3, 4, 20], list(range(1, END))])
def test_a_line_is_the_same_to_the_last_bit_wherever_the_run_was_cut(cuts, every, saved):
    host = run_of()
    whole = gathered(host, [], every)
    assert gathered(host, cuts, every, saved=saved) == whole
    assert [done for done, _ in whole] == [*range(every, END, every), END]
    assert set(whole[0][1]) == {"loss", "episode_return"}


def test_a_line_is_the_mean_of_its_iterations():
    host = run_of()
    ((_, first), *_) = gathered(host, [3], 7)
    over, under = (np.float64(x[:7]).sum(0) for x in host["loss"])
    np.testing.assert_allclose(np.frombuffer(first["loss"]), over / under, rtol=1e-12)


def test_a_line_is_longer_than_any_chunk_and_than_the_buffer_of_the_program():
    """The buffer holds 1,024 iterations: lines of 2,000 came to its end."""
    ones = Sums(np.ones((1000, 1), np.float32), np.ones((1000, 1), np.float32))
    lines, said = Lines(2000), []
    for last in range(1000, 5001, 1000):
        said += list(lines.add({"x": ones}, last, 1000, 5000))
    assert [(done, means["x"].tolist()) for done, means in said] == [
        (2000, [1.0]),
        (4000, [1.0]),
        (5000, [1.0]),
    ]


def test_what_is_unknown_in_a_whole_line_is_left_out():
    host = {"x": Sums(np.zeros((4, 1), np.float32), np.float32([[0], [0], [1], [0]]))}
    lines = Lines(2)
    assert [means.keys() for _, means in lines.add(host, 4, 4, 4)] == [set(), {"x"}]


def test_lines_are_remembered_in_few_numbers():
    spans: list = []
    for start in range(0, 1000, 10):
        extend(spans, start, start + 10)
    extend(spans, 1000, 1003)
    assert spans == [[0, 10, 100], [1000, 3, 1]]
    assert found(spans, [*range(10, 1001, 10), 1003]) == (spans, [])
    kept = [*range(10, 301, 10), *range(500, 1001, 10)]
    assert found(spans, kept) == ([[0, 10, 30], [490, 10, 51 + 0]], [[301, 490], [1001, 1003]])


BAD = ['{"iteration": 9', "[]", "7", '"iteration"', "{}", '{"iteration": "3"}', "\xff", ""]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_line_of_the_log_is_left_out(tmp_path, bad):
    file = tmp_path / "metrics.jsonl"
    good = [f'{{"iteration": {i}, "said": "\u2028\x85"}}' for i in (1, 2, 3)]
    parts = [x.encode() for x in (good[0], *good[1:], '{"iteration": 2')]
    file.write_bytes(b"\n".join([parts[0], bad.encode("latin-1"), *parts[1:]]))
    opened, kept = open_lines(file, 2)
    opened.close()
    assert kept == [1, 2] and [x for x, _ in whole_lines(file)] == kept


def test_a_file_of_lines_that_is_not_there_begins_empty(tmp_path):
    file = Path(tmp_path / "metrics.jsonl")
    opened, kept = open_lines(file, 5)
    opened.close()
    assert kept == [] and file.read_text() == ""

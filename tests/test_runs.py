"""Runs from their first line to their last: what is logged, stopped, extended, and begun with."""

import json
import shutil
import signal
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from runs import checkpoints, logged
from tank import EACH, STEPS, at, resume, send, train, weights


@pytest.fixture(scope="module")
def said() -> StringIO:
    """What `plain` has written to the terminal."""
    return StringIO()


@pytest.fixture(scope="module")
def plain(tmp_path_factory, said) -> Path:
    """A run of 8 iterations."""
    with redirect_stdout(said):
        return train(tmp_path_factory.mktemp("plain") / "run")


def same(a: Path, b: Path) -> None:
    """Every line of metrics, every weight and the evaluation, to the last bit."""
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    mine, other = weights(a), weights(b)
    assert mine.keys() == other.keys() and len(mine) > 5
    for name, x in mine.items():
        assert x.dtype == other[name].dtype and x.tobytes() == other[name].tobytes(), name
    final = [json.loads((f / "summary.json").read_text())["final_return"] for f in (a, b)]
    assert final[0] == final[1]


def test_an_environments_own_metrics_reach_the_log_the_summary_and_the_terminal(plain, said):
    for line in logged(plain):
        assert line["fuel"] == 7.5 and line["episode_length"] == 5 and line["episodes"] >= 4
    final = json.loads((plain / "summary.json").read_text())["final_return"]
    assert final["metrics"]["fuel"] == {"mean": 7.5, "per_seed": [7.5]}
    lines = said.getvalue().splitlines()
    assert "final fuel: 7.500" in lines and "final episode_length: 5.000" in lines


def test_what_no_episode_has_told_yet_is_left_out_of_the_log(tmp_path):
    """Episodes of 12 steps, iterations of 8: none ends in the first, each in the second."""
    first, second, *_ = logged(train(tmp_path / "run", "--env-args", "length=12"))
    missing = second.keys() - first.keys()
    assert missing == {"fuel", "episode_return", "episode_length", "truncated_share"}
    assert (first["episodes"], second["episodes"], second["fuel"]) == (0, 4, 4.0)


def test_a_window_of_iterations_is_the_mean_of_what_was_told_in_it(tmp_path):
    """Episodes of 12 steps end in the second and the third of three iterations of 8."""
    line = logged(train(tmp_path / "run", "--env-args", "length=12", "--log-every", "3"))[0]
    assert line["episode_length"] == 12 and line["episodes"] == pytest.approx(8 / 3)


def test_a_checkpoint_keeps_no_pool_of_resets(plain):
    metadata = next((plain / "checkpoints").glob("*/**/_METADATA")).read_text()
    assert "env_state" in metadata and "pool" not in metadata and "used" not in metadata


def interrupted(folder: Path, signum: int, iteration: int, begin, *flags: object) -> int:
    """The exit code of a run that gets a signal at this iteration."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        at(iteration, send(signum), patch)
        begin(folder, *flags, *EACH)
    return stop.value.code


def test_a_run_stopped_by_signals_saves_where_it_is_and_ends_as_if_it_had_never_been(
    plain, tmp_path, capsys
):
    folder = tmp_path / "run"
    for signum, iteration, begin in (
        (signal.SIGINT, 2, train),
        (signal.SIGTERM, 5, resume),
    ):
        assert interrupted(folder, signum, iteration, begin) == 128 + signum
        assert iteration <= checkpoints(folder)[-1] < 8
        words = capsys.readouterr().err.rstrip()
        assert words.endswith(f"go on with --resume {folder}")
    same(resume(folder), plain)


def test_a_finished_run_grows_and_its_linear_schedule_ends_at_the_new_end(plain, tmp_path, capsys):
    """Growing is exact: a run that was broken off while it grew equals one that was not."""
    folder, broken = tmp_path / "run", tmp_path / "broken"
    for copy in (folder, broken):
        shutil.copytree(plain, copy)
    resume(folder, "--total-steps", 12 * STEPS)
    assert "algo.total_steps: 256 -> 384; what falls linearly now" in capsys.readouterr().out
    lines = logged(folder)
    assert [line["iteration"] for line in lines] == list(range(1, 13))
    assert lines[:8] == logged(plain)
    rate = [line["learning_rate"] for line in lines]
    np.testing.assert_allclose(rate[:8], 2.5e-3 * (1 - np.arange(8) / 8), rtol=1e-6)
    np.testing.assert_allclose(rate[8:], 2.5e-3 * (1 - np.arange(8, 12) / 12), rtol=1e-6)
    assert any(np.any(x != weights(plain)[name]) for name, x in weights(folder).items())

    def break_off():
        raise MemoryError("broken off")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(MemoryError):
        at(10, break_off, patch)
        resume(broken, "--total-steps", 12 * STEPS, *EACH)
    assert 8 < checkpoints(broken)[-1] < 12
    same(resume(broken), folder)  # at the length that it had grown to


def test_a_run_starts_from_the_weights_of_another(plain, tmp_path):
    """At a rate of almost 0 it ends where it began."""
    folder = train(tmp_path / "run", "--init-from", plain, "--algo.learning-rate", "1e-12")
    for name, x in weights(plain).items():
        np.testing.assert_allclose(weights(folder)[name], x, rtol=0, atol=1e-9, err_msg=name)
    other = train(tmp_path / "other", "--algo.learning-rate", "1e-12")
    assert any(np.any(np.abs(weights(other)[n] - x) > 1e-3) for n, x in weights(plain).items())


@pytest.mark.parametrize(
    "flags",
    [
        ("--algo.hidden", "16"),
        ("--algo.hidden", "8", "8"),
        ("--algo.normalize-obs",),
        ("--env", "CartPole-v1"),
        ("--env", "Pendulum-v1"),
    ],
)
def test_weights_of_another_shape_are_refused(plain, tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        train(tmp_path / "run", "--init-from", plain, *flags)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and f"init_from={plain} does not fit this run: " in said
    assert said.count("\n") == 1 and not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train(tmp_path / "run", "--init-from", tmp_path / "nothing")
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert "nothing" in said and not (tmp_path / "run").exists()


def test_a_nan_stops_the_run_keeps_its_metrics_and_names_the_last_good_checkpoint(tmp_path, capfd):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        train(folder, "--env-args", "length=1000000", "poison=20", *EACH)
    said = capfd.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1
    good = checkpoints(folder)[-1]
    assert 1 <= good <= 2 and f"last good checkpoint: {folder}/checkpoints/{good}." in said
    assert said.startswith("diverged: ") and "at iteration 3;" in said  # step 20 of 8 a time
    assert "of seed 0 is not finite" in said
    assert [line["iteration"] for line in logged(folder)] == [1, 2]

"""Runs from their first line to their last: what is logged, stopped, extended, and begun with."""

import json
import shutil
import signal
import sys
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from runs import checkpoints, logged
from tank import EACH, STEPS, at, resume, send, train, weights

from jaxrl import checkpoint
from jaxrl.checkpoint import Checkpoints
from train import evaluate, loop


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
        raise RuntimeError("broken off")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="broken off"):
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
    assert "reward of seed 0 is not finite" in said and "learning-rate" not in said
    assert "The environment test/Tank-v0 gave it; jaxrl.check_env(env) tells where." in said
    assert [line["iteration"] for line in logged(folder)] == [1, 2]


@pytest.mark.parametrize(
    ("trainer", "field", "iteration"),
    [
        ("ppo", "haze=20", 3),
        ("ppo", "haze=0", 1),  # at the reset
        ("pqn", "haze=20", 3),
        ("pqn", "poison=20", 3),
    ],
)
def test_what_the_environment_broke_first_is_named(tmp_path, capfd, trainer, field, iteration):
    with pytest.raises(SystemExit) as stop:
        train(tmp_path / "run", "--env-args", "length=1000000", field, trainer=trainer)
    what = "observation" if field.startswith("haze") else "reward"
    said = capfd.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1
    assert said.startswith(f"diverged: {what} of seed 0 is not finite at iteration {iteration};")
    assert "test/Tank-v0 gave it; jaxrl.check_env(env)" in said


def test_what_the_learner_broke_is_not_laid_at_the_environments_door(tmp_path, capfd):
    with pytest.raises(SystemExit) as stop:
        train(tmp_path / "run", "--algo.learning-rate", "1e38")
    said = capfd.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1 and "lower --algo.learning-rate" in said and "check_env" not in said


def test_lines_longer_than_chunks_are_the_same_after_breaks_in_their_middle(tmp_path, monkeypatch):
    """Chunks of one and two iterations, lines of three: broken off within the second and third."""
    monkeypatch.setattr(loop, "MAX_CHUNK", 2)
    whole = train(tmp_path / "whole", "--log-every", "3")
    assert [line["iteration"] for line in logged(whole)] == [3, 6, 8]
    folder = tmp_path / "run"
    save = Checkpoints.save
    for broken, begin, flags in ((4, train, ("--log-every", "3")), (7, resume, ())):

        def save_and_break(to, iteration, *what, broken=broken):
            save(to, iteration, *what)
            if iteration == broken:
                raise RuntimeError("broken off")

        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
            patch.setattr(Checkpoints, "save", save_and_break)
            begin(folder, *flags, *EACH)
        assert (stop.value.code, checkpoints(folder)[-1]) == (1, broken)
    same(resume(folder), whole)
    config = json.loads((folder / "config.json").read_text())
    assert [entry["devices"] for entry in config["resumed"]] == [1, 1]


def test_a_hole_in_the_log_is_told_and_recorded_and_the_run_goes_on(plain, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(plain, folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:2] + lines[5:]))
    resume(folder, "--total-steps", 9 * STEPS)
    said = capfd.readouterr().err
    assert f"note: {folder}/metrics.jsonl lacks the lines of iterations 3-5: they are lost" in said
    assert [line["iteration"] for line in logged(folder)] == [1, 2, 6, 7, 8, 9]
    lost = {"metrics.jsonl": [[3, 5]]}
    assert json.loads((folder / "config.json").read_text())["resumed"][0]["lost"] == lost
    assert json.loads((folder / "summary.json").read_text())["lost"] == lost
    resume(folder)
    assert "lacks" not in capfd.readouterr().err  # once


def test_a_checkpoint_whose_number_alone_was_changed_is_found_by_its_state(plain, tmp_path, capfd):
    """An older version's, which does not say in its record what it holds."""
    folder = tmp_path / "run"
    shutil.copytree(plain, folder)
    shutil.rmtree(folder / "checkpoints/8")
    kept = Checkpoints(plain / "checkpoints")
    shapes = kept._open().item_metadata(8).tree
    leaves = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    old = Checkpoints(folder / "checkpoints")
    ocp = old._open()
    ocp.save(7, args=checkpoint._orbax().args.StandardSave(leaves), custom_metadata={})
    ocp.wait_until_finished()
    old.close()
    kept.close()
    with pytest.raises(SystemExit) as stop:
        resume(folder)
    assert stop.value.code == 2
    assert "checkpoints/7 holds iteration 0: it was copied" in capfd.readouterr().err


def test_episodes_that_do_not_end_are_told_of_and_counted(plain, monkeypatch, capfd):
    """And standard output is the statistics alone."""
    arrays = sys.modules["jaxrl.train.arrays"]
    short = partial(arrays.evaluate, max_steps=3)  # of episodes of 5
    monkeypatch.setattr(arrays, "evaluate", short)
    evaluate.run(["--run", str(plain), "--episodes", "4"])
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert found["unfinished"] == 4 and found["metrics"]["episode_length"]["mean"] == 3
    assert err.startswith("note: 4 of 4 episodes did not end in ") and err.count("\n") == 1


def test_a_run_is_evaluated_in_an_environment_with_other_fields(plain, capfd):
    evaluate.run(["--run", str(plain), "--episodes", "4", "--env-args", "max_steps=2"])
    assert json.loads(capfd.readouterr().out)["metrics"]["episode_length"]["mean"] == 2

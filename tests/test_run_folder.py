"""A run's folder: who has it, and what is written into it."""

import errno
import fcntl
import os
import shutil
import signal
import struct
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from threading import Barrier

import jax
import pytest
from runs import checkpoints, logged
from tank import EACH, at, resume, train
from test_runs import same

from jaxrl import files
from jaxrl.checkpoint import Checkpoints
from train import arrays, compiled, devices, lock, loop, run_folder
from train.lock import Lock, Taken, claim
from train.run_folder import RunFolder
from train.saving import Events, LineFile, one_error, tag


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_of_many_starts_at_once_one_gets_the_folder(tmp_path):
    together = Barrier(8)

    def start(_):
        together.wait()
        try:
            return claim(tmp_path / "runs" / "run")[0]
        except Taken as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(start, range(8)))
    won = [x for x in found if isinstance(x, Lock)]
    assert len(won) == 1 and len([x for x in found if f"process {os.getpid()} on " in str(x)]) >= 1
    won[0].release()


def test_a_folder_is_in_use_until_its_run_ends(tmp_path):
    one, _ = claim(tmp_path / "run")
    with pytest.raises(Taken, match=rf"run_dir=.*run is in use by process {os.getpid()} on \w+"):
        claim(tmp_path / "run")
    with pytest.raises(Taken, match="resume="):
        Lock(tmp_path / "run", "resume")
    one.release()
    assert list((tmp_path / "run").iterdir()) == []
    (tmp_path / "run" / ".lock").write_text("process 1 on another")
    claim(tmp_path / "run")[0].release()  # a start that was killed left no config.json
    (tmp_path / "run" / ".config.json.tmp").write_text("{")
    claim(tmp_path / "run")[0].release()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(Taken, match="exists; try another name, or --resume"):
        claim(tmp_path / "run")


def test_a_lock_that_is_taken_away_while_it_is_waited_for_is_none(tmp_path, monkeypatch):
    flock, away = fcntl.flock, [True]

    def just_released(file: int, how: int) -> None:
        if away.pop() if away else False:
            (tmp_path / ".lock").unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", just_released)
    held = Lock(tmp_path, "resume")
    with pytest.raises(Taken):
        Lock(tmp_path, "resume")
    held.release()


def test_a_run_that_began_before_the_lock_was_free_is_not_overwritten(tmp_path, monkeypatch):
    def late(folder: Path, option: str) -> Lock:
        (folder / "config.json").write_text("another's")
        return Lock(folder, option)

    monkeypatch.setattr(lock, "Lock", late)
    with pytest.raises(Taken, match="exists"):
        claim(tmp_path / "run")
    Lock(tmp_path / "run", "resume").release()  # and the lock is given back


def test_what_is_no_run_is_refused_and_stays_as_it_was(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    for name in ("file", "folder"):
        with pytest.raises(Taken, match="exists"):
            claim(tmp_path / name)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["mine"]


def test_a_file_system_without_locks_is_told_of_and_mkdir_decides(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    claim(tmp_path / "run")[0].release()
    said = f"{tmp_path}/run cannot be locked (no locks available): start nothing else in it\n"
    assert capsys.readouterr().err == said
    with pytest.raises(Taken, match="exists"):
        claim(tmp_path / "run")


def of(path: Path, **how) -> RunFolder:
    args = loop.Options(run_dir=path)
    return RunFolder.create(path, args, writes=True, trainer="ppo", **how)


def test_runs_of_the_same_second_get_numbers(tmp_path):
    folders = [of(tmp_path / "run", numbered=True) for _ in range(3)]
    assert [f.path.name for f in folders] == ["run", "run-2", "run-3"]
    for number, folder in enumerate(folders, 1):
        assert folder.number == number and run_folder.read_config(folder.path)["options"]
        folder.close()
    with pytest.raises(ValueError, match="exists"):
        of(tmp_path / "run")


def test_where_config_json_cannot_be_written_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(ValueError, match=r"cannot be made: no space left on device; try another\."):
        of(tmp_path / "a" / "b" / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="no space left"):
        of(tmp_path / "mine")
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_a_line_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    lines, write = LineFile(tmp_path / "lines"), os.write
    lines.write({"a": 1})

    def half(file: int, data: bytes) -> int:
        if len(data) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match=str(tmp_path / "lines")):
        lines.write({"text": "x" * 100})
    monkeypatch.undo()
    assert (tmp_path / "lines").read_text() == '{"a": 1}\n'
    lines.write({"b": 2})
    lines.close()
    assert (tmp_path / "lines").read_text() == '{"a": 1}\n{"b": 2}\n'


def events(folder: Path) -> list[list]:
    """What TensorBoard reads, file by file."""
    read, every = import_module("tensorboardX.proto.event_pb2").Event.FromString, []
    for file in sorted(folder.glob("events*"), key=lambda p: int(p.suffix[1:])):
        data, found = file.read_bytes(), []
        while data:
            (size,) = struct.unpack("Q", data[:8])
            found.append(read(data[12 : 12 + size]))
            data = data[16 + size :]
        every.append(found)
    return every


def test_tensorboard_shows_a_run_that_went_on_from_where_it_was(tmp_path):
    for start, steps in (((0, 0), (100, 200, 300)), ((2, 200), (300,))):
        file = Events(tmp_path, start)
        for step in steps:
            file.add("learning/loss", step / 100, step)
        file.close()
    first, second = events(tmp_path)
    assert [(e.step, e.summary.value[0].simple_value) for e in first[1:]] == [
        (100, 1.0),
        (200, 2.0),
        (300, 3.0),
    ]
    assert first[0].file_version == second[0].file_version == "brain.Event:2"
    assert second[1].session_log.status == 1 and second[1].step == 201  # hides 201 and later
    assert [e.step for e in second[2:]] == [300]


def test_tensorboards_tags_are_in_groups():
    of_episodes = {"no_answer"}
    tags = {tag(name, of_episodes) for name in ("episode_return", "no_answer", "policy_loss")}
    assert tags == {"rollout/episode_return", "rollout/no_answer", "losses/policy_loss"}
    tags = {tag(name) for name in ("loss", "approx_kl", "eval_return", "learning_rate", "lossless")}
    assert tags == {
        "losses/loss", "losses/approx_kl", "eval/eval_return", "learning/learning_rate",
        "learning/lossless",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "number", "reason"),
    [
        (ValueError("RESOURCE_EXHAUSTED: ... [os_error_code='28']"), 28, os.strerror(28).lower()),
        (ValueError("OUT_OF_RANGE: ... [os_error_code='27']"), 27, os.strerror(27).lower()),
        (PermissionError(errno.EACCES, "Permission denied"), errno.EACCES, "permission denied"),
        (RuntimeError("what\n  orbax says"), errno.EIO, "what orbax says"),
    ],
)
def test_what_orbax_raises_is_an_error_of_the_system_and_nothing_half_stays(
    tmp_path, error, number, reason
):
    (tmp_path / "7.orbax-checkpoint-tmp" / "default").mkdir(parents=True)
    with pytest.raises(OSError) as raised, one_error(tmp_path, 7):
        raise error
    assert (raised.value.errno, raised.value.strerror) == (number, reason)
    assert raised.value.filename == str(tmp_path / "7") and list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A run of 8 iterations that nothing went wrong in."""
    return train(tmp_path_factory.mktemp("plain") / "run")


def orbax(*_, **__):
    raise ValueError("RESOURCE_EXHAUSTED: Error writing ... [os_error_code='28']")


WRITERS = {
    "metrics.jsonl": (LineFile, "write", full),
    "events.out.tfevents": (Events, "flush", full),
    "checkpoints/1": (Checkpoints, "save", orbax),
    "policy": (arrays, "save_policy", full),
    "curve.png": (os, "replace", None),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_run_whose_disk_is_full_says_so_in_a_line_and_goes_on_once_there_is_room(
    plain, tmp_path, capsys, name
):
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        owner, attribute, broken = WRITERS[name]
        patch.setattr(owner, attribute, broken or only(name))
        train(folder, *EACH)
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("stopped: ")]
    assert stopped.value.code == 1 and len(lines) == 1
    saved = checkpoints(folder)
    kept = f"iteration {saved[-1]} is saved" if saved else "no iteration is saved yet"
    assert "cannot be written: no space left on device" in lines[0]
    assert lines[0].endswith(f"; {kept}: make room and go on with --resume {folder}")
    same(resume(folder), plain)


def only(name: str):
    """os.replace on a disk that has no room for this file."""
    replace = os.replace
    return lambda old, new: full() if Path(new).name == name else replace(old, new)


def test_a_folder_that_is_deleted_while_it_trains_is_not_made_again(tmp_path, capsys):
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        at(3, lambda: shutil.rmtree(folder), patch)
        train(folder, *EACH)
    said = capsys.readouterr().err.splitlines()[-1]
    assert stopped.value.code == 1 and not folder.exists()
    assert said.endswith(f"nothing of the run is left in {folder}: start it again")


def test_a_signal_after_the_last_iteration_leaves_the_evaluation_to_resume(
    plain, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        at(8, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        train(folder)
    assert stopped.value.code == 143 and checkpoints(folder) == [8] and len(logged(folder)) == 8
    assert not (folder / "summary.json").exists()
    same(resume(folder), plain)


def test_two_processes_do_not_train_in_one_folder(plain, capsys):
    held = Lock(plain, "resume")
    with pytest.raises(SystemExit) as refused:
        resume(plain)
    held.release()
    said = capsys.readouterr().err
    assert refused.value.code == 2 and said.count("\n") == 1
    assert f"resume={plain} is in use by process {os.getpid()} on " in said


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_without_a_home_the_cache_is_where_the_user_says_or_nowhere(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiled.default_folder() == tmp_path / "jaxrl"
    for nothing in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", nothing)
        assert compiled.default_folder() is None


def test_a_cache_that_cannot_be_written_is_told_of_and_left_alone(tmp_path, capsys):
    (tmp_path / "file").touch()
    name = "jax_compilation_cache_dir"
    before = jax.config.values[name]
    try:
        jax.config.update(name, str(tmp_path / "file" / "cache"))
        compiled.keep_compiled_programs()
        assert jax.config.values[name] is None
    finally:
        jax.config.update(name, before)
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path}/file/cache cannot be written (not a directory): ")
    assert said.count("\n") == 1


def test_of_a_cache_that_is_full_one_line_is_said_and_nothing_half_stays(tmp_path, capsys):
    shown = []
    warn = compiled._Words(str(tmp_path), lambda *words: shown.append(words))
    (tmp_path / "jit_run-12-cache").touch()
    (tmp_path / "jit_init-12-cache").touch()
    text = "Error writing persistent compilation cache entry for 'jit_run': OSError: full"
    for message in (text, text, "another"):
        warn(message, UserWarning, "file", 1)
    assert shown == [("another", UserWarning, "file", 1)]
    said = f"a program in {tmp_path} cannot be written (OSError: full); it is compiled anew\n"
    assert capsys.readouterr().err == said
    assert [p.name for p in tmp_path.iterdir()] == ["jit_init-12-cache"]


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable: foo\n(set JAX)")])
def test_a_platform_that_is_not_here_is_named(monkeypatch, error):
    def devices_of_none():
        raise error

    monkeypatch.setattr(jax, "devices", devices_of_none)
    with pytest.raises(ValueError, match=r"JAX_PLATFORMS=cpu cannot be used here \(.*\); there is"):
        devices.check_platforms()


def test_a_pipe_in_a_lines_place_is_an_error_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        LineFile(tmp_path / "metrics.jsonl")


def test_what_is_not_finite_is_null_in_a_runs_files(tmp_path):
    folder = RunFolder(tmp_path, writes=True)
    folder.write_json("summary.json", {"mean": float("nan"), "ci95": (1.0, float("inf"))})
    assert files.read_json(tmp_path / "summary.json") == {"mean": None, "ci95": [1.0, None]}

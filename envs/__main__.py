"""`python -m envs`: every id with its spaces, time limit and source.

`python -m envs --markdown > docs/suites.md` writes the page of the suites that are installed.
"""

import itertools
import sys
from collections.abc import Sequence

from jaxrl import envs, memory
from jaxrl.env import Environment
from jaxrl.envs.bridges import BRIDGES, bridge
from jaxrl.envs.registry import Spec
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, TextSpace
from jaxrl.train import edge
from jaxrl.train.devices import check_platforms

WIDTHS = (30, 22, 9, 0)  # of what follows an id: each line is shown when it is known
HEAD = ("id", "observation", "action", "max steps", "source")
COLUMNS = """| id | observation | action | max steps | bytes of a state |
|---|---|---|---|---|"""
PAGE = """# The suites' environments

`python -m envs --markdown > docs/suites.md` writes this page, of the suites that are here: what
a bridge mends, then its ids. A state is counted with its observation, as a pool of resets holds it.
"""


def brief(space: Space) -> str:
    """A space in a few characters: its kind, its dtype unless float32, its sizes."""
    if isinstance(space, Discrete):
        return f"Discrete({space.n})"
    if isinstance(space, MultiDiscrete):
        return f"MultiDiscrete{space.nvec}"
    if isinstance(space, Box):
        dtype = "" if space.dtype.name == "float32" else f" {space.dtype.name}"
        return f"Box{list(space.shape)}{dtype}"
    if isinstance(space, TextSpace):
        return f"Text[{space.capacity}]"
    if isinstance(space, dict):
        return "{" + ", ".join(f"{k}: {brief(v)}" for k, v in space.items()) + "}"
    if isinstance(space, tuple | list):
        return "(" + ", ".join(brief(v) for v in space) + ")"
    return type(space).__name__


def made(spec: Spec) -> Environment | str:
    """The environment, or why it is not made for a listing."""
    if spec.downloads:
        return f"downloads {spec.downloads}"
    if spec.needs:
        return f"needs {spec.needs}"
    try:
        return envs.make(spec.id)
    except ImportError as error:
        return str(error)


def cells(env: Environment) -> tuple[str, str, str]:
    """Its spaces and its time limit."""
    limit = getattr(env, "max_steps", None)
    spaces = (brief(env.observation_space), brief(env.action_space))
    return *spaces, "-" if limit is None else str(int(limit))


def row(spec: Spec) -> tuple[str, ...]:
    """One line of the listing; an environment that cannot be made says why."""
    env = made(spec)
    return spec.id, *((env, "", "") if isinstance(env, str) else cells(env)), spec.source


def main(argv: Sequence[str]) -> None:
    """The command line."""
    edge.command(lambda: print(__doc__) if list(argv) in (["-h"], ["--help"]) else listing(argv))


def listing(argv: Sequence[str] = ()) -> None:
    """A line for each id, or with --markdown docs/suites.md."""
    if list(argv) not in ([], ["--markdown"]):
        raise ValueError(
            f"Unrecognized options: {' '.join(argv)}; python -m envs has --markdown alone."
        )
    check_platforms()
    if argv:
        return page()
    widths = (max(map(len, envs.ids())), *WIDTHS)
    for line in itertools.chain([HEAD], (row(envs.spec(id)) for id in envs.ids())):
        texts = (f"{text:{width}}" for text, width in zip(line, widths, strict=True))
        print("  ".join(texts).rstrip(), flush=True)


def page() -> None:
    """docs/suites.md: of each suite what its bridge mends, and its environments."""
    print(PAGE, end="")
    for suite in BRIDGES:
        print(f"\n## {suite}\n\n{bridge(suite).MENDS}")
        head, left = f"\n{COLUMNS}\n", dict[str, list[str]]()
        for name in bridge(suite).ids():
            env = made(envs.spec(f"{suite}/{name}"))
            if isinstance(env, str):
                left.setdefault(env.replace(f"{suite}/{name} ", ""), []).append(name)
                continue
            texts = (*cells(env), f"{memory.of_environment(env)[0]:,}")
            print(f"{head}| `{suite}/{name}` | {' | '.join(texts)} |", flush=True)
            head = ""
        for reason, names in left.items():
            print(f"\nNot made for this page: {reason}", *(f"`{name}`" for name in names), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""`python -m envs`: every id with its spaces and time limit, in groups; suites last.

`python -m envs --markdown > docs/suites.md` writes the page of the suites that are installed.
"""

import itertools
import sys
import textwrap
from collections.abc import Sequence

from jaxrl import envs, memory
from jaxrl.env import Environment
from jaxrl.envs.bridges import BRIDGES, bridge
from jaxrl.envs.registry import Spec
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, TextSpace
from jaxrl.train import edge
from jaxrl.train.devices import check_platforms

WIDTHS = (30, 22, 9)  # of what follows an id: each line is shown when it is known
HEAD = ("observation", "action", "max steps")
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
    specs = sorted(map(envs.spec, envs.ids()), key=lambda spec: (*group_of(spec), spec.id))
    for (_, title), group in itertools.groupby(specs, group_of):
        show(title, list(group))


def group_of(spec: Spec) -> tuple[int, str]:
    """Where an id is listed: among ours without a family, a family of ours, or a suite."""
    family, slash, _ = spec.id.partition("/")
    if spec.source != "native":
        return 2, spec.source
    return (1, family) if slash else (0, "native")


def show(title: str, specs: Sequence[Spec]) -> None:
    """A line for each that can be made, then the ids of the others with the reason."""
    widths = (max(len(spec.id) for spec in specs), *WIDTHS)
    head, left = [(f"{title}:", *HEAD)], dict[str, list[str]]()
    for spec in specs:
        env = made(spec)
        if isinstance(env, str):
            left.setdefault(env.removeprefix(f"{spec.id} "), []).append(spec.id)
            continue
        for line in (*head, (spec.id, *cells(env))):
            texts = (f"{text:{width}}" for text, width in zip(line, widths, strict=True))
            print("  ".join(texts).rstrip(), flush=True)
        head = []
    for reason, ids in left.items():
        print(f"{title}, not made here: {reason}")
        names = " ".join(ids)
        print(textwrap.indent(textwrap.fill(names, 96, break_on_hyphens=False), "  "), flush=True)
    print()


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

"""`python -m envs`: every id with its spaces, time limit and source."""

import sys
from collections.abc import Sequence

from jaxrl import envs
from jaxrl.envs.registry import Spec
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, TextSpace
from jaxrl.train import edge
from jaxrl.train.devices import check_platforms

HEAD = ("id", "observation", "action", "max steps", "source")


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


def row(spec: Spec) -> tuple[str, ...]:
    """One line of the listing; an environment that cannot be made says why."""
    if spec.downloads:
        return spec.id, f"downloads {spec.downloads}", "", "", spec.source
    if spec.needs:
        return spec.id, f"needs {spec.needs}", "", "", spec.source
    try:
        env = envs.make(spec.id)
    except ImportError as error:
        return spec.id, str(error), "", "", spec.source
    limit = getattr(env, "max_steps", None)
    spaces = (brief(env.observation_space), brief(env.action_space))
    return spec.id, *spaces, "-" if limit is None else str(int(limit)), spec.source


def main(argv: Sequence[str]) -> None:
    """The command line; it has no options."""
    edge.command(lambda: print(__doc__) if list(argv) in (["-h"], ["--help"]) else listing(argv))


def listing(argv: Sequence[str] = ()) -> None:
    """A line for each id, as they come."""
    if argv:
        raise ValueError(f"Unrecognized options: {' '.join(argv)}; python -m envs has none.")
    check_platforms()
    rows = [HEAD, *(row(envs.spec(id)) for id in envs.ids())]
    widths = [max(len(line[i]) for line in rows) for i in range(len(HEAD))]
    for line in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

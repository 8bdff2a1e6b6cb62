"""Step an environment by hand in a page of your browser: `python -m train.play --env GridWorld-v0`.

Or let chance, an expert, or what a run trained drive: `python -m train.play --run DIR`. The page is
this machine's alone; each tab has a game of its own, any step can be undone, and its log is the
calls of Gymnasium that give the same numbers. Needs `pip install 'jaxrl[play]'`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from socket import gethostname
from typing import Any

import jax

from jaxrl.config import LARGEST, check_fields, check_range
from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.model import lora
from jaxrl.policy import load_policy
from jaxrl.train import edge, flags, language, stop, table
from jaxrl.train.compiled import keep_compiled_programs
from jaxrl.train.paths import Folder
from jaxrl.train.run_folder import read_config


@dataclass(frozen=True)
class Args:
    env: str = ""  # id of the environment; by default GridWorld-v0, or the run's own
    env_args: tuple[str, ...] = ()  # its fields, as NAME=VALUE, over those of a run
    run: Folder | None = None  # folder of a finished run, whose policy can drive
    seed_index: int = 0  # which of the run's seeds, from 0
    host: str = "127.0.0.1"  # address to listen at: other machines reach others than this one
    port: int = 8000  # of the page; 0: any that is free

    def __post_init__(self):
        check_fields(self)
        check_range("seed_index", self.seed_index, 0, LARGEST, 0)
        check_range("port", self.port, 0, 65535, 8000)
        if not self.host.strip():
            raise ValueError(f"host={self.host} must be an address; try 127.0.0.1.")


def saved_options(run: Path) -> Any:
    """The options that a run was started with; ValueError for one that trained no player."""
    made_by = read_config(run).get("trainer") or ""
    if made_by == "reward_model":
        raise ValueError(f"run={run} holds a reward model, which judges and does not play.")
    return flags.saved_options(table.trainer(made_by), run)


def pilot_of(args: Args, run: Path, options: Any) -> Any:
    """A run's policy or model; ValueError for a run that has none."""
    from jaxrl.train.playing.players import ModelPilot, PolicyPilot

    if not isinstance(options, language.Options):
        return PolicyPilot(load_policy(run, args.seed_index), run)
    if options.tools:
        raise ValueError(f"run={run} has tools in Python, which the page cannot go back from.")
    trained, tokenizer, agent = language.reload_agent(run, replace(options, reward=()))
    count = jax.tree.leaves(trained)[0].shape[0]
    if args.seed_index >= count:
        raise ValueError(f"seed_index={args.seed_index} must lie in [0, {count - 1}]; try 0.")
    model = jax.tree.map(lambda x: x[args.seed_index], trained)
    _, model = lora.merge(agent.model_config, model)
    return ModelPilot(model, HostChat(tokenizer), agent, run)


def chosen(args: Args) -> tuple[Any, Any]:
    """(world, pilot) that the options ask for; ValueError where they do not fit."""
    from jaxrl.train.playing import world

    pilot, id, fields = None, args.env or "GridWorld-v0", flags.parse_fields(args.env_args)
    if args.run is not None:
        options = saved_options(args.run)
        pilot = pilot_of(args, args.run, options)
        if not args.env:
            id, fields = options.env, flags.env_fields(options) | fields
    else:
        fields = world.fields_for_people(id, args.env_args)
    first = world.make_world(id, fields, pilot)
    if first.note:
        raise ValueError(first.note)
    return first, pilot


def main(args: Args) -> None:
    """Serves the page until a signal."""
    from jaxrl.train.playing import server, world

    keep_compiled_programs()
    first, pilot = chosen(args)
    with server.Server(world.Worlds(first, pilot), args.host, args.port) as serving:
        if args.host not in server.LOCAL:
            edge.say(
                f"note: host={args.host} lets other machines in, by the name {gethostname()} or a "
                "number; the token in the address is all that keeps strangers out, and nothing is "
                "encrypted."
            )
        edge.say(f"compiling {first.id} ...")
        first.warm()
        stop.leave_with(lambda: "stopped; no game is kept")
        print(f"open {serving.address} (Ctrl-C ends it)", flush=True)
        serving.wait()


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    flags.run(Args, __doc__ or "", argv, main)


if __name__ == "__main__":
    run(sys.argv[1:])

"""Compile a trainer for TPUs that are not there: `python -m train.aot --topology v5e:4x4`.

A topology's name is enough for libtpu (`pip install 'jaxrl[tpu]'`) to compile for it on any
machine: it shows whether the program fits the chips, and what they say to each other. `--trainer`
names one of the table (by default ppo, or grpo on the id of a language environment); the other
options are that trainer's: `--env language/GuessTheNumber-easy --model qwen2.5-0.5b --split`.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import jax
from jax.experimental import topologies

from jaxrl import envs
from jaxrl.program import members
from jaxrl.train import edge, flags, loop, table
from jaxrl.train.devices import mesh_of_all
from jaxrl.train.trainer import Task

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
HOST_CALLS = ("infeed", "outfeed", "recv", "send")


TOPOLOGY = "v5e:4x4"  # TPU generation and grid of chips, where --topology names none


def compile_for(topology: str, task: Task, num_seeds: int) -> jax.stages.Compiled:
    """The training program of `task`, compiled for all chips of a TPU topology.

    Raises ValueError where libtpu is missing or does not know the topology.
    """
    if not re.fullmatch(r"[a-z]\w*:[1-9]\d{0,3}(x[1-9]\d{0,3}){1,2}", topology, re.ASCII):
        raise ValueError(
            f"topology={topology} must be a TPU's generation and its grid of chips; try {TOPOLOGY}."
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or libtpu asks the cloud where it runs
    try:
        chips = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # jax and libtpu raise many kinds
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"topology={topology} cannot be compiled for ({reason}); it needs libtpu "
            "(pip install 'jaxrl[tpu]') and a name such as v5e:4x4."
        ) from None
    mesh = mesh_of_all(list(chips), num_seeds, task.num_blocks)
    program = loop.program_of(task, mesh)
    several = members(range(num_seeds), task.cfg, task.env)
    return program.run.lower(*program.abstract(several)).compile()


def collectives(hlo: str) -> Counter[str]:
    """How many instructions of each kind let the devices talk, in a compiled program's text."""
    found = re.findall(rf"= .*?\b({'|'.join(COLLECTIVES)})(?:-start)?\(", hlo)
    return Counter(found)


def host_calls(hlo: str) -> list[str]:
    """Instructions that leave the device for the host, and calls to what may be Python."""
    found = re.findall(rf"= .*?\b({'|'.join(HOST_CALLS)})(?:-done)?\(", hlo)
    targets = re.findall(r'custom_call_target="([^"]*)"', hlo)
    return found + [target for target in targets if re.search("callback|host", target, re.I)]


def memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes per device; the donated state is counted once."""
    m = compiled.memory_analysis()
    assert m is not None, "this compiler says nothing of memory"
    parts = {
        "arguments": m.argument_size_in_bytes,
        "results": m.output_size_in_bytes - m.alias_size_in_bytes,
        "temporary": m.temp_size_in_bytes,
        "code": m.generated_code_size_in_bytes,
    }
    return parts | {"total": sum(parts.values())}


def report(compiled: jax.stages.Compiled) -> str:
    """Memory and collectives of a compiled program, for a person."""
    hlo = compiled.as_text() or ""
    parts = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in memory(compiled).items())
    kinds = ", ".join(f"{count} {kind}" for kind, count in collectives(hlo).items())
    return f"memory per chip: {parts}\ncollectives: {kinds or 'none'}"


def main(argv: Sequence[str]) -> None:
    jax.config.update("jax_platforms", "cpu")  # the only devices that compiling needs
    argv = flags.full_names(argv)
    env_id, name = flags.flag_value(argv, "--env"), flags.flag_value(argv, "--trainer")
    if name is None:
        spoken = env_id is not None and envs.spec(env_id).is_language
        name = "grpo" if spoken else "ppo"
    given = flags.words_by_flag(argv)
    topology = given.get("--topology") or TOPOLOGY
    trainer = table.trainer(name)
    args = flags.parse(
        replace(trainer, intro=__doc__ or ""), flags.without(argv, "--trainer", "--topology")
    )
    task = trainer.setup(trainer.complete(args))
    if task.host is not None:
        raise ValueError(f"env={args.env} is not one program: Python on the host has a word in it.")
    print(report(compile_for(topology, task, args.num_members)))


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    edge.command(lambda: main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])

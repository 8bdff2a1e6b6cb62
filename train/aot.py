"""Compile a trainer for TPUs that are not there: `python -m train.aot --topology v5e:4x4`.

A topology's name is enough for libtpu (`pip install 'jaxrl[tpu]'`) to compile for it on any
machine: it shows whether the program fits the chips, and what they say to each other. The other
options are those of `train.ppo`, or on the id of a language environment those of `train.grpo`:
`--env language/GuessTheNumber-easy --model qwen2.5-0.5b --dtype bfloat16 --split`.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from jaxrl.program import make_program
from jaxrl.train import flags, grpo, loop, ppo
from jaxrl.train.devices import mesh_of_all

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


@dataclass(frozen=True)
class Args(ppo.Args):
    topology: str = "v5e:4x4"  # TPU generation and grid of chips


@dataclass(frozen=True)
class LanguageArgs(grpo.Args):
    topology: str = "v5e:4x4"  # TPU generation and grid of chips


def compile_for(topology: str, task: loop.Task, num_seeds: int) -> jax.stages.Compiled:
    """The training program of `task`, compiled for all chips of a TPU topology.

    Raises ValueError where libtpu is missing or does not know the topology.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or libtpu asks the cloud where it runs
    try:
        chips = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # jax and libtpu raise many kinds
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"topology={topology} cannot be compiled for ({reason}); it needs libtpu "
            "(pip install 'jaxrl[tpu]') and a name such as v5e:4x4."
        ) from None
    mesh = mesh_of_all(list(chips), num_seeds, task.num_groups)
    program = make_program(
        task.init, task.update, task.specs, mesh, loop.MAX_CHUNK, one_by_one=task.one_by_one
    )
    return program.run.lower(*program.abstract(num_seeds)).compile()


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
    if ppo.is_spoken_to(argv):
        args = flags.parse(LanguageArgs, __doc__ or "", {}, argv)
        task = grpo.make_task(args)
    else:
        args = flags.parse(Args, __doc__ or "", ppo.PRESETS, argv)
        task = ppo.make_task(args)
    print(report(compile_for(args.topology, task, args.num_seeds)))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

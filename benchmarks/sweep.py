"""A sweep as one program against its configurations run one after the other, compiling apart.

    python benchmarks/sweep.py --json benchmarks/results/DATE-sweep.jsonl

3 learning rates x 8 seeds of PPO on CartPole-v1, each run with the devices that train.ppo would
take for it. All of them are run, side by side in one program and then alone; the program of a
single run is compiled once. Not timed: evaluation, files, the start of 24 processes.
"""

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

from benchmarks.record import machine, versions
from jaxrl.program import Member
from jaxrl.train import swept
from jaxrl.train.devices import Distributed, choose, join
from jaxrl.train.loop import program_of
from jaxrl.train.ppo import PRESETS, Args, setup

RATES = "algo.learning-rate=1e-4,3e-4,1e-3"


def compiled(args: Args, count: int) -> tuple[Any, Any, float]:
    """(a function that trains so many members to their end, its devices, s to compile)."""
    task = setup(args)
    mesh = choose(0, count, task.num_blocks, task.minibatch_rows)
    program = program_of(task, mesh)
    example = jax.tree.map(lambda x: x[:count], swept.members_of(args, task.cfg, task.env, "ppo"))
    start = perf_counter()
    init, run = program.compile(example)
    compile_s = perf_counter() - start

    def train(members: Member) -> float:
        placed = program.place(members)
        start, done = perf_counter(), 0
        state = init(placed)
        while done < task.num_iterations:
            now = min(program.max_count, task.num_iterations - done)
            state, metrics = run(state, placed, program.scalar(now))
            done += now
        jax.block_until_ready((state, metrics))
        return perf_counter() - start

    return train, mesh.devices.size, compile_s


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--env", default="CartPole-v1")
    flags.add_argument("--preset", choices=PRESETS, default="default")
    flags.add_argument("--num-envs", type=int, default=0, help="0: the preset's")
    flags.add_argument("--steps", type=int, default=0, help="0: the preset's")
    flags.add_argument("--seeds", type=int, default=8)
    flags.add_argument("--json", type=Path, help="append the record to this file")
    given = flags.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    join(Distributed())
    changes = {"total_steps": given.steps, "num_envs": given.num_envs}
    algo = PRESETS[given.preset].__class__(
        **vars(PRESETS[given.preset]) | {name: x for name, x in changes.items() if x}
    )
    args = Args(env=given.env, algo=algo, sweep=(RATES,), num_seeds=given.seeds)
    task = setup(args)
    members, count = swept.members_of(args, task.cfg, task.env, "ppo"), args.num_members
    together, devices, together_compile_s = compiled(args, count)
    alone, devices_alone, alone_compile_s = compiled(args, 1)
    here = machine(f"{devices} x {jax.devices()[0].platform}")
    together_s = together(members)
    alone_s = [alone(jax.tree.map(lambda x: x[i : i + 1], members)) for i in range(count)]  # noqa: B023
    record = {
        "program": "jaxrl sweep",
        "env": args.env,
        "sweep": RATES,
        "num_seeds": args.num_seeds,
        "env_steps": count * task.num_iterations * task.steps_per_iteration,
        "num_envs": task.cfg.num_envs,
        "together": {"run_s": together_s, "compile_s": together_compile_s, "devices": devices},
        "alone": {"run_s": alone_s, "compile_s": alone_compile_s, "devices": devices_alone},
        "together_of_alone": together_s / sum(alone_s),
        "versions": versions("jaxrl", "jax", "jaxlib", "flax", "optax"),
        "machine": here,
    }
    print(json.dumps(record))
    if given.json is not None:
        with given.json.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()

"""What more seeds and costly resets cost: `python benchmarks/scaling.py --out FILE`.

Each figure is a ratio of run times in one process, compile time apart, the two programs taking
turns: ten seeds against one (CartPole-v1, default options; with 4 environments, where one seed
leaves a core without work, and with 16, where it does not), and an environment whose reset costs
100 steps against the same one with a free reset (probe/CostlyReset-v0, default options).
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

from benchmarks.record import machine, versions
from jaxrl.algos.ppo import Config
from jaxrl.program import members
from train.devices import Distributed, choose, join
from train.loop import program_of
from train.ppo import Args, setup

ITERATIONS = 60  # in one timed run


def runner(
    env_id: str, num_seeds: int, num_envs: int = 16, **fields: object
) -> Callable[[], float]:
    """A function that trains for ITERATIONS more and returns the seconds that took."""
    given = tuple(f"{name}={value}" for name, value in fields.items())
    task = setup(Args(env=env_id, env_args=given, algo=Config(num_envs=num_envs)))
    mesh = choose(0, num_seeds, task.num_blocks, task.minibatch_rows)
    program = program_of(task, mesh)
    several = members(range(num_seeds), task.cfg, task.env)
    init, run = program.compile(several)
    placed = program.place(several)
    state = init(placed)

    def timed() -> float:
        nonlocal state
        start = perf_counter()
        state, metrics = run(state, placed, program.scalar(ITERATIONS))
        exhausted = float(metrics["pool_exhausted"].numerator[:ITERATIONS].sum())
        seconds = perf_counter() - start
        assert exhausted == 0, f"{exhausted} episodes did not start fresh"
        return seconds

    timed()  # the first call sets up threads and memory
    return timed


def compare(name: str, costly: Callable[[], float], plain: Callable[[], float]) -> dict:
    """Medians of seven alternating runs and their ratio."""
    pairs = [(costly(), plain()) for _ in range(7)]
    first, second = (statistics.median(x) for x in zip(*pairs, strict=True))
    record = {
        "comparison": name,
        "seconds": [first, second],
        "ratio": first / second,
        "runs": pairs,
        "versions": versions("jaxrl", "jax", "jaxlib"),
        "machine": machine(f"{len(jax.devices())} x {jax.devices()[0].platform}"),
    }
    print(f"{name}: {first:.2f} s against {second:.2f} s, {first / second:.2f}x", flush=True)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    args = parser.parse_args()
    join(Distributed())
    costly = "probe/CostlyReset-v0"
    records = [
        *(
            compare(
                f"ten seeds / one, {n} environments",
                runner("CartPole-v1", 10, n),
                runner("CartPole-v1", 1, n),
            )
            for n in (4, 16)
        ),
        compare(
            "reset of 100 steps / free reset",
            runner(costly, 1, reset_cost=100, max_steps=500),
            runner(costly, 1, reset_cost=0, max_steps=500),
        ),
    ]
    with args.out.open("a") as out:
        out.writelines(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    main()

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
from functools import partial
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

import envs
from benchmarks.record import machine, versions
from jaxrl import sgd
from jaxrl.algos import ppo
from jaxrl.program import make_program
from train.devices import Distributed, choose, join

ITERATIONS = 60  # in one timed run


def runner(
    env_id: str, num_seeds: int, num_envs: int = 16, **fields: object
) -> Callable[[], float]:
    """A function that trains for ITERATIONS more and returns the seconds that took."""
    cfg = ppo.Config(num_envs=num_envs)
    env = ppo.wrap(envs.make(env_id, **fields), cfg)
    groups = cfg.num_envs // sgd.group_size(cfg.num_steps, cfg.num_minibatches)
    rows = cfg.num_envs * cfg.num_steps // cfg.num_minibatches
    mesh = choose(0, num_seeds, groups, rows)
    program = make_program(
        partial(ppo.init, cfg=cfg, env=env), partial(ppo.update, cfg=cfg, env=env),
        ppo.specs(), mesh,
    )  # fmt: skip
    init, run = program.compile(num_seeds)
    seeds = program.seeds(0, num_seeds)
    state = init(seeds)

    def timed() -> float:
        nonlocal state
        start = perf_counter()
        state, metrics = run(state, seeds, program.scalar(ITERATIONS))
        exhausted = float(metrics["pool_exhausted"][:ITERATIONS].sum())
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

"""Tool calls and verifications a second: `python benchmarks/tools.py --out FILE`.

A batch of offices draws its episodes, answers a mail search (the call is read from the bytes of a
response) and is verified by its state, each in one program. With `--peer "PYTHON FILE --checkout
DIR"` (benchmarks/peers/nemo_workplace.py) NeMo Gym's Python does the same in turns. What differs:
its world is one that is fixed, of 500 mails and more; ours is drawn anew with 6 rows a table, and
what the true calls make of it is computed when it is drawn; its verdict replays both.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp

from benchmarks.record import machine, versions
from jaxrl import envs
from jaxrl.envs.tools.office import Office
from jaxrl.envs.tools.office_words import NAMES
from jaxrl.text import select

WORDS = ("budget", "invoice", "payroll", "training")


def programs(batch: int) -> tuple[dict[str, Callable[[], Any]], float]:
    """What is timed, compiled and run once; the seconds that compiling took."""
    env = envs.make("tools/Office")
    assert isinstance(env, Office)
    keys = jax.random.split(jax.random.key(0), batch)
    start = perf_counter()
    reset = jax.jit(jax.vmap(env.reset))
    states, _ = reset(keys)

    def search(i: jax.Array):
        tools = len(env.toolbox[0].parameters)
        most = max(len(tool.parameters) for tool in env.toolbox)
        value = select(jnp.full(most, i % len(WORDS)), WORDS)
        assert tools <= most
        given = jnp.arange(most) == 0
        return env.call(NAMES.index("email_search_emails"), value, given)

    calls = jax.jit(jax.vmap(search))(jnp.arange(batch))
    does = {
        "seed": lambda: reset(keys),
        "search": jax.tree_util.Partial(jax.jit(jax.vmap(env.run)), states.world, calls),
        "verify": jax.tree_util.Partial(jax.jit(jax.vmap(env.finish)), states.world, calls),
        "step": jax.tree_util.Partial(jax.jit(jax.vmap(env.step)), states, calls, keys),
    }
    told = jax.block_until_ready(does["search"]())[1]
    assert bool(jnp.all(told.length > 0))
    for do in does.values():
        jax.block_until_ready(do())
    return does, perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", help="the command of the other side")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    does, compile_s = programs(args.batch)
    command = shlex.split(args.peer) if args.peer else ["cat"]
    pipe = subprocess.PIPE
    ours: dict[str, list[float]] = {name: [] for name in does}
    theirs: dict[str, list[float]] = {}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as peer:
        assert peer.stdin and peer.stdout
        for _ in range(args.rounds):
            for name, do in does.items():
                start = perf_counter()
                jax.block_until_ready(do())
                ours[name].append((perf_counter() - start) / args.batch * 1000)
            peer.stdin.write("{}\n")
            peer.stdin.flush()
            for name, took in json.loads(peer.stdout.readline()).items():
                theirs.setdefault(name, []).append(took)
        peer.stdin.close()
    record = {
        "benchmark": "tools",
        "batch": args.batch,
        "compile_s": round(compile_s, 1),
        "ms": ours,
        "peer_ms": theirs,
        "ratio": {
            name: statistics.median(b / a for a, b in zip(ours[name], took, strict=True))
            for name, took in theirs.items()
        },
        "machine": machine(jax.devices()[0].device_kind),
        "versions": versions("jax", "jaxlib"),
    }
    for name, took in ours.items():
        print(f"{name}: {statistics.median(took):.4f} ms", end="")
        print(f", {record['ratio'][name]:.0f} times the peer" if name in theirs else "")
    if args.out:
        with args.out.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()

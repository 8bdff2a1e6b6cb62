"""Each algorithm beside Stable-Baselines3's with the same options, in turn.

    python benchmarks/algorithms.py --peers-python peers-env/bin/python --out FILE

Ours is the trainer's own command, one seed and five; its summary's steps per second are without
compiling. The peer's are of `learn` alone, with one and with two threads of torch, and of fewer
steps, of which those before `learning_starts` cost less: that flatters the peer.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.record import machine, versions

HERE = Path(__file__).parent
# trainer, its options, the peer's script, steps of the peer
RUNS: dict[str, tuple[list[str], str, int]] = {
    "dqn": ([], "sb3_dqn.py", 15_000),
    "sac": ([], "sb3_actor_critic.py", 3_000),
    "td3": ([], "sb3_actor_critic.py", 4_000),
    "a2c": ([], "sb3_on_policy.py", 50_000),
    "trpo": ([], "sb3_on_policy.py", 50_000),
}


def last_json(command: list[str]) -> dict[str, Any]:
    """The record that a process ends with."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(name: str, folder: Path, seeds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "train." + name, *RUNS[name][0], "--run-dir", str(folder)]
    subprocess.run([*command, "--num-seeds", str(seeds)], check=True, capture_output=True)
    return json.loads((folder / "summary.json").read_text())


def compare(name: str, peers_python: str, repeats: int) -> dict[str, Any]:
    """Steps per second of each side, in alternating runs."""
    _, script, steps = RUNS[name]
    found: dict[str, list[float]] = {}
    returns: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(repeats):
            for seeds in (1, 5):
                run = Path(scratch) / f"{name}-{seeds}-{repeat}"
                summary = ours(name, run, seeds)
                found.setdefault(f"jaxrl, {seeds} seeds", []).append(summary["steps_per_s"])
                returns[f"jaxrl, {seeds} seeds"] = summary["final_return"]["per_seed"]
            for threads in (1, 2):
                peer = [peers_python, str(HERE / "peers" / script), "--run", str(run)]
                record = last_json([*peer, "--steps", str(steps), "--threads", str(threads)])
                side = f"stable-baselines3, {threads} threads"
                found.setdefault(side, []).append(record["steps_per_s"])
    medians = {side: statistics.median(x) for side, x in found.items()}
    peer = max(x for side, x in medians.items() if side.startswith("stable"))
    ratios = {side: x / peer for side, x in medians.items() if side.startswith("jaxrl")}
    print(name, {k: round(v) for k, v in medians.items()}, ratios, flush=True)
    return {
        "benchmark": "algorithms",
        "trainer": name,
        "steps_per_s": found,
        "ratio_to_the_faster_peer": ratios,
        "final_return": returns,
        "peer": record["versions"],
        "peer_steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers-python", required=True)
    parser.add_argument("--only", nargs="*", choices=RUNS, default=list(RUNS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    args = parser.parse_args()
    where = {"machine": machine("cpu"), "versions": versions("jax", "jaxlib", "flax")}
    for name in args.only:
        record = compare(name, args.peers_python, args.repeats)
        with args.out.open("a") as out:
            out.write(json.dumps(record | where) + "\n")


if __name__ == "__main__":
    main()

"""All programs on all settings, in alternating runs: `python benchmarks/run.py --out FILE ...`."""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.settings import SETTINGS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Program:
    """How to start one program."""

    name: str
    command: list[str]
    settings: list[str]


def programs(args: argparse.Namespace) -> list[Program]:
    """jaxrl always; the peers whose Python and checkout were given."""
    every = [name for name in args.settings if name in SETTINGS]
    slow = [name for name in every if SETTINGS[name].peer_steps]
    found = [Program("jaxrl", [sys.executable, str(HERE / "ours.py")], every)]
    if args.before:
        script = str(Path(args.before) / "benchmarks" / "ours.py")
        found.append(Program("jaxrl before", [sys.executable, script], every))
    if args.purejaxrl_python and args.purejaxrl_checkout:
        script = [str(HERE / "peers/purejaxrl.py"), "--checkout", args.purejaxrl_checkout]
        found.append(Program("purejaxrl", [args.purejaxrl_python, *script], every))
    if args.peers_python:
        for name in ("sb3", "sbx"):
            found.append(Program(name, [args.peers_python, str(HERE / f"peers/{name}.py")], slow))
    return found


def run_once(program: Program, setting: str, repeat: int, timeout: float) -> dict | None:
    """One run in a process of its own; None, with a word on stderr, if it fails."""
    command = [*program.command, "--setting", setting, "--seed", str(repeat)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, cwd=HERE.parent
        )
    except subprocess.TimeoutExpired:
        print(f"{program.name} {setting}: no end in {timeout:.0f} s", file=sys.stderr)
        return None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        print(f"{program.name} {setting}: failed: {last}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"program": program.name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--before", help="folder of another checkout of this project")
    parser.add_argument("--purejaxrl-python", help="python of an environment that has its needs")
    parser.add_argument("--purejaxrl-checkout", help="folder of a PureJaxRL checkout")
    parser.add_argument("--peers-python", help="python of an environment with SB3 and sbx")
    parser.add_argument("--timeout", type=float, default=600.0, help="s for one run")
    args = parser.parse_args()
    for setting in args.settings:
        for repeat in range(args.repeats):
            for program in programs(args):
                if setting in program.settings:
                    record = run_once(program, setting, repeat, args.timeout)
                    if record is not None:
                        with args.out.open("a") as out:
                            out.write(json.dumps(record) + "\n")
                        speed = f"{record['steps_per_s']:>12,.0f} steps/s"
                        print(f"{setting:26} {program.name:10} {speed}", flush=True)
    print(table(args.out))


def table(path: Path) -> str:
    """Medians of all records in a file, as Markdown; ratios are jaxrl's to the program's."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [
        "| setting | program | runs | steps/s (min to max) | jaxrl is | compile s | MiB | return |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for setting in dict.fromkeys(r["setting"] for r in records):
        mine = [r["steps_per_s"] for r in records if _is(r, setting, "jaxrl")]
        for program in dict.fromkeys(r["program"] for r in records if r["setting"] == setting):
            chosen = [r for r in records if _is(r, setting, program)]
            lines.append(_row(setting, program, chosen, mine))
    return "\n".join(lines)


def _is(record: dict, setting: str, program: str) -> bool:
    return (record["setting"], record["program"]) == (setting, program)


def _row(setting: str, program: str, records: list[dict], mine: list[float]) -> str:
    speed = [r["steps_per_s"] for r in records]
    middle = statistics.median(speed)
    ratio = f"{statistics.median(mine) / middle:.2f}x" if mine and program != "jaxrl" else ""
    compiles = [r["compile_s"] for r in records if r["compile_s"] is not None]
    compile_s = f"{statistics.median(compiles):.1f}" if compiles else "-"
    memory = statistics.median(r["peak_memory_mb"] for r in records)
    returns = [x for r in records for x in r["final_return"] or []]
    final = f"{statistics.mean(returns):.0f}" if returns else "-"
    spread = f"{middle:,.0f} ({min(speed):,.0f} to {max(speed):,.0f})"
    return (
        f"| {setting} | {program} | {len(records)} | {spread} | {ratio} | {compile_s} | "
        f"{memory:.0f} | {final} |"
    )


if __name__ == "__main__":
    main()

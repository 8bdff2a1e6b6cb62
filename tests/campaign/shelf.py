"""Runs to disturb, the same runs undisturbed, and the bits in which two of them differ."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from campaign.processes import ROOT, Ended, Job, module

TOKENIZERS = ROOT / "benchmarks/results/learning/tokenizers"


@dataclass(frozen=True)
class Recipe:
    """A run of a few seconds with many checkpoints."""

    name: str
    trainer: str
    flags: tuple[str, ...]


def _recipe(name: str, trainer: str, flags: str) -> Recipe:
    return Recipe(name, trainer, tuple(f"{flags} --checkpoint-every 0.2".split()))


# Two seeds on two devices; a run of values; and an agent that a warm start has taught to answer,
# so that its rewards vary and its weights change. SMALL is for the short form.
PPO = _recipe(
    "ppo",
    "ppo",
    "--env CartPole-v1 --num-seeds 2 --devices 2 --num-envs 8 --total-steps 250000 "
    "--algo.num-steps 16 --algo.hidden 8 --algo.normalize-obs --algo.normalize-reward "
    "--eval-episodes 2",
)
PQN = _recipe(
    "pqn",
    "pqn",
    "--env CartPole-v1 --devices 1 --num-envs 8 --total-steps 150000 --algo.num-steps 16 "
    "--algo.hidden 8 --eval-episodes 2",
)
LANGUAGE = _recipe(
    "turn_ppo",
    "turn_ppo",
    "--env language/GuessTheNumber-easy --env-args turns=1 high=4 --model nano --devices 1 "
    "--algo.num-prompts 16 --algo.num-lanes 16 --algo.micro-batch 4 --algo.num-minibatches 2 "
    "--algo.sft-steps 30 --algo.sft-episodes 16 --algo.sft-coef 0.1 --algo.total-episodes 400 "
    f"--algo.response-tokens 12 --eval-episodes 8 --tokenizer {TOKENIZERS}/qwen2.json",
)
SMALL = _recipe(
    "small",
    "ppo",
    "--env SimpleCorridor-v0 --devices 1 --num-envs 4 --total-steps 60000 --algo.num-steps 8 "
    "--algo.hidden 8 --algo.num-epochs 1 --algo.num-minibatches 1 --eval-episodes 2",
)


@dataclass(frozen=True)
class Shelf:
    """A folder for everything that the campaign makes, and the compiled programs of its runs."""

    folder: Path
    cache: Path

    def start(self, recipe: Recipe, run: Path, words: Path, before: Sequence[object] = ()) -> Job:
        """The run from its beginning; the words `before` it start it in another way."""
        argv = module(f"train.{recipe.trainer}", *recipe.flags, "--run-dir", run)
        return Job([*before, *argv], words, self.cache)

    def go_on(self, recipe: Recipe, run: Path, words: Path) -> Job:
        """The run from where it is; from the beginning where it never was one."""
        if not (run / "config.json").exists():
            return self.start(recipe, run, words)
        return Job(module(f"train.{recipe.trainer}", "--resume", run), words, self.cache)

    def reference(self, recipe: Recipe) -> Path:
        """The same run undisturbed; made once, with its programs."""
        run = self.folder / f"reference-{recipe.name}"
        if not (run / "curve.png").exists():
            shutil.rmtree(run, ignore_errors=True)
            ended = self.start(recipe, run, self.words(f"reference-{recipe.name}")).end(900)
            assert ended.code == 0, ended.err
        return run

    def of_case(self, name: str) -> Path:
        """The finished run that a case calls `run` or `lm`."""
        return self.reference({"run": SMALL, "lm": LANGUAGE}[name])

    def words(self, name: str) -> Path:
        """Where a command of this name writes what it says."""
        (self.folder / "words").mkdir(parents=True, exist_ok=True)
        return self.folder / "words" / name

    def judge(self, recipe: Recipe, run: Path, ended: Ended) -> list[str]:
        """What is wrong with a run that should have come to its end, equal to the reference."""
        if ended.hung:
            return ["hang"]
        if ended.code != 0:
            return [f"no end, exit code {ended.code}"]
        return [f"differs: {name}" for name in differing(self.reference(recipe), run)]


def differing(a: Path, b: Path) -> dict[str, int]:
    """name -> bits that differ between two finished runs; what is equal is left out.

    The metrics, every array of the policy and of the last checkpoint, what the summary says of the
    final return, and the transcripts of episodes that both have written down: which ones those are
    depends on how long the iterations took.
    """
    found = {}
    for name in ("metrics.jsonl", "final return", "transcripts", "policy", "checkpoint"):
        try:
            bits = _bits(PARTS[name](a), PARTS[name](b), common=name == "transcripts")
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            print(f"{b}: {error!r}", file=sys.stderr)
            bits = 8
        if bits:
            found[name] = bits
    return found


def _bits(a: dict[Any, bytes], b: dict[Any, bytes], common: bool) -> int:
    names = a.keys() & b.keys() if common else a.keys() | b.keys()
    assert names or common, "nothing to compare"
    return sum(_bits_of(a.get(name, b""), b.get(name, b"")) for name in names)


def _bits_of(a: bytes, b: bytes) -> int:
    size = max(len(a), len(b))
    x, y = (np.frombuffer(z.ljust(size, b"\0"), np.uint8) for z in (a, b))
    return int(np.unpackbits(x ^ y).sum()) + 8 * abs(len(a) - len(b))


def _metrics(run: Path) -> dict[Any, bytes]:
    return {"": (run / "metrics.jsonl").read_bytes()}


def _final(run: Path) -> dict[Any, bytes]:
    summary = json.loads((run / "summary.json").read_text())
    return {"": json.dumps(summary["final_return"]).encode()}


def _transcripts(run: Path) -> dict[Any, bytes]:
    file = run / "transcripts.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    entries = [json.loads(line) for line in lines]
    keys = [(x["iteration"], x["seed"], x["prompt"], x["sample"]) for x in entries]
    if len(set(keys)) < len(keys):
        raise ValueError("an episode is written down twice")
    return {key: line.encode() for key, line in zip(keys, lines, strict=True)}


def _policy(run: Path) -> dict[Any, bytes]:
    with np.load(run / "policy/weights.npz") as file:
        return {name: _with_type(x) for name, x in file.items()}


def _checkpoint(run: Path) -> dict[Any, bytes]:
    folder = run / "checkpoints"
    newest = max((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    import jax

    reader, args = _reader()
    tree = reader.metadata(newest / "default").item_metadata.tree
    how = jax.tree.map(lambda _: args.RestoreArgs(restore_type=np.ndarray), tree)
    arrays = reader.restore(newest / "default", args=args.args.PyTreeRestore(restore_args=how))
    return {name: _with_type(x) for name, x in arrays.items()} | {"": newest.name.encode()}


@cache
def _reader() -> Any:
    import orbax.checkpoint as ocp

    return ocp.PyTreeCheckpointer(), ocp


def _with_type(x: np.ndarray) -> bytes:
    return f"{x.dtype}{x.shape}".encode() + x.tobytes()


PARTS = {
    "metrics.jsonl": _metrics,
    "final return": _final,
    "transcripts": _transcripts,
    "policy": _policy,
    "checkpoint": _checkpoint,
}

"""Teach a language agent which of two responses is better: `python -m train.dpo --data FILE`.

Each line is {"prompt": ..., "chosen": ..., "rejected": ...}. Without a file the pairs are the
agent's own play of `--env`, of which the one with the higher return is chosen.
"""

from dataclasses import dataclass, field

from jaxrl.algos import dpo
from jaxrl.train import language, pair_data
from jaxrl.train.paths import File

PRESETS = {"default": dpo.Config()}


@dataclass(frozen=True)
class Args(language.Options):
    data: File | None = None  # rows of --env dataset; or JSONL of pairs to learn from
    algo: dpo.Config = field(default_factory=dpo.Config)


TRAINER = language.declare("dpo", dpo, PRESETS, Args, pair_data.read)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("dpo")

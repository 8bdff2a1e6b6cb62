"""Teach a language agent by responses that are good or bad: `python -m train.kto --data FILE`.

Each line is {"prompt": ..., "completion": ..., "label": true}. Without a file they are the agent's
own play of `--env`, good where the return is at least `--algo.good-return`.
"""

from dataclasses import dataclass, field

from jaxrl.algos import kto
from jaxrl.train import language, pair_data
from jaxrl.train.paths import File

PRESETS = {"default": kto.Config()}


@dataclass(frozen=True)
class Args(language.Options):
    data: File | None = None  # rows of --env dataset; or JSONL of responses with labels
    algo: kto.Config = field(default_factory=kto.Config)


TRAINER = language.declare("kto", kto, PRESETS, Args, pair_data.read_judged)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("kto")

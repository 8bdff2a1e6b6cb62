"""Seeds x hyperparameters x physics in one compiled program: `python -m train.sweep`.

`--trainer ppo --sweep algo.learning-rate=1e-4,3e-4,1e-3 --sweep env.gravity=8,9.8,12 --num-seeds 8`
trains every configuration of the grid with every seed, or with `--samples 32` so many drawn from
`log:1e-5:1e-2` and `lin:8:12`. All other options are the trainer's (`python -m train.ppo --help`).
At the end sweep.json and sweep.png compare the configurations, and best.json has the options of the
best one: `python -m train.ppo --config RUN/best.json`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxrl.train import command, edge, flags, stop
from jaxrl.train.run_folder import read_config


def run(argv: Sequence[str] | None = None) -> None:
    """The command line: one line and exit code 2 for bad input."""
    if argv is None:
        stop.listen()  # the process is this command
    words = flags.full_names(sys.argv[1:] if argv is None else argv)
    edge.command(lambda: _sweep(words))


def _sweep(argv: Sequence[str]) -> None:
    given = flags.words_by_flag(argv)
    if {"--help", "-h"} & {*argv} and "--trainer" not in given:
        print(__doc__)
        return
    resumed = given.get("--resume")
    if resumed is None and not given.get("--sweep"):
        raise ValueError("sweep= must name numbers; try --sweep algo.learning-rate=1e-4,1e-3.")
    made_by = None if resumed is None else read_config(Path(resumed)).get("trainer")
    trainer = given.get("--trainer") or made_by or "ppo"
    command.train(trainer, flags.without(argv, "--trainer"))


if __name__ == "__main__":
    run()

"""`python -m campaign.door create|reopen FILE TRAINER ...`: a trainer that waits before its folder.

It waits at the door, everything imported and checked, until FILE exists: so several of them enter
in the same millisecond.
"""

import sys
from pathlib import Path

from campaign.races import wait


def main(door: str, gate: str, trainer: str, *flags: str) -> None:
    from train import command
    from train.run_folder import RunFolder

    setattr(RunFolder, door, wait(Path(gate), getattr(RunFolder, door)))
    command.run(trainer, flags)


if __name__ == "__main__":
    main(*sys.argv[1:])

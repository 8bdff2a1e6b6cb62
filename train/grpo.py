"""Train a language agent with GRPO: `python -m train.grpo --env language/GuessTheNumber-easy`."""

import sys
from dataclasses import dataclass, field

from jaxrl.algos import grpo
from train import flags, language, loop


@dataclass(frozen=True)
class Args(language.Options):
    algo: grpo.Config = field(default_factory=grpo.Config)


def make_task(args: Args) -> loop.Task:
    """GRPO on the environment that the options name."""
    return language.make_task(args, grpo, "grpo")


if __name__ == "__main__":
    loop.main(flags.parse(Args, __doc__ or "", {}, sys.argv[1:]), make_task)

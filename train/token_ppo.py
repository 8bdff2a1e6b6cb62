"""PPO of a language agent against a reward model: `python -m train.token_ppo --reward-model RUN`.

RUN is a finished run of `train.reward_model`. What is not given is as that run had it: the game,
and the model that played its pairs, to which the agent stays near by a KL at each token. What the
environment itself pays is logged beside the score, and not learned from.
`python -m train.ppo --reward-model RUN` comes here.
"""

from dataclasses import dataclass, field, replace

from jaxrl.algos import token_ppo
from jaxrl.train import language
from jaxrl.train.judge import Judged, as_judged
from jaxrl.train.trainer import Task

PRESETS = {"default": token_ppo.Config()}


@dataclass(frozen=True)
class Args(Judged, language.Options):
    algo: token_ppo.Config = field(default_factory=token_ppo.Config)


def setup(args: Args) -> Task:
    """The task of PPO against a reward model; ValueError where the options do not fit."""
    if args.reward_model is None:
        raise ValueError(
            "reward_model=None: give the folder of a run of train.reward_model, or learn from the "
            "environment's own rewards with train.turn_ppo."
        )
    return language.make_task("token_ppo", token_ppo, args)


TRAINER = replace(
    language.declare("token_ppo", token_ppo, PRESETS, Args),
    setup=setup,
    complete=lambda args: language.complete(as_judged(args)),
)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("token_ppo")

"""Train a language agent with GRPO: `python -m train.grpo --env language/GuessTheNumber-easy`.

From random weights `--preset from-scratch` answers 0.95 and more of the sums of two two-digit
numbers (0.98 to 1.00 measured) after 2.2 M questions, in six minutes on two cores; docs/language.md
has the whole command. On the id of an environment of arrays `train.grpo_arrays` takes over.
"""

from dataclasses import dataclass, field, replace

from jaxrl.algos import grpo
from jaxrl.train import language
from jaxrl.train.judge import Judged, as_judged

PRESETS = {
    "default": grpo.Config(),
    # random weights and one question an episode: the best of many answers is imitated
    "from-scratch": grpo.Config(
        total_episodes=2_200_000,
        num_prompts=256,
        group_size=16,
        best=1,
        num_minibatches=4,
        num_lanes=512,
        optimizer="muon",
        learning_rate=3e-3,
        lr_schedule="linear",
        entropy_coef=0.02,
        entropy_schedule="linear",
        overlong="penalise",
        sft_steps=40,
    ),
}


@dataclass(frozen=True)
class Args(Judged, language.Options):
    preset: str = "default"  # options to start from: default or from-scratch
    algo: grpo.Config = field(default_factory=grpo.Config)


TRAINER = replace(
    language.declare("grpo", grpo, PRESETS, Args),
    for_arrays="grpo_arrays",
    complete=lambda args: language.complete(as_judged(args)),
)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("grpo")

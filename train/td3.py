"""Train with TD3: `python -m train.td3` reaches -180 on Pendulum-v1 in 20,000 steps.

`--preset ddpg` is DDPG: one critic, no delay of the actor, no noise in the targets. Sizes as in
train.sac.
"""

from dataclasses import dataclass, field

from jaxrl.algos import td3
from jaxrl.train import arrays
from jaxrl.train.trainer import Task, Trainer

PRESETS = {
    "default": td3.Config(),
    "ddpg": td3.Config(policy_delay=1, num_critics=1, target_noise=0.0),
}


@dataclass(frozen=True)
class Args(arrays.Options):
    env: str = "Pendulum-v1"  # environment id, or my_module:Id; `python -m envs` lists them
    preset: str = "default"  # options to start from: default or ddpg
    algo: td3.Config = field(default_factory=td3.Config)


def setup(args: Args) -> Task:
    """TD3 on the environment that the options name; ValueError where they do not fit."""
    return arrays.make_task("td3", td3, args)


TRAINER = Trainer("td3", td3, PRESETS, Args, setup, arrays.reload)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("td3")

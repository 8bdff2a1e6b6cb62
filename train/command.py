"""From a command line to a run of any trainer of the table."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrl import envs
from jaxrl.train import edge, flags, loop, paths, stop, table
from jaxrl.train.compiled import keep_compiled_programs
from jaxrl.train.devices import check_platforms, join, offer_cores
from jaxrl.train.resume import refuse_changes
from jaxrl.train.run_folder import read_config
from jaxrl.train.trainer import Trainer


def run(trainer: str | Trainer, argv: Sequence[str] | None = None) -> None:
    """Run a trainer of the table, or one's own: one line and exit code 2 for bad input."""
    if argv is None:
        stop.listen()  # the process is this command
    argv = flags.full_names(sys.argv[1:] if argv is None else argv)
    edge.command(lambda: train(trainer, argv))


def train(trainer: str | Trainer, argv: Sequence[str]) -> None:
    """The same, with whatever goes wrong raised."""
    offer_cores()  # before a module of the user's touches a device
    trainer = choose(trainer, argv)
    args = flags.parse(trainer, argv)
    if args.resume is None:
        args = trainer.complete(args)
    else:
        before = flags.saved_options(trainer, args.resume)
        refuse_changes(read_config(args.resume), before, args)
    join(args.hosts)
    if stop.is_command():
        stop.listen()  # jax.distributed takes SIGTERM for itself
    check_platforms()
    keep_compiled_programs()
    loop.train(args, trainer.setup(args))


def choose(trainer: str | Trainer, argv: Sequence[str]) -> Trainer:
    """The trainer of a name, or the one that it leaves this kind of environment to.

    Raises ValueError for a run that another trainer made.
    """
    trainer = table.trainer(trainer) if isinstance(trainer, str) else trainer
    name = trainer.name
    paths.check(trainer.options, flags.words_by_flag(argv))
    resumed, config = flags.flag_value(argv, "--resume"), flags.flag_value(argv, "--config")
    env_id = flags.flag_value(argv, "--env")
    if resumed is not None or config is not None:
        made_by, options = _made_by(resumed, config)
        others = (trainer.for_language, trainer.for_arrays, trainer.for_reward_model)
        if made_by not in (None, name, *others):
            option = f"config={config}" if resumed is None else f"resume={resumed}"
            flag = option.replace("=", " ", 1)
            raise ValueError(
                f"{option} was made by train.{made_by}; try python -m train.{made_by} --{flag}."
            )
        if made_by is not None:
            return trainer if made_by == name else table.trainer(made_by)
        env_id = env_id or options.get("env")
    if trainer.for_reward_model and flags.flag_value(argv, "--reward-model") is not None:
        edge.say(f"a reward model judges: train.{trainer.for_reward_model} takes over")
        return table.trainer(trainer.for_reward_model)
    if env_id is None or (trainer.for_language, trainer.for_arrays) == (None, None):
        return trainer
    spoken = envs.spec(env_id).is_language
    other = trainer.for_language if spoken else trainer.for_arrays
    if other is None:
        return trainer
    kind = "a language environment" if spoken else "an environment of arrays"
    edge.say(f"{env_id} is {kind}: train.{other} takes over")
    return table.trainer(other)


def _made_by(resumed: str | None, config: str | None) -> tuple[str | None, dict[str, Any]]:
    """(trainer, options) of the run that goes on, or of a file; None where it does not say."""
    if resumed is None:
        return flags.read_options(Path(str(config)))
    run = read_config(Path(resumed))
    return run.get("trainer"), run["options"]

"""The three stages of RLHF on a game, without a data file: `python -m train.rlhf --env ID`.

`sft/` imitates the game's expert; `reward_model/` learns from pairs that this model plays, of which
a noisy judge prefers the one that the game pays more; `ppo/` learns from the reward model's scores,
with a KL to the first model. At the end rlhf.json and rlhf.png show the score beside the true
return against the KL, of PPO and of the best of n samples: where the one rises and the other falls,
the reward model is over-optimised. `--resume DIR` goes on where a run was stopped, stage by stage.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jaxrl import files
from jaxrl.algos.reward_model import Config as RewardConfig
from jaxrl.algos.sft import Config as SftConfig
from jaxrl.algos.token_ppo import Config as PpoConfig
from jaxrl.config import check_fields, check_range
from jaxrl.files import read_json, write_json
from jaxrl.train import command, edge, evaluate, flags, language, loop, stop, table
from jaxrl.train.compiled import keep_compiled_programs
from jaxrl.train.devices import check_platforms, offer_cores
from jaxrl.train.paths import Folder, NewFolder
from jaxrl.train.plot import moving_mean, plot_rlhf
from jaxrl.train.run_folder import RunFolder, read_config, read_metrics

STAGES = ("sft", "reward_model", "ppo")
RESULT, PICTURE = "rlhf.json", "rlhf.png"


@dataclass(frozen=True)
class Args(language.Spoken):
    env: str = "reasoning/chain_sum"  # the game; `python -m envs` lists them
    env_args: tuple[str, ...] = ()  # its fields, as NAME=VALUE
    seed: int = 0  # the root of every random number
    run_dir: NewFolder | None = None  # by default runs/ENV-rlhf-DATE
    resume: Folder | None = None  # go on with this folder, with its own options
    devices: int = 0  # how many to use; 0: as many as serve a stage
    eval_episodes: int = 1024  # fresh episodes at the end of a stage
    samples: int = 64  # of each prompt, of which the best are taken
    prompts: int = 256  # different prompts of which so many are sampled
    sft: SftConfig = field(default_factory=SftConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)

    def __post_init__(self):
        check_fields(self)
        self.check_spoken()
        check_range("samples", self.samples, 2, 2**16, 64)
        check_range("prompts", self.prompts, 1, 2**20, 256)


def stage(name: str, args: Args, path: Path) -> Any:
    """The options of a stage of the run in this folder."""
    start: dict[str, Any] = {f.name: getattr(args, f.name) for f in fields(language.Spoken)}
    if name == "reward_model":  # a run has its own conversation
        start = {"init_from": path / "sft", "data": args.data}
    if name == "ppo":
        start = {"reward_model": path / "reward_model"}  # and the rest as that was
    algo = {"sft": args.sft, "reward_model": args.reward, "ppo": args.ppo}[name]
    names = ("env", "env_args", "seed", "devices", "eval_episodes")
    start |= {name: getattr(args, name) for name in names}
    trainer = trainer_of(name)
    return trainer.complete(trainer.options(**start, run_dir=path / name, algo=algo))


def trainer_of(name: str) -> Any:
    return table.trainer("token_ppo" if name == "ppo" else name)


def run_stage(name: str, args: Args, path: Path) -> None:
    """A stage from where it stands: not at all, or not to its end; one that is done stays."""
    folder = path / name
    if (folder / "summary.json").is_file():
        return
    print(f"\n{name}: {folder}", flush=True)
    if (folder / "config.json").is_file():
        return command.train(trainer_of(name).name, ["--resume", str(folder)])
    options = stage(name, args, path)
    loop.train(options, trainer_of(name).setup(options))


def train(args: Args) -> dict[str, Any]:
    """All stages, and what is to be seen of them; returns what rlhf.json holds."""
    if args.resume is None:
        first = stage("sft", args, Path("runs"))
        trainer_of("sft").setup(first)  # what cannot be is refused before a folder is there
        date = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        name = f"{args.env.replace('/', '-').replace(':', '-')}-rlhf-{date}"
        path, numbered = args.run_dir or Path("runs") / name, args.run_dir is None
        folder = RunFolder.create(path, args, numbered=numbered, writes=True, trainer="rlhf")
    else:
        folder = RunFolder.reopen(args.resume, writes=True, trainer="rlhf")
    path = folder.path
    try:
        for name in STAGES:
            stop.leave_with(lambda: f"stopped; go on with --resume {path}")
            try:
                run_stage(name, args, path)
            except stop.Interrupted as stopped:
                raise stop.Interrupted(stopped.exit_code - 128, path) from None
        result = seen(args, path)
        write_json(path / RESULT, result)
        plot_rlhf(result, path / PICTURE)
    finally:
        folder.close()
    report(result, path)
    return result


def seen(args: Args, path: Path) -> dict[str, Any]:
    """The score and the true return: at the start, along PPO's KL, and of the best of n."""
    lines = [x for x in read_metrics(path / "ppo") if x.get("episode_kl") is not None]
    names = {"iteration": "iteration", "kl": "episode_kl", "score": "score"}
    names["return"] = "episode_return"
    curve = {name: [x[of] for x in lines] for name, of in names.items()}
    options = flags.saved_options(trainer_of("sft"), path / "sft")
    how: Any = {"samples": args.samples, "episodes": args.prompts}
    asked = evaluate.Args(run=path / "sft", reward_model=path / "reward_model", **how)
    best = evaluate.play(asked, evaluate.of_run(asked, options))["best_of"]
    of_stage = {name: read_json(path / name / "summary.json") for name in STAGES}
    return {
        "env": args.env,
        "accuracy": of_stage["reward_model"]["final_return"]["mean"],
        "kl_coef": args.ppo.kl_coef,
        "start": {name: best["1"][name] for name in ("score", "return")},
        "end": {
            "score": of_stage["ppo"]["final_return"]["metrics"]["score"]["mean"],
            "return": of_stage["ppo"]["final_return"]["mean"],
        },
        "peak": peak(curve),
        "ppo": curve,
        "best_of": best,
    }


def peak(curve: dict[str, list[float]]) -> dict[str, float]:
    """Where the true return is highest."""
    parts = {name: moving_mean(x) for name, x in curve.items()}
    top = int(parts["return"].argmax())
    return {name: float(x[top]) for name, x in parts.items()}


def report(result: dict[str, Any], path: Path) -> None:
    """For a person."""
    start, top, end, best = (result[name] for name in ("start", "peak", "end", "best_of"))
    print(f"\nreward model: accuracy {result['accuracy']:.3f}")
    rows = {"at the start": start, "highest return": top, "at the end": end}
    rows |= {f"best of {k}": row for k, row in best.items() if k != "1"}
    for name, row in rows.items():
        kl = f", KL {row['kl']:.2f}" if "kl" in row else ""
        print(f"{name:15} score {row['score']:6.2f}, true return {row['return']:.3f}{kl}")
    print(f"score beside true return: {path / PICTURE}; all of it: {path / RESULT}")


def read(argv: Sequence[str]) -> Args:
    """The options: of flags, or of the folder that goes on."""
    args = flags.cli(Args, __doc__ or "", argv)
    if args.resume is None:
        return args
    given = [word for word in flags.words_by_flag(argv) if word != "--resume"]
    if given:
        raise ValueError(f"resume={args.resume} has its own options; leave {given[0]} out.")
    config, file = read_config(args.resume), args.resume / "config.json"
    if config.get("trainer") != "rlhf":
        raise ValueError(
            f"resume={args.resume} was made by train.{config.get('trainer')}; give the folder of a "
            "run of train.rlhf."
        )
    with files.reading(file, "start a new run with --run-dir"):
        found = files.as_type(Args, config["options"], f"{file}: options")
    return dataclasses.replace(found, resume=args.resume)


def main(argv: Sequence[str]) -> None:
    """The command, with whatever goes wrong raised."""
    offer_cores()
    args = read(argv)
    check_platforms()
    keep_compiled_programs()
    train(args)


def run(argv: Sequence[str] | None = None) -> None:
    """The command line: one line and exit code 2 for bad input."""
    if argv is None:
        stop.listen()  # the process is this command
    words = flags.full_names(sys.argv[1:] if argv is None else argv)
    edge.command(lambda: main(words))


if __name__ == "__main__":
    run()

"""The options that every trainer has."""

from dataclasses import dataclass, field
from pathlib import Path

from jaxrl.checkpoint import numbered
from jaxrl.config import Count, check_fields, check_positive, check_range
from jaxrl.train import swept
from jaxrl.train.devices import Distributed
from jaxrl.train.paths import File, Folder, NewFolder

MOST_SEEDS = 2**16


@dataclass(frozen=True)
class Options:
    """The flags that every trainer has."""

    env: str = "CartPole-v1"  # environment id, or my_module:Id; `python -m envs` lists them
    env_args: tuple[str, ...] = ()  # fields of the environment, as NAME=VALUE
    seed: Count = 0  # the root of every random number; seeds seed .. seed+num_seeds-1 are trained
    num_seeds: int = 1  # independent runs in the same program
    run_dir: NewFolder | None = None  # folder of this run; default runs/ENV-ALGO-DATE
    config: File | None = None  # options to start from: best.json or config.json of a run, or yours
    sweep: tuple[str, ...] = ()  # numbers to try, as algo.NAME=1,2,3 or env.NAME=log:1:100
    samples: int = 0  # configurations drawn from these; 0: every one of the grid
    resume: Folder | None = None  # go on with this run's folder, with its own options
    init_from: Folder | None = None  # start with the weights of another run's first seed
    devices: int = 0  # how many to use; 0: as many as serve the run
    log_every: int = 0  # iterations averaged into one logged line; 0: at most 1,000 lines
    checkpoint_every: float = 60.0  # s between checkpoints
    eval_episodes: int = 128  # fresh episodes of each seed for the final return
    eval_every: int = 0  # iterations between evaluations while it trains, the best kept; 0: none
    profile: bool = False  # trace the second chunk into profile/, print where its time went
    wandb: bool = False  # log to Weights & Biases too
    hosts: Distributed = field(default_factory=Distributed)

    def __post_init__(self):
        check_fields(self)
        check_range("num_seeds", self.num_seeds, 1, MOST_SEEDS, 1)
        for name, least in (("seed", 0), ("devices", 0), ("log_every", 0), ("eval_every", 0)):
            if getattr(self, name) < least:
                value = getattr(self, name)
                raise ValueError(f"{name}={value} must be at least {least}; try {least}.")
        if self.seed + self.num_seeds > 2**32:
            raise ValueError(f"seed={self.seed} plus num_seeds must be at most 2^32; try 0.")
        check_positive("checkpoint_every", self.checkpoint_every, 60)
        swept.check(self.sweep, self.samples)
        if self.num_members > MOST_SEEDS:
            raise ValueError(
                f"sweep={' '.join(self.sweep)} has {self.num_members} configurations times seeds; "
                f"there can be {MOST_SEEDS}: try fewer values, or --samples 32."
            )
        if self.eval_episodes < 1:
            raise ValueError(f"eval_episodes={self.eval_episodes} must be at least 1; try 128.")

    @property
    def num_members(self) -> int:
        """Runs in the program: configurations times seeds."""
        return swept.count(self.sweep, self.samples) * self.num_seeds

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.resume is not None and bool(numbered(self.resume / "checkpoints"))

    def files(self) -> dict[str, Path]:
        """option -> the file or folder whose content the run depends on from here on."""
        found = {}
        for pair in self.env_args:
            name, _, text = pair.partition("=")
            if name == "opponent" and Path(text).is_dir():
                found[name] = Path(text)
        if self.init_from is not None and not self.begun:
            found["init_from"] = self.init_from
        return found

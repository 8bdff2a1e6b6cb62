"""What run folders hold, as groups that can be compared: runs that differ in the seed alone."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl import files
from jaxrl.printable import printable
from jaxrl.train import flags, swept
from jaxrl.train.run_folder import METRICS, read_config, read_metrics

# options that do not change what is learned; a preset is told by what it sets
ASIDE = (*swept.OF_SWEEP, "seed", "num_seeds", "preset", "env", "env_args")
ASIDE += ("log_every", "checkpoint_every", "eval_episodes")
UNITS = ("steps", "episodes")

Options = dict[str, Any]  # `algo.learning_rate` -> its value, of one configuration


@dataclass(frozen=True)
class Told(files.Foreign):
    """What is read of the options in config.json."""

    env: str
    env_args: tuple[str, ...] = ()
    seed: int = 0
    num_seeds: int = 1
    sweep: tuple[str, ...] = ()
    samples: int = 0


@dataclass(frozen=True)
class Final(files.Foreign):
    """The final return of summary.json."""

    per_seed: list[float | None]
    ci95: list[float | None] = field(default_factory=lambda: [None, None])
    ci95_over: str = "seeds"


@dataclass(frozen=True)
class Summary(files.Foreign):
    """What is read of summary.json."""

    final_return: Final
    run_s: float | None = None
    compile_s: float | None = None
    steps_per_s: float | None = None
    episodes_per_s: float | None = None
    env_steps: int | None = None
    env_episodes: int | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """One run's folder."""

    path: Path
    config: dict[str, Any]
    told: Told
    unit: str  # of UNITS
    lines: list[dict[str, Any]]  # of its metrics, oldest first
    members: int
    summary: Summary | None  # None of a run that did not reach its end

    @property
    def steps(self) -> int:
        """The last line's."""
        return self.lines[-1][f"env_{self.unit}"]

    def metric(self, name: str, index: int) -> np.ndarray:
        """[lines] of one member, NaN where it is unknown."""
        return np.array([_number(line.get(name), index) for line in self.lines])


@dataclass(frozen=True)
class Member:
    """One seed of one configuration of a run."""

    run: Run
    index: int
    seed: int

    @property
    def score(self) -> float:
        """The final return, NaN of a run without an end and of one that diverged."""
        if self.run.summary is None:
            return math.nan
        score = self.run.summary.final_return.per_seed[self.index]
        return math.nan if score is None else score


@dataclass
class Group:
    """Runs that differ in the seed alone."""

    trainer: str
    options: Options
    members: list[Member] = field(default_factory=list)
    label: str = ""

    @property
    def scores(self) -> np.ndarray:
        """The final returns that are known [N]."""
        scores = np.array([member.score for member in self.members])
        return scores[np.isfinite(scores)]

    @property
    def runs(self) -> list[Run]:
        return list({id(member.run): member.run for member in self.members}.values())


@dataclass
class Section:
    """What was trained in one environment: one page's part."""

    env: str
    unit: str
    groups: list[Group]

    @property
    def runs(self) -> list[Run]:
        return list({id(run): run for group in self.groups for run in group.runs}.values())

    def differing(self) -> list[str]:
        """The options that are not the same in all groups."""
        names = sorted({name for group in self.groups for name in group.options})
        return [n for n in names if len({_key(g.options.get(n, ABSENT)) for g in self.groups}) > 1]


ABSENT = "-"  # of an option that a trainer, or an older version, does not have


def read_run(path: Path) -> Run:
    """A run's folder; ValueError, in one line, where it is none or has nothing to show."""
    if not path.is_dir():
        raise ValueError(f"run={path} is no folder; give the folder of a run.")
    if not (path / "config.json").exists() and any(path.glob("*/config.json")):
        raise ValueError(f"run={path} holds runs and is none; try {path}/*.")
    config = read_config(path)
    told = files.as_type(Told, config["options"], f"{path / 'config.json'}: options")
    lines = read_metrics(path)
    unit = next((u for u in UNITS if lines and f"env_{u}" in lines[0]), "")
    lines = [line for line in lines if type(line.get(f"env_{unit}")) is int]
    if not lines:
        raise ValueError(
            f"run={path} has no metrics: {METRICS} holds no line of a run yet; leave it out."
        )
    members = _members_of(lines)
    with files.reading(path / "config.json"):
        count = swept.count(told.sweep, told.samples) * told.num_seeds
    if members != count:
        raise ValueError(f"{path / METRICS} is of {members} members, its config.json of {count}.")
    return Run(path, config, told, unit, lines, members, _summary(path, lines[-1], unit, members))


def _members_of(lines: Sequence[dict[str, Any]]) -> int:
    sizes = Counter(len(x) if type(x) is list else 1 for line in lines for x in line.values())
    del sizes[1]  # iteration and steps are of all
    return max(sizes, default=1)


def _summary(path: Path, last: dict[str, Any], unit: str, members: int) -> Summary | None:
    """summary.json; None where there is none, or it is of a run that went on since."""
    file = path / "summary.json"
    if not file.exists():
        return None
    found = files.read_json(file, Summary)
    if len(found.final_return.per_seed) != members or len(found.final_return.ci95) != 2:
        raise ValueError(f"{file}: final_return is not of the {members} members of config.json.")
    until = getattr(found, f"env_{unit}")
    return None if until is not None and until < last[f"env_{unit}"] else found


def _number(value: Any, index: int) -> float:
    """One member's part of what a line says, NaN for what is no number."""
    if type(value) is list:
        value = value[index] if index < len(value) else None
    return float(value) if type(value) in (int, float) else math.nan


def gather(paths: Sequence[Path]) -> tuple[list[Section], list[str]]:
    """(the sections of these runs, what a reader must know of them); ValueError for a bad one."""
    runs, notes = [], []
    seen: dict[str, Path] = {}
    for path in paths:
        run = read_run(path)
        name = str(run.config.get("id") or path.resolve())
        if name in seen:
            raise ValueError(f"run={path} is the same run as {seen[name]}; give it once.")
        seen[name] = path
        runs.append(run)
    sections: dict[tuple[str, str], Section] = {}
    groups: dict[Any, Group] = {}
    # of two runs of one seed the newer one counts
    for run in sorted(runs, key=lambda run: str(run.config.get("started")), reverse=True):
        where = run.told.env, run.unit
        section = sections.setdefault(where, Section(*where, groups=[]))
        for options, member in _members(run):
            trainer = str(run.config.get("trainer"))
            key = where, trainer, _key(options)
            if key not in groups:
                groups[key] = Group(trainer, options)
                section.groups.append(groups[key])
            twice = [x for x in groups[key].members if x.seed == member.seed]
            if twice:
                notes.append(
                    f"Seed {member.seed} of {run.path} is in {twice[0].run.path} too, with the "
                    "same options: the newer one counts."
                )
            else:
                groups[key].members.append(member)
    for section in sections.values():
        _finish(section)
    return sorted(sections.values(), key=lambda section: section.env), notes


def _members(run: Run) -> Iterator[tuple[Options, Member]]:
    """Every member with its options, those of a sweep put in."""
    base = _flat({k: x for k, x in run.config["options"].items() if k not in ASIDE})
    with files.reading(run.path / "config.json"):
        base |= {f"env.{k}": x for k, x in flags.parse_fields(run.told.env_args).items()}
        configurations = swept.configurations(run.told)
    for i, values in enumerate(configurations):
        for j in range(run.told.num_seeds):
            yield base | values, Member(run, i * run.told.num_seeds + j, run.told.seed + j)


def _flat(options: dict[str, Any], prefix: str = "") -> Options:
    found: Options = {}
    for name, value in options.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _key(value: Any) -> Any:
    """The same for equal options, and hashable; a whole number is that number, as in a sweep."""
    if isinstance(value, dict):
        return tuple(sorted((name, _key(x)) for name, x in value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    return repr(float(value)) if type(value) in (int, float) else repr(value)


def _finish(section: Section) -> None:
    """Seeds in order, the best group first, and names that tell groups apart."""
    for group in section.groups:
        group.members.sort(key=lambda member: member.seed)
    section.groups.sort(key=lambda group: -_middle(group))
    trainers = {group.trainer for group in section.groups}
    for group in section.groups:
        same = [other for other in section.groups if other.trainer == group.trainer]
        names = Section("", "", same).differing()
        words = [f"{n.rpartition('.')[2]}={shown(group.options.get(n, ABSENT))}" for n in names]
        lead = [group.trainer] if len(trainers) > 1 or not words else []
        group.label = printable(" ".join(lead + words))


def _middle(group: Group) -> float:
    return float(swept.iqm(group.scores)) if len(group.scores) else -math.inf


def shown(value: Any) -> str:
    """An option's value for a person."""
    if isinstance(value, list | tuple):
        return " ".join(map(shown, value)) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)

"""What a trainer declares, and what it hands to the host loop."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jaxrl.memory import Part
from jaxrl.program import Member


@dataclass(frozen=True)
class Chunk:
    """What a callback hears, while the next chunk is running."""

    iteration: int  # the last one of the chunk
    played: int  # by each member until then: environment steps, or episodes
    metrics: dict[str, np.ndarray]  # means over the chunk [K], NaN where a member's is unknown


@dataclass(frozen=True)
class Outcome:
    """What becomes of what a run trained; `trained` has leaves [K, ...], `members` leaves [K]."""

    trained: Callable[[Any], Any]  # state -> what is saved and evaluated
    save: Callable[[Path, Any], None]  # (run folder, trained): write it into policy/
    evaluate: Callable[[Any, Member, int], dict]  # (trained, members, episodes) -> summary
    how_to_play: str = ""  # told at the end; {} is the run folder
    parts: Callable[[int], Sequence[Part]] = lambda episodes: ()  # memory that evaluating takes


@dataclass(frozen=True)
class Task:
    """One program to run, and what becomes of it."""

    name: str  # of the trainer
    init: Callable  # (key, member, *, axis) -> state
    update: Callable  # (state, key, member, *, axis) -> (state, metrics)
    layout: Any  # of the state on the mesh: PartitionSpecs, or a function of devices a member
    cfg: Any  # numbers of every member
    env: Any  # the same
    num_iterations: int
    steps_per_iteration: int  # what one member plays in an iteration, in `unit`
    outcome: Outcome
    unit: str = "steps"  # environment steps, or episodes
    warm_up: int = 0  # iterations at the start that play nothing
    num_blocks: int = 1  # equal parts of a member's work, of which every device takes as many
    minibatch_rows: int = 1  # rows, or tokens, of a minibatch: is it worth several devices?
    weights: int = 0  # bytes of a member's network, where it may be too large for a CPU's cache
    one_by_one: bool = False  # several members of a device in turn, not side by side
    start: Callable[[Any], Any] | None = None  # fresh state -> the same with given weights
    shown: Callable[[Any], Any] | None = None  # what a state keeps of its last episodes
    transcribe: Callable[..., list[dict]] | None = None  # (that, iteration, steps, seed) -> lines
    refuse: Callable[[dict], str | None] | None = None  # means of a chunk -> why not to go on
    look: Callable | None = None  # (states, members, *, axis) -> (states, metrics), of K members
    parts: Sequence[Part] = ()  # memory that a member takes
    host: Any = None  # environments that Python steps: what plays them (train/host.py)

    def steps(self, iteration: int) -> int:
        """What a member has played after this many iterations, in `unit`."""
        return max(iteration - self.warm_up, 0) * self.steps_per_iteration


@dataclass(frozen=True)
class Trainer:
    """One way to train: an algorithm, its presets, its options and how a task is made of them."""

    name: str  # `python -m train.NAME`
    algorithm: ModuleType
    presets: Mapping[str, Any]  # name -> the algorithm's Config
    options: type[Any]  # the dataclass of its command line
    setup: Callable[[Any], Task]  # ValueError where options do not fit
    reload: Callable[[Path, Any], tuple[Any, Outcome]]  # (run folder, its options) -> (trained, ..)
    complete: Callable[[Any], Any] = lambda args: (
        args
    )  # options that follow from others, at a start
    for_language: str | None = None  # the trainer that takes over on a language environment
    for_arrays: str | None = None  # the one that takes over on an environment of arrays
    for_reward_model: str | None = None  # the one that takes over where a reward model judges
    intro: str = ""  # said by --help before what its module promises

    @property
    def description(self) -> str:
        """For `--help`: what its module promises."""
        promise = sys.modules[self.options.__module__].__doc__ or ""
        return f"{self.intro}\n{promise}".strip()

"""Options for a user's Python that language agents meet, and runs that it has a word in."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from jaxrl.config import check_positive, check_range
from jaxrl.envs.dataset.environment import DataSet
from jaxrl.files import parse_json
from jaxrl.lm.host.player import Host
from jaxrl.lm.host.program import HostProgram
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.train import edge
from jaxrl.train.devices import num_cores

ANSWERS = "answers.jsonl"  # of a run's folder


@dataclass(frozen=True)
class Hosted:
    """What of an agent's world is Python."""

    reward: tuple[str, ...] = ()  # module:function, as TRL calls them, in place of the env's reward
    reward_weights: tuple[float, ...] = ()  # of these functions; by default 1 each
    deadline: float = 60.0  # s that a call may take; the episodes of a later one are masked
    workers: int = 0  # processes in which a user's Python answers; 0: as many as cores

    def check_hosted(self) -> None:
        """ValueError for options that do not fit together."""
        for name in self.reward:
            check_path("reward", name)
        if len({*self.reward}) < len(self.reward):
            raise ValueError(f"reward={' '.join(self.reward)} has one twice; give it once.")
        if self.reward_weights and len(self.reward_weights) != len(self.reward):
            raise ValueError(
                f"reward_weights={' '.join(map(str, self.reward_weights))} must be as many as there"
                f" are functions in --reward, {len(self.reward)}; leave it out for 1 each."
            )
        check_positive("deadline", self.deadline, 60.0)
        check_range("workers", self.workers, 0, 1024, 0)

    @property
    def is_hosted(self) -> bool:
        """Whether Python has a word in how it plays."""
        return bool(self.reward)


def check_path(option: str, name: str) -> None:
    """ValueError unless it is module:attribute, the module as Python imports it."""
    module, _, attribute = name.partition(":")
    if not (attribute.isidentifier() and all(x.isidentifier() for x in module.split("."))):
        raise ValueError(f"{option}={name} must be module:function; try my_rewards:exact.")


def with_host(args: Hosted, agent: Agent, group_size: int) -> Agent:
    """The agent with its host, where the options name one; its functions have been imported.

    Raises ValueError, with the error, for one that cannot be.
    """
    if not args.is_hosted:
        return agent
    host = Host(
        agent.env,
        args.reward,
        args.reward_weights or (1.0,) * len(args.reward),
        rows_of(agent.env),
        Transcriber(agent.chat.tokenizer, group_size),
        workers=args.workers or num_cores(),
        deadline=args.deadline,
        say=edge.say,
    )
    return replace(agent, host=host)


def rows_of(env: Any) -> Callable[[Any], tuple[Any, dict[str, Any]]]:
    """(prompt, other fields) of the row that an environment's state names.

    The prompt is None where it is what the environment says; without rows there are no fields.
    """
    if not isinstance(env, DataSet):
        return lambda state: (None, {})
    lines = Path(env.data).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    numbers = np.asarray(env.rows.line)

    def row(state: Any) -> tuple[Any, dict[str, Any]]:
        number = int(numbers[int(state)])
        return None, dict(parse_json(lines[number - 1].decode(), f"{env.data}, line {number}"))

    return row


@dataclass(frozen=True)
class HostRun:
    """How a task runs in which the host has a word."""

    algorithm: ModuleType
    agent: Agent
    count: int  # members

    def program(self, task: Any, mesh: Any) -> HostProgram:
        """Its program on the mesh's one device."""
        assert mesh.devices.size == 1
        how = (task.init, self.algorithm.update, task.cfg, self.agent)
        return HostProgram(*how, self.count)

    def open(self, folder: Path, iteration: int) -> None:
        """Go on with what the host has answered in this run from an iteration on."""
        answers = self.agent.host.answers
        answers.open(folder / ANSWERS)
        answers.before(iteration)

    def close(self) -> None:
        self.agent.host.close()


def host_run(args: Any, algorithm: ModuleType, agent: Agent) -> HostRun | None:
    """None where all is compiled; ValueError for a run that cannot be with a host."""
    if agent.host is None:
        return None
    if not hasattr(algorithm, "prepare"):
        raise ValueError(
            f"reward={' '.join(args.reward)} is for agents that learn from their own episodes; try "
            "train.grpo."
        )
    if args.devices > 1 or jax.process_count() > 1:
        raise ValueError(
            f"devices={args.devices} cannot be: a run with Python on the host has one device; try "
            "--devices 1."
        )
    return HostRun(algorithm, agent, args.num_members)

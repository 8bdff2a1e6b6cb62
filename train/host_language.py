"""Options for a user's Python that language agents meet, and runs that it has a word in."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from jaxrl import envs
from jaxrl.config import check_positive, check_range
from jaxrl.envs.dataset.environment import DataSet, Prompts
from jaxrl.envs.host_world import host_world
from jaxrl.envs.outside import unwrapped
from jaxrl.files import parse_json
from jaxrl.host_world import HostWorld
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.folders import ChatTokenizer
from jaxrl.lm.host.player import Host, check
from jaxrl.lm.host.pool import START_SECONDS, Worker
from jaxrl.lm.host.program import HostProgram
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.text.tool_forms import dumped
from jaxrl.train import edge
from jaxrl.train.devices import num_cores

ANSWERS = "answers.jsonl"  # of a run's folder


@dataclass(frozen=True)
class Hosted:
    """What of an agent's world is Python."""

    reward: tuple[str, ...] = ()  # module:function, as TRL calls them, in place of the env's reward
    reward_weights: tuple[float, ...] = ()  # of these functions; by default 1 each
    tools: tuple[str, ...] = ()  # module:function of typed functions that the agent may call
    max_turns: int = 8  # responses of an episode, with tools or in a world of Python's
    answer_bytes: int = 512  # of what these say at once; the rest is cut
    deadline: float = 60.0  # s that a call may take; the episodes of a later one are masked
    workers: int = 0  # processes in which a user's Python answers; 0: as many as cores

    def check_hosted(self) -> None:
        """ValueError for options that do not fit together."""
        for option in ("reward", "tools"):
            for name in getattr(self, option):
                check_path(option, name)
        if len({*self.reward}) < len(self.reward):
            raise ValueError(f"reward={' '.join(self.reward)} has one twice; give it once.")
        if self.reward_weights and len(self.reward_weights) != len(self.reward):
            raise ValueError(
                f"reward_weights={' '.join(map(str, self.reward_weights))} must be as many as there"
                f" are functions in --reward, {len(self.reward)}; leave it out for 1 each."
            )
        check_positive("deadline", self.deadline, 60.0)
        check_range("workers", self.workers, 0, 1024, 0)
        check_range("max_turns", self.max_turns, 1, 1024, 8)
        check_range("answer_bytes", self.answer_bytes, 8, 2**20, 512)


def check_path(option: str, name: str) -> None:
    """ValueError unless it is module:attribute, the module as Python imports it."""
    module, _, attribute = name.partition(":")
    if not (attribute.isidentifier() and all(x.isidentifier() for x in module.split("."))):
        raise ValueError(f"{option}={name} must be module:function; try my_rewards:exact.")


def is_hosted(args: Any) -> bool:
    """Whether Python has a word in how an agent plays."""
    return bool(args.reward or args.tools) or unwrapped(envs.spec(args.env).constructor) is (
        host_world
    )


def introduced(
    args: Any, env: LanguageEnvironment, spoken: ChatTokenizer
) -> tuple[LanguageEnvironment, ChatTokenizer]:
    """The environment with its tools, and the conversation in which they are described.

    ValueError for a tool that cannot be described, a form without tools, and for rows that nobody
    judges.
    """
    tools = getattr(args, "tools", ())
    if tools and not isinstance(env, HostWorld):
        if env.max_turns > 1:
            raise ValueError(
                f"tools={tools[0]} are for questions; env={args.env} has turns itself."
            )
        env = HostWorld(begins=env, tools=tools)
    begins = env.begins if isinstance(env, HostWorld) else env
    if isinstance(begins, Prompts):
        if not args.reward and not (isinstance(env, HostWorld) and env.world):
            raise ValueError(
                f"data={begins.data} has prompts without answers; give --reward module:function."
            )
        if begins.system:
            spoken = spoken.after(begins.system, spoken.tools)
    if not isinstance(env, HostWorld):
        return env, spoken
    sizes = {"turns": args.max_turns, "answer_bytes": args.answer_bytes}
    env = env.replace(tools=tools, **sizes)
    tools = tuple(map(dumped, described(env)))
    if tools and spoken.tools != tools:
        spoken = spoken.after(getattr(begins, "system", "") or args.system or None, tools)
    return env.replace(tool_form=spoken.chat.words.tools if tools else ""), spoken


def described(env: HostWorld) -> list[dict[str, Any]]:
    """JSON schemas of the tools; ValueError, with the error, where one has none."""
    worker = Worker(START_SECONDS, [])
    try:
        reply = worker.call(("schemas", env.tools, env.world, dict(env.fields)))
    finally:
        worker.end()
    return check(reply, f"env={env.world}" if env.world else f"tools={' '.join(env.tools)}")


def with_host(args: Any, agent: Agent, group_size: int) -> Agent:
    """The agent with its host, where there is one; what it names has been imported.

    Raises ValueError, with the error, for what cannot be.
    """
    reward = getattr(args, "reward", ())
    if not reward and not isinstance(agent.env, HostWorld):
        return agent
    host = Host(
        agent.env,
        reward,
        args.reward_weights or (1.0,) * len(reward),
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
    env = env.begins if isinstance(env, HostWorld) else env
    if not isinstance(env, DataSet):
        return lambda state: (None, {})
    lines = Path(env.data).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    numbers = np.asarray(env.rows.line)

    def row(state: Any) -> tuple[Any, dict[str, Any]]:
        number = int(numbers[int(state)])
        fields = dict(parse_json(lines[number - 1].decode(), f"{env.data}, line {number}"))
        return fields.pop("prompt", None), fields

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

    def summary(self) -> dict[str, Any]:
        """Nothing beside the metrics."""
        return {}

    def close(self) -> None:
        self.agent.host.close()


def host_run(args: Any, algorithm: ModuleType, agent: Agent) -> HostRun | None:
    """None where all is compiled; ValueError for a run that cannot be with a host."""
    if agent.host is None:
        return None
    if not hasattr(algorithm, "prepare"):
        raise ValueError(
            f"env={args.env}: Python on the host is for agents that learn from their own "
            "episodes; try train.grpo."
        )
    if args.profile:
        raise ValueError("profile=True is for one program; leave it out with Python on the host.")
    if args.devices > 1 or jax.process_count() > 1:
        raise ValueError(
            f"devices={args.devices} cannot be: a run with Python on the host has one device; try "
            "--devices 1."
        )
    return HostRun(algorithm, agent, args.num_members)

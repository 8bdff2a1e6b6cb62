"""Who draws an action: chance, an environment's expert, a run's policy or language model."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.env import Environment
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.play.talk import Talk
from jaxrl.policy import Policy
from jaxrl.program import ONE_CORE
from jaxrl.spaces import LEGAL, Discrete
from jaxrl.text import Tokens, to_str


@dataclass(frozen=True)
class Moment:
    """Where a reset or a step led; a state is a value, so that each can be gone back to."""

    state: Any
    obs: Any  # on the host, as all that follows
    seed: int
    episode: int
    t: int = 0  # steps taken in this episode
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    total: float = 0.0  # the episode's return so far
    memory: Any = ()  # a recurrent policy's, before it sees `obs`
    action: str = ""  # in words
    call: str = ""  # that led here, in Python
    heard: tuple[int, ...] = ()  # tokens of `obs`, where it is spoken
    said: tuple[int, ...] = ()  # tokens of the response that led here

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated


class Move(NamedTuple):
    """An action, and where a model spoke it its tokens."""

    action: Any
    said: tuple[int, ...] | None = None


class Player(Protocol):
    """One who draws actions; `chat` is the form in which a model hears what is said."""

    label: str

    def warm(self, state: Any, obs: Any, key: jax.Array) -> None:
        """Compile what a move needs."""

    def move(self, episode: Sequence[Moment], key: jax.Array) -> Move:
        """What it does after an episode's moments."""
        ...


def jit(f: Callable[..., Any]) -> Any:
    """`jax.jit` for programs so small that a second thread costs more than it does."""
    on_cpu = jax.default_backend() == "cpu"
    return jax.jit(f, compiler_options=ONE_CORE if on_cpu else None)


class Compiled:
    """Acts by a program: `act(memory, state, obs, key) -> action`."""

    def __init__(self, label: str, act: Callable[..., Any], memory: Any = ()):
        self.label, self.act, self.memory = label, jit(act), memory

    def warm(self, state: Any, obs: Any, key: jax.Array) -> None:
        jax.block_until_ready(self.act(self.memory, state, obs, key))

    def move(self, episode: Sequence[Moment], key: jax.Array) -> Move:
        now = episode[-1]
        return Move(jax.device_get(self.act(now.memory, now.state, now.obs, key)))


def scripted(env: Environment) -> dict[str, Player]:
    """Those that an environment brings itself."""
    if not isinstance(env, LanguageEnvironment):
        return {"random": Compiled("random", draw_of(env.action_space))}
    found: dict[str, Player] = {}
    for name, method in (("random", "random_player"), ("expert", "expert")):
        own = getattr(env, method)
        if getattr(type(env), method) is not getattr(LanguageEnvironment, method):
            found[name] = Compiled(name, lambda _, state, obs, key, own=own: own(state, key))
    return found


def draw_of(space: Any) -> Callable[..., Any]:
    """Any action, of the legal ones where an observation says which are."""

    def draw(memory: Any, state: Any, obs: Any, key: jax.Array) -> Any:
        del memory, state
        if isinstance(space, Discrete) and isinstance(obs, dict) and LEGAL in obs:
            return jax.random.categorical(key, jnp.where(obs[LEGAL], 0.0, -jnp.inf))
        return spaces.sample(space, key)

    return draw


class PolicyPilot:
    """A run's policy of arrays."""

    chat = None

    def __init__(self, policy: Policy, source: Any):
        self.policy, self.source = policy, source
        self.begin = policy.begin()
        self.remember = jit(lambda memory, obs: policy.step(memory, obs)[0])

    def unfit(self, id: str, env: Environment) -> str:
        """Why it cannot play an environment; "" where it can."""
        if self.policy.plays(env):
            return ""
        return (
            f"run={self.source} was trained for the spaces {self.policy.spec.observation_space} "
            f"and {self.policy.action_space}, but env={id} has {env.observation_space} and "
            f"{env.action_space}; leave --env out."
        )

    @cached_property
    def players(self) -> dict[str, Player]:
        """Shared by all worlds that it fits."""
        step = self.policy.step
        return {
            "greedy": Compiled(
                "policy, greedy", lambda memory, _, obs, key: step(memory, obs)[1], self.begin
            ),
            "sampled": Compiled(
                "policy, sampled", lambda memory, _, obs, key: step(memory, obs, key)[1], self.begin
            ),
        }


class ModelPilot:
    """A run's language model."""

    begin = ()

    def __init__(self, model: Any, chat: HostChat, agent: Any, source: Any):
        self.model, self.chat, self.agent, self.source = model, chat, agent, source

    def unfit(self, id: str, env: Environment) -> str:
        """Why it cannot play an environment; "" where it can."""
        own, fits = self.agent.env, isinstance(env, LanguageEnvironment)
        sizes = ("prompt_bytes", "feedback_bytes", "response_bytes", "max_turns")
        if fits and all(getattr(env, name) <= getattr(own, name) for name in sizes):
            return ""
        what = "has longer texts or episodes than it" if fits else "is not spoken to"
        return (
            f"run={self.source} is a language model trained in a {type(own).__name__}, and env="
            f"{id} {what}; leave --env out."
        )

    @cached_property
    def players(self) -> dict[str, Player]:
        """Shared by all worlds that it fits."""
        greedy, sampled = Speaker("model, greedy", self, None), Speaker("model, sampled", self, 1.0)
        sampled.talk.model = greedy.talk.model  # one copy of the weights
        return {"greedy": greedy, "sampled": sampled}


class Speaker:
    """Reads an episode anew for each move: it may have been played by others, or gone back in."""

    def __init__(self, label: str, pilot: ModelPilot, temperature: float | None):
        self.label, self.agent, self.chat = label, pilot.agent, pilot.chat
        context = pilot.agent.limits.context
        self.talk = Talk(pilot.model, pilot.chat, context=context, temperature=temperature)
        self.talking = threading.Lock()

    def warm(self, state: Any, obs: Any, key: jax.Array) -> None:
        self.move([Moment(state, obs, 0, 0)], key)

    def move(self, episode: Sequence[Moment], key: jax.Array) -> Move:
        most, room = self.agent.limits.response, self.agent.env.response_bytes
        with self.talking:
            self.talk.reset()
            self.talk.key = key
            for moment in episode:
                self.talk.hear(moment.said)
                self.talk.say(to_str(moment.obs))
            said = list(self.talk.reply(most))
        ids = np.zeros(most, np.int32)
        ids[: len(said)] = said
        tokens = Tokens(jnp.asarray(ids), jnp.asarray(len(said), jnp.int32), jnp.asarray(False))
        action = self.agent.chat.tokenizer.decode(tokens, room)
        return Move(jax.device_get(action), tuple(said))

"""One table from an environment's id to its constructor and time limit, and what reads it."""

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxrl.env import Environment
from jaxrl.envs.bridges import BRIDGES, OPEN, PLAIN, bridge
from jaxrl.envs.classic.acrobot import Acrobot
from jaxrl.envs.classic.cartpole import CartPole
from jaxrl.envs.classic.mountain_car import MountainCar
from jaxrl.envs.classic.mountain_car_continuous import MountainCarContinuous
from jaxrl.envs.classic.pendulum import Pendulum
from jaxrl.envs.dataset.environment import data_set
from jaxrl.envs.fields import check_fields, check_finite, check_max_steps, fields_of, near
from jaxrl.envs.grid.corridor import SimpleCorridor
from jaxrl.envs.grid.gridworld import GridWorld
from jaxrl.envs.host_world import host_world, is_spoken
from jaxrl.envs.language import games
from jaxrl.envs.memory.memory_chain import MemoryChain
from jaxrl.envs.outside import (
    check_constructor,
    environments,
    import_module,
    is_gymnasium,
    unwrapped,
)
from jaxrl.envs.probe import legal, loop, value
from jaxrl.envs.reasoning.chain_sum import ChainSum
from jaxrl.envs.reasoning.countdown import Countdown
from jaxrl.envs.tools.calculator import Calculator
from jaxrl.envs.tools.office import Office
from jaxrl.envs.tools.search import Search
from jaxrl.language import LanguageEnvironment
from jaxrl.theirs import telling
from jaxrl.wrappers import TimeLimit

if TYPE_CHECKING:
    from jaxrl.vec import VecEnv

Constructor = Callable[..., Environment]

TABLE: dict[str, tuple[Constructor, int | None]] = {
    "Acrobot-v1": (Acrobot, 500),
    "CartPole-v1": (CartPole, 500),
    "GridWorld-v0": (GridWorld, 50),
    "MemoryChain-v0": (MemoryChain, None),
    "MountainCar-v0": (MountainCar, 200),
    "MountainCarContinuous-v0": (MountainCarContinuous, 999),
    "Pendulum-v1": (Pendulum, 200),
    "SimpleCorridor-v0": (SimpleCorridor, 100),
    **games.TABLE,
    "probe/ActionObsReward-v0": (value.ActionObsReward, None),
    "probe/ActionReward-v0": (value.ActionReward, None),
    "probe/CostlyReset-v0": (loop.CostlyReset, 32),
    "probe/Counter-v0": (loop.Counter, None),
    "probe/Doors-v0": (legal.Doors, 16),
    "probe/Forever-v0": (value.Forever, 5),
    "probe/FreshRandomness-v0": (loop.FreshRandomness, None),
    "probe/MultiTarget-v0": (value.MultiTarget, None),
    "probe/ObsReward-v0": (value.ObsReward, None),
    "probe/OneStepReward-v0": (value.OneStepReward, None),
    "probe/Target-v0": (value.Target, None),
    "probe/TwoStepDiscount-v0": (value.TwoStepDiscount, None),
    "reasoning/chain_sum": (ChainSum, None),
    "reasoning/countdown": (Countdown, None),
    "tools/Calculator": (Calculator, None),
    "tools/Office": (Office, None),
    "tools/Search": (Search, None),
}


@dataclasses.dataclass(frozen=True)
class Spec:
    """What an id stands for."""

    id: str
    constructor: Constructor
    max_steps: int | None  # the time limit put around it; None: no limit, or one of its own
    source: str = "native"
    downloads: str = ""  # what making it fetches from the network
    language: bool | None = None  # whether it is spoken to, where the class does not tell
    needs: str = ""  # the field without which it cannot be made, as NAME=VALUE

    @property
    def is_language(self) -> bool:
        """Whether it is spoken to; one is made only if its constructor is a function."""
        inner = unwrapped(self.constructor)
        if self.language is not None:
            return self.language
        if isinstance(inner, type):
            return issubclass(inner, LanguageEnvironment)
        return isinstance(make(self.id), LanguageEnvironment)


GIVEN = "given/"  # before the ids of objects
_specs = {id: Spec(id, *row) for id, row in TABLE.items()}
_specs["dataset"] = Spec("dataset", data_set, None, language=True, needs="data=FILE.jsonl")


def ids() -> list[str]:
    """Every id that `make` knows, sorted; one of a suite by its plain name if it has one."""
    named = set(PLAIN.values())
    suites = {f"{suite}/{name}" for suite in BRIDGES for name in bridge(suite).ids()}
    own = {id for id in _specs if not id.startswith(GIVEN)}
    return sorted({*own, *PLAIN, *(suites - named)})


def spec(id: str) -> Spec:
    """What `id` stands for; a ValueError names the ids most like an unknown one.

    `suite/name` is a suite's environment whether or not a native one has that name;
    `my_module:Id` imports my_module, then takes the id that it registered or what it calls Id.
    """
    id = str(id)
    if id in _specs:
        return _specs[id]
    suite, _, name = PLAIN.get(id, id).partition("/")
    if suite in BRIDGES and (suite in OPEN or name in bridge(suite).ids()):
        found = bridge(suite)
        make_it = functools.partial(found.make, name)
        needs = vars(found).get("NEEDS", {}).get(name, "")
        downloads = found.DOWNLOADS.get(name, "")
        return Spec(id, make_it, None, suite, downloads, found.LANGUAGE, needs)
    if id.startswith(GIVEN):
        raise ValueError(
            f"The environment {id!r} was given as an object in Python, and is not known here; give "
            "it again: jaxrl.train(..., env=OBJECT)."
        )
    if ":" in id:
        return _spec_of_module(id)
    known = bridge("gymnasium").knows(id)
    also = f"; Gymnasium knows it, try gymnasium/{id}" if known else ""
    raise ValueError(f"No environment {id!r}{also}; near: {near(id, ids())}; all: python -m envs.")


def _spec_of_module(id: str) -> Spec:
    module_name, _, name = id.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(f"{id!r} must be my_module:Id, the module as Python imports it.")
    module = import_module(module_name)
    if name in _specs:
        return _specs[name]
    if not hasattr(module, name):
        mine = {id for id, row in _specs.items() if row.source == module_name}
        known = {*environments(module), *mine}
        raise ValueError(
            f"Module {module_name!r} ({module.__file__}) registers and defines no {name!r}; near: "
            f"{near(name, known)}; its environments: {', '.join(sorted(known)) or 'none'}."
        )
    constructor = getattr(module, name)
    if is_gymnasium(constructor) and isinstance(constructor, type):
        return Spec(id, by_python(id, constructor), None, module_name, language=False)
    if is_spoken(constructor):
        made = functools.partial(host_world, id)
        return Spec(id, made, None, module_name, language=True)
    check_constructor(id, constructor)
    return Spec(id, constructor, None, source=module_name)


def by_python(id: str, constructor: Callable[..., Any]) -> Constructor:
    """A constructor of what stands for environments of Gymnasium's API in the program."""
    return bridge("gymnasium").of_class(id, constructor)


def register(id: str, constructor: Constructor, max_steps: int | None = None) -> None:
    """Adds an id; `constructor` is an Environment class, or a function that returns one."""
    suite = id.partition("/")[0]
    if id in _specs or id in PLAIN:
        owner = _specs[id].constructor if id in _specs else PLAIN[id]
        raise ValueError(f"The id {id!r} is taken by {owner}; try another one.")
    if not id or ":" in id or suite in BRIDGES:
        rule = f"not begin with {suite}/" if suite in BRIDGES else "be a name without a colon"
        raise ValueError(f"The id {id!r} must {rule}; try 'mine/{id.split('/')[-1]}'.")
    check_max_steps(id, max_steps)
    inner = unwrapped(constructor)
    if is_gymnasium(inner) and isinstance(inner, type):
        limit = {} if max_steps is None else {"max_steps": max_steps}
        constructor = functools.partial(by_python(id, constructor), **limit)
    check_constructor(id, constructor)
    _specs[id] = Spec(id, constructor, max_steps, source=inner.__module__)


def given(env: Any) -> str:
    """An id for this very object, in this process; an equal one has the same.

    An Environment; or, to be stepped by Python, a class of Gymnasium's API, a function that returns
    one of them, or what `gymnasium.make` gave. ValueError for anything else.
    """
    if not isinstance(env, Environment):
        name, constructor = bridge("gymnasium").repeated(env)
        id = f"{GIVEN}{name}"
        _specs[id] = Spec(id, by_python(id, constructor), None, "given", "", False)
        return id
    leaves, structure = jax.tree.flatten(env)
    content = hashlib.sha256(str(structure).encode())
    for x in map(np.asarray, leaves):
        content.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    id = f"{GIVEN}{type(env).__name__}-{content.hexdigest()[:8]}"
    language = isinstance(env, LanguageEnvironment)
    _specs[id] = Spec(id, functools.partial(dataclasses.replace, env), None, "given", "", language)
    return id


def make(id: str, /, **fields: Any) -> Environment:
    """The environment with these fields, inside `TimeLimit` where its id has a time limit.

    `max_steps=N` replaces the id's time limit and `max_steps=None` removes it. An environment
    with a clock of its own takes `max_steps` itself, and there is no `TimeLimit`.
    """
    row = spec(id)
    parameters = inspect.signature(row.constructor).parameters
    max_steps = fields.get("max_steps", row.max_steps)
    check_max_steps(id, max_steps)
    if "max_steps" not in parameters:
        fields.pop("max_steps", None)
    known = fields_of(row.constructor)
    own = any(p.kind is p.VAR_KEYWORD for p in parameters.values())  # it checks its fields itself
    fields = fields if own else check_fields(id, fields, known)
    with telling(f"{id} cannot be made"):
        env = row.constructor(**fields)
        if is_gymnasium(env):
            env = by_python(id, row.constructor)(**fields)
    check_finite(id, {} if own else fields, known)
    if not isinstance(env, Environment):
        raise ValueError(f"{id}: its function returned a {type(env).__name__}, no Environment.")
    if max_steps is None or "max_steps" in parameters:
        return env
    if isinstance(env, LanguageEnvironment):
        way_out = f"try turns={max_steps}" if "turns" in parameters else "leave it out"
        raise ValueError(
            f"{id}: max_steps={max_steps} is not for texts, whose turns are counted; {way_out}."
        )
    return TimeLimit(env, max_steps)


def make_vec(id: str, /, num_envs: int, **fields: Any) -> "VecEnv":
    """`num_envs` of them stepped together, with episode statistics and auto-reset."""
    from jaxrl.vec import VecEnv  # floor 2: loaded by those who batch here

    return VecEnv(make(id, **fields), num_envs)

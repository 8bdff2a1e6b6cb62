"""One table from an environment's id to its constructor and time limit, and what reads it."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxrl.env import Environment
from jaxrl.envs.bridges import gymnax
from jaxrl.envs.classic.acrobot import Acrobot
from jaxrl.envs.classic.cartpole import CartPole
from jaxrl.envs.classic.mountain_car import MountainCar
from jaxrl.envs.classic.mountain_car_continuous import MountainCarContinuous
from jaxrl.envs.classic.pendulum import Pendulum
from jaxrl.envs.fields import check_fields, check_max_steps, near
from jaxrl.envs.grid.corridor import SimpleCorridor
from jaxrl.envs.grid.gridworld import GridWorld
from jaxrl.envs.language import games
from jaxrl.envs.probe import loop, value
from jaxrl.envs.reasoning.chain_sum import ChainSum
from jaxrl.envs.reasoning.countdown import Countdown
from jaxrl.wrappers import TimeLimit

if TYPE_CHECKING:
    from jaxrl.vec import VecEnv

Constructor = Callable[..., Environment]

TABLE: dict[str, tuple[Constructor, int | None]] = {
    "Acrobot-v1": (Acrobot, 500),
    "CartPole-v1": (CartPole, 500),
    "GridWorld-v0": (GridWorld, 50),
    "MountainCar-v0": (MountainCar, 200),
    "MountainCarContinuous-v0": (MountainCarContinuous, 999),
    "Pendulum-v1": (Pendulum, 200),
    "SimpleCorridor-v0": (SimpleCorridor, 100),
    **games.TABLE,
    "probe/ActionObsReward-v0": (value.ActionObsReward, None),
    "probe/ActionReward-v0": (value.ActionReward, None),
    "probe/CostlyReset-v0": (loop.CostlyReset, 32),
    "probe/Counter-v0": (loop.Counter, None),
    "probe/Forever-v0": (value.Forever, 5),
    "probe/FreshRandomness-v0": (loop.FreshRandomness, None),
    "probe/MultiTarget-v0": (value.MultiTarget, None),
    "probe/ObsReward-v0": (value.ObsReward, None),
    "probe/OneStepReward-v0": (value.OneStepReward, None),
    "probe/Target-v0": (value.Target, None),
    "probe/TwoStepDiscount-v0": (value.TwoStepDiscount, None),
    "reasoning/chain_sum": (ChainSum, None),
    "reasoning/countdown": (Countdown, None),
}


@dataclasses.dataclass(frozen=True)
class Spec:
    """What an id stands for."""

    id: str
    constructor: Constructor
    max_steps: int | None  # the time limit put around it; None: no limit, or one of its own
    source: str = "native"
    downloads: str = ""  # what making it fetches from the network


_specs = {id: Spec(id, *row) for id, row in TABLE.items()}
for _name in gymnax.NAMES:  # the package itself is imported when one is made
    _make = functools.partial(gymnax.make, _name)
    _id = f"gymnax/{_name}" if _name in TABLE else _name  # beside a native one of the same name
    _specs[_id] = Spec(_id, _make, None, "gymnax", gymnax.DOWNLOADS.get(_name, ""))


def ids() -> list[str]:
    """Every id that `make` knows, sorted."""
    return sorted(_specs)


def spec(id: str) -> Spec:
    """What `id` stands for; a ValueError names the ids most like an unknown one.

    `gymnax/NAME` is gymnax's environment whether or not NAME is a native one.
    """
    plain = str(id).removeprefix("gymnax/")
    if plain in gymnax.NAMES and plain not in TABLE:
        return _specs[plain]
    if id not in _specs:
        raise ValueError(
            f"No environment {id!r}; near: {near(str(id), _specs)}; all: python -m envs."
        )
    return _specs[id]


def register(id: str, constructor: Constructor, max_steps: int | None = None) -> None:
    """Adds an id; `constructor` is an Environment class, or a function that returns one."""
    if id in _specs:
        raise ValueError(f"The id {id!r} is taken by {_specs[id].constructor}; try another one.")
    check_max_steps(id, max_steps)
    _specs[id] = Spec(id, constructor, max_steps, source=constructor.__module__)


def make(id: str, **fields: Any) -> Environment:
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
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):  # else it checks its own
        defaults = {name: p.default for name, p in parameters.items()}
        fields = check_fields(id, fields, defaults, _structure(row.constructor))
    env = row.constructor(**fields)
    if max_steps is None or "max_steps" in parameters:
        return env
    return TimeLimit(env, max_steps)


def make_vec(id: str, num_envs: int, **fields: Any) -> "VecEnv":
    """`num_envs` of them stepped together, with episode statistics and auto-reset."""
    from jaxrl.vec import VecEnv  # floor 2: loaded by those who batch here

    return VecEnv(make(id, **fields), num_envs)


def _structure(constructor: Constructor) -> set[str]:
    """The names of a constructor's static fields."""
    if not dataclasses.is_dataclass(constructor):
        return set()
    fields = dataclasses.fields(constructor)
    return {f.name for f in fields if not f.metadata.get("pytree_node", True)}

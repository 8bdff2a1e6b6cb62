"""Gymnasium's environments, and classes of one's own with its API: stepped by Python, on the host.

`gymnasium/NAME` is whatever `gymnasium.make` knows, `my_module:MyEnv` a class or a function that
gives one. Only spaces are known to the program; see `jaxrl/host`.
"""

import functools
import hashlib
import importlib
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np

from jaxrl.envs.fields import check_max_steps, near
from jaxrl.envs.outside import is_gymnasium, unwrapped
from jaxrl.host import spaces
from jaxrl.host.environment import HostEnvironment, World
from jaxrl.host.lanes import FIRST

DOWNLOADS: dict[str, str] = {}
LANGUAGE = False
MENDS = (
    "The last observation of an episode is kept beside the next one's first; real bounds of "
    "observations are left open, since those that are declared are not always kept."
)


def ids() -> tuple[str, ...]:
    """Those that come with Gymnasium and need no download; `make` takes every id that it knows."""
    return NAMES


def make(name: str, *, max_steps: Any = 0, **fields: Any) -> HostEnvironment:
    """`gymnasium.make(name)` with these arguments; `max_steps` replaces its time limit.

    `max_steps=None` leaves it out. ValueError for an id that Gymnasium does not know.
    """
    id = f"gymnasium/{name}"
    limit = _limit(id, max_steps)
    gymnasium = _gymnasium(id)
    if ":" not in name and not knows(name):
        known = gymnasium.envs.registration.registry
        raise ValueError(f"Gymnasium knows no {name!r}; near: {near(name, known)}.")
    return hosted(id, functools.partial(_make, gymnasium.make, name, limit), fields, bounds=False)


def of_class(id: str, constructor: Callable[..., Any]) -> Callable[..., HostEnvironment]:
    """A function that makes the host environment of a class, or function, of Gymnasium's API."""

    def make(*, max_steps: Any = 0, **fields: Any) -> HostEnvironment:
        limit = _limit(id, max_steps)
        return hosted(id, functools.partial(_limited, Named.of(constructor), limit), fields)

    return make


def _limit(id: str, max_steps: Any) -> int | None:
    """0: as it is; None: no limit, -1 in Gymnasium."""
    check_max_steps(id, max_steps or None)
    return -1 if max_steps is None else max_steps or None


class Named:
    """A class or function by the name of its module, so that worker processes import it."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    @classmethod
    def of(cls, constructor: Any) -> Any:
        """By its name where it has one that leads to it; else itself, which travels by value."""
        module, name = (getattr(constructor, key, None) for key in ("__module__", "__qualname__"))
        if (
            module in (None, "__main__")
            or getattr(sys.modules.get(module), str(name), None) is None
        ):
            return constructor
        return cls(module, str(name))

    def __call__(self, **fields: Any) -> Any:
        return getattr(importlib.import_module(self.module), self.name)(**fields)


def _make(make: Callable[..., Any], name: str, limit: int | None, **fields: Any) -> Any:
    with warnings.catch_warnings(action="ignore"):  # of old versions: who asks for one knows
        return make(name, max_episode_steps=limit, **fields)


def _limited(constructor: Callable[..., Any], limit: int | None, **fields: Any) -> Any:
    from gymnasium.wrappers import TimeLimit

    env = constructor(**fields)
    return env if limit in (None, -1) else TimeLimit(env, limit)


def hosted(
    id: str, make: Callable[..., Any], fields: Mapping[str, Any], bounds: bool = True
) -> HostEnvironment:
    """The environments that `make(**fields)` gives one of, by its spaces."""
    one = functools.partial(make, **fields)
    env = _in_time(id, lambda: _made(id, one))
    gym = env.observation_space, env.action_space
    limit = None if env.spec is None else env.spec.max_episode_steps
    seen = spaces.ours(gym[0], f"{id}: the observation space", bounds)
    acts = spaces.ours(gym[1], f"{id}: the action space")
    _in_time(id, lambda: _check_beginning(id, env, seen))
    env.close()
    begin = functools.partial(opened, id, one, gym, seen)
    note = ""
    if any(spaces.starts(space) for space in gym):
        note = f"choices of {id} do not count from 0; those of load_policy will: add their start."
    options = repr(sorted(fields.items()))
    return HostEnvironment(World(id, seen, acts, begin, options, limit, note=note))


def _in_time(id: str, work: Callable[[], Any]) -> Any:
    """What it gives, or raises; ValueError where it takes longer than a first episode may."""
    done = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # SystemExit too
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return done.result(FIRST)
    except TimeoutError:
        raise ValueError(
            f"{id}: to make one, begin and take a step takes longer than {FIRST:g} s."
        ) from None


def _made(id: str, make: Callable[[], Any]) -> Any:
    """One of them here, to know its spaces; ValueError or ImportError, in one line, if it fails."""
    try:
        env = make()
    except Exception as error:
        words = " ".join(str(error).split())
        if isinstance(error, ImportError) or type(error).__name__ == "DependencyNotInstalled":
            raise ImportError(f"{id} needs more than Gymnasium: {words}") from error
        raise ValueError(f"{id} cannot be made: {type(error).__name__}: {words}") from error
    if not is_gymnasium(env):
        raise ValueError(f"{id}: its function returned a {type(env).__name__}, no environment.")
    return env


def _check_beginning(id: str, env: Any, seen: Any) -> None:
    """ValueError where an environment does not begin, or go on, as its spaces say: one step."""
    problem, when = None, "its first episode could not begin"
    try:
        problem = spaces.outside(
            seen, spaces.single(env.observation_space, seen, env.reset(seed=0)[0])
        )
        when = "its first step"
        env.action_space.seed(0)
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        problem = problem or spaces.outside(seen, spaces.single(env.observation_space, seen, obs))
        if not np.isfinite(float(reward)):
            problem = problem or f"a reward is {reward}; rewards must be finite."
        bool(terminated), bool(truncated), dict(info)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {' '.join(str(error).split())}"
        place = "" if last.filename == __file__ else f", {last.filename}, line {last.lineno}"
        raise ValueError(f"{id}: {when} ({words}{place}).") from error
    if problem:
        raise ValueError(f"{id}: {problem}")


def repeated(env: Any) -> tuple[str, Callable[..., Any]]:
    """(name, constructor) of environments like this one; ValueError for what cannot be repeated."""
    if is_gymnasium(env) and not isinstance(env, type):
        if env.spec is None:
            name = type(env.unwrapped).__name__
            raise ValueError(
                f"env={name}(...) is one environment, and workers need several; give its class "
                f"{name}, or a function that returns one."
            )
        _gymnasium(env.spec.id)
        return env.spec.id, functools.partial(_of_spec, env.spec)
    name = getattr(unwrapped(env), "__qualname__", "")
    if not name or not callable(env):
        raise ValueError(
            f"env={env!r} must be an id, an Environment, or a class of Gymnasium's API; try "
            "env='CartPole-v1'."
        )
    given = [repr((x.args, x.keywords)) for x in (env,) if isinstance(x, functools.partial)]
    words = f"{unwrapped(env).__module__} {name} {given}"
    digest = hashlib.sha256(words.encode()).hexdigest()[:8]
    return f"{name.rpartition('.')[2]}-{digest}", env


def _of_spec(spec: Any) -> Any:
    import gymnasium

    return gymnasium.make(spec)


def opened(
    id: str,
    make: Callable[[], Any],
    gym: tuple,
    observation_space: Any,
    num_envs: int,
    actors: Any,
    records: bool = False,
) -> Any:
    """Processes of these environments, here or on a Ray cluster; `records`: see `bunch.Bunch`."""
    from jaxrl.host import lanes, machines, processes

    kind = processes.Process if actors.ray is None else machines.RayActor
    start = functools.partial(kind, make, gym, records)
    how = num_envs, actors.num_processes, actors.deadline
    return lanes.Lanes(id, start, gym, observation_space, *how)


def _gymnasium(id: str) -> Any:
    try:
        import gymnasium
    except ImportError as error:
        text = f"{id} needs gymnasium: pip install 'jaxrl[gymnasium]' ({error})."
        raise ImportError(text) from error
    return gymnasium


def knows(name: str) -> bool:
    """Whether `gymnasium.make` knows this id."""
    try:
        from gymnasium.envs.registration import registry
    except ImportError:
        return False
    return name in registry


NAMES = (  # of Gymnasium 1.3.0, of those whose package's own wheel brings them
    "Acrobot-v1",
    "Ant-v5",
    "BipedalWalker-v3",
    "BipedalWalkerHardcore-v3",
    "Blackjack-v1",
    "CarRacing-v3",
    "CartPole-v1",
    "CliffWalking-v1",
    "FrozenLake-v1",
    "FrozenLake8x8-v1",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "LunarLander-v3",
    "LunarLanderContinuous-v3",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "Pusher-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Taxi-v4",
    "Walker2d-v5",
)

"""Environments of a user's own: `my_module:Id`, and what may be registered."""

import functools
import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

from jaxrl.env import Environment
from jaxrl.theirs import telling


def import_module(name: str) -> ModuleType:
    """A module by name; the working directory comes first while it is imported, and last later."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
    sys.path.insert(0, folder)
    try:
        with telling(f"module {name!r} cannot be imported"):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise  # one that the module itself imports
        raise ValueError(
            f"No module {name!r} in {folder} or where Python looks for modules; start where it "
            "lies, or install it."
        ) from error
    finally:
        sys.path.remove(folder)


def unwrapped(constructor: Any) -> Any:
    """What stands inside of `functools.partial`."""
    while isinstance(constructor, functools.partial):
        constructor = constructor.func
    return constructor


def is_gymnasium(x: Any) -> bool:
    """Whether it is a Gymnasium environment, or a class of them; imports nothing."""
    if "gymnasium" not in sys.modules:
        return False
    base = sys.modules["gymnasium"].Env
    return issubclass(x, base) if isinstance(x, type) else isinstance(x, base)


def check_constructor(id: str, constructor: Any) -> None:
    """ValueError unless it is an Environment class or a function, which may return one."""
    inner = unwrapped(constructor)
    name = getattr(inner, "__name__", type(inner).__name__)
    if isinstance(inner, type) and not issubclass(inner, Environment):
        raise ValueError(
            f"{id}: {name} is no jaxrl.Environment{_kin(inner)}; derive the class from "
            "jaxrl.Environment, with reset(key) and step(state, action, key) in jax."
        )
    if isinstance(inner, Environment):
        raise ValueError(f"{id}: {name}(...) is an instance; give its class, {name}, or a partial.")
    if not callable(inner):
        raise ValueError(
            f"{id}: {inner!r} is no environment; give an Environment class, or a function that "
            "returns an environment."
        )


def _kin(cls: type) -> str:
    gym = any(base.__module__.split(".")[0] == "gym" for base in cls.__mro__)
    return " but one of the old gym, which became gymnasium" if gym else ""


def environments(module: ModuleType) -> dict[str, Any]:
    """The classes of environments that a module defines, Gymnasium's too, and its partials."""
    found = {}
    for name, value in vars(module).items():
        inner = unwrapped(value)
        imported = inner is value and getattr(inner, "__module__", "") != module.__name__
        ours = isinstance(inner, type) and (issubclass(inner, Environment) or is_gymnasium(inner))
        if ours and not imported:
            found[name] = value
    return found

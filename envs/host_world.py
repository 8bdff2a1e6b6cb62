"""Classes of a user's own that Python steps, text by text: gem's environments, and TRL's."""

from typing import Any

from jaxrl.env import Environment
from jaxrl.envs.dataset.environment import data_set
from jaxrl.host_world import HostWorld

OTHERS = ("gym", "gymnasium")  # whose environments are of arrays


def is_spoken(constructor: Any) -> bool:
    """Whether it is a plain class with a `reset`, which says texts."""
    if not isinstance(constructor, type) or issubclass(constructor, Environment):
        return False
    arrays = any(base.__module__.split(".")[0] in OTHERS for base in constructor.__mro__)
    return hasattr(constructor, "reset") and not arrays


def host_world(id: str, data: str | None = None, split: str = "train", **fields: Any) -> HostWorld:
    """What a program knows of such a class; `fields` are its constructor's, `data` its rows."""
    begins = None if data is None else data_set(data, split)
    return HostWorld(begins=begins, world=id, fields=tuple(sorted(fields.items())), truncates=True)

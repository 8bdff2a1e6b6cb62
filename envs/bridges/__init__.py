"""The suites of others: one line each in `BRIDGES`, and what a bridge offers."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jaxrl.env import Environment

BRIDGES: dict[str, str] = {  # suite -> its module, imported when an id of it is made or listed
    "atari": "jaxrl.envs.bridges.atari",
    "brax": "jaxrl.envs.bridges.brax",
    "craftax": "jaxrl.envs.bridges.craftax",
    "gymnasium": "jaxrl.envs.bridges.gymnasium",
    "gymnax": "jaxrl.envs.bridges.gymnax",
    "jaxatari": "jaxrl.envs.bridges.jaxatari",
    "jumanji": "jaxrl.envs.bridges.jumanji",
    "navix": "jaxrl.envs.bridges.navix",
    "pgx": "jaxrl.envs.bridges.pgx",
    "playground": "jaxrl.envs.bridges.playground",
    "xminigrid": "jaxrl.envs.bridges.xminigrid",
}

# Ids without a suite that mean one of a suite's. Fixed: what a plain name means never changes, so
# a native environment of such a name needs another id, and new suites go by `suite/name` alone.
OPEN = {"gymnasium"}  # suites that make more than they list
ON_HOST = {"atari", "gymnasium"}  # suites that Python steps

PLAIN: dict[str, str] = {
    "Asterix-MinAtar": "gymnax/Asterix-MinAtar",
    "BernoulliBandit-misc": "gymnax/BernoulliBandit-misc",
    "Breakout-MinAtar": "gymnax/Breakout-MinAtar",
    "Catch-bsuite": "gymnax/Catch-bsuite",
    "DeepSea-bsuite": "gymnax/DeepSea-bsuite",
    "DiscountingChain-bsuite": "gymnax/DiscountingChain-bsuite",
    "FourRooms-misc": "gymnax/FourRooms-misc",
    "Freeway-MinAtar": "gymnax/Freeway-MinAtar",
    "FrozenLake-misc": "gymnax/FrozenLake-misc",
    "GaussianBandit-misc": "gymnax/GaussianBandit-misc",
    "MNISTBandit-bsuite": "gymnax/MNISTBandit-bsuite",
    "MemoryChain-bsuite": "gymnax/MemoryChain-bsuite",
    "MetaMaze-misc": "gymnax/MetaMaze-misc",
    "PointRobot-misc": "gymnax/PointRobot-misc",
    "Pong-misc": "gymnax/Pong-misc",
    "Reacher-misc": "gymnax/Reacher-misc",
    "Seaquest-MinAtar": "gymnax/Seaquest-MinAtar",
    "SimpleBandit-bsuite": "gymnax/SimpleBandit-bsuite",
    "SpaceInvaders-MinAtar": "gymnax/SpaceInvaders-MinAtar",
    "Swimmer-misc": "gymnax/Swimmer-misc",
    "UmbrellaChain-bsuite": "gymnax/UmbrellaChain-bsuite",
}


class Bridge(Protocol):
    """A module of this package. Importing it, and `ids`, work without the suite's package.

    A suite of which some ids cannot be made without a field has `NEEDS`, name -> NAME=VALUE.
    """

    LANGUAGE: bool  # its environments are spoken to
    MENDS: str  # what it does otherwise than the suite, in a sentence or two
    DOWNLOADS: Mapping[str, str]  # name -> what making it fetches from the network

    def ids(self) -> Sequence[str]:
        """The names of its environments, without the suite's."""
        ...

    def make(self, name: str, **fields: Any) -> Environment:
        """The environment of that name; it checks its fields, `max_steps` among them.

        An ImportError says how to install what is missing.
        """
        ...


def bridge(suite: str) -> Any:
    """The bridge to a suite of the table, a `Bridge`."""
    return importlib.import_module(BRIDGES[suite])

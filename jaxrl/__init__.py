"""Reinforcement learning in which everything that learns is one XLA program."""

from typing import TYPE_CHECKING

from jaxrl.train import stop

if stop.started_here():
    stop.listen()  # before jax is imported, which takes seconds

from jaxrl.check import check_env
from jaxrl.env import Environment, TimeStep, Wrapper, static, timestep
from jaxrl.policy import Policy, load_policies, load_policy
from jaxrl.spaces import Box, Discrete, MultiDiscrete
from jaxrl.vec import VecEnv

if TYPE_CHECKING:
    from jaxrl.train.in_python import train  # what calling the package does

__version__ = "0.1.0"

__all__ = [
    "Box",
    "Discrete",
    "Environment",
    "MultiDiscrete",
    "Policy",
    "TimeStep",
    "VecEnv",
    "Wrapper",
    "check_env",
    "load_policies",
    "load_policy",
    "static",
    "timestep",
    "train",
]

"""An environment that Python steps, as far as the program knows it: by its spaces."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from jaxrl.env import Environment, TimeStep, static, timestep
from jaxrl.host.worlds import Worlds
from jaxrl.spaces import Space, by_leaf, is_space


@dataclass(frozen=True)
class World:
    """How environments of an id are started, on this machine or elsewhere."""

    id: str
    observation_space: Space = field(compare=False)
    action_space: Space = field(compare=False)
    open: Callable[..., Worlds] = field(compare=False)  # (num_envs, actors) -> Worlds
    options: str = ""  # what tells worlds of one id apart
    max_steps: int | None = None  # their time limit, where it is known
    threads: bool = False  # of this process: no other machine can play them
    note: str = ""  # what who trains on it should know


class HostEnvironment(Environment):
    """Its `reset` shows zeros, so that shapes are known; `step` cannot be called in a program."""

    world: Any = static(None)

    @property
    def observation_space(self) -> Space:
        return self.world.observation_space

    @property
    def action_space(self) -> Space:
        return self.world.action_space

    @property
    def max_steps(self) -> int | None:
        return self.world.max_steps

    def reset(self, key: jax.Array) -> tuple[tuple[()], TimeStep]:
        del key
        space = by_leaf(self.observation_space)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), space, is_leaf=is_space)
        return (), timestep(zeros)

    def step(self, state: Any, action: Any, key: jax.Array) -> NoReturn:
        raise ValueError(
            f"{self.world.id} is stepped by Python and cannot be part of a compiled program; train "
            "on it with python -m train.ppo (a2c, dqn, sac or td3)."
        )

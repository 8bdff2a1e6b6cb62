"""NAVIX's environments (arXiv:2407.19396) behind our contract.

Conformance: tests/test_envs_suites.py. Only `reset` and the raw `_step` are called: NAVIX's own
`step` begins the next episode on the step that follows an end.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, static, timestep
from jaxrl.envs.bridges import pictures
from jaxrl.envs.bridges.avals import like, strong
from jaxrl.envs.bridges.packages import package
from jaxrl.envs.fields import check_fields, check_max_steps
from jaxrl.spaces import Box, Discrete
from jaxrl.wrappers import TimeLimit

NAMES = (  # what navix 0.7.4 registers
    "Navix-DistShift1-v0",
    "Navix-DistShift2-v0",
    "Navix-DoorKey-16x16-v0",
    "Navix-DoorKey-5x5-v0",
    "Navix-DoorKey-6x6-v0",
    "Navix-DoorKey-8x8-v0",
    "Navix-DoorKey-Random-16x16-v0",
    "Navix-DoorKey-Random-5x5-v0",
    "Navix-DoorKey-Random-6x6-v0",
    "Navix-DoorKey-Random-8x8-v0",
    "Navix-Dynamic-Obstacles-16x16-v0",
    "Navix-Dynamic-Obstacles-5x5-Random-v0",
    "Navix-Dynamic-Obstacles-5x5-v0",
    "Navix-Dynamic-Obstacles-6x6-Random-v0",
    "Navix-Dynamic-Obstacles-6x6-v0",
    "Navix-Dynamic-Obstacles-8x8-v0",
    "Navix-Empty-16x16-v0",
    "Navix-Empty-5x5-v0",
    "Navix-Empty-6x6-v0",
    "Navix-Empty-8x8-v0",
    "Navix-Empty-Random-16x16-v0",
    "Navix-Empty-Random-5x5-v0",
    "Navix-Empty-Random-6x6-v0",
    "Navix-Empty-Random-8x8-v0",
    "Navix-FourRooms-v0",
    "Navix-GoToDoor-5x5-v0",
    "Navix-GoToDoor-6x6-v0",
    "Navix-GoToDoor-8x8-v0",
    "Navix-KeyCorridorS3R1-v0",
    "Navix-KeyCorridorS3R2-v0",
    "Navix-KeyCorridorS3R3-v0",
    "Navix-KeyCorridorS4R3-v0",
    "Navix-KeyCorridorS5R3-v0",
    "Navix-KeyCorridorS6R3-v0",
    "Navix-LavaGapS5-v0",
    "Navix-LavaGapS6-v0",
    "Navix-LavaGapS7-v0",
    "Navix-SimpleCrossingS11N5-v0",
    "Navix-SimpleCrossingS9N1-v0",
    "Navix-SimpleCrossingS9N2-v0",
    "Navix-SimpleCrossingS9N3-v0",
)
MAX_STEPS = 100  # of navix.make
HIGHEST = (10, 5, 3)  # tag, colour and state of what lies on a square
MENDS = (
    "NAVIX's `step` begins the next episode on the step after an end: here the loop does. Bounds "
    "hold (NAVIX says 8 for all numbers of a square), and the key and the rendered tiles are no "
    "part of the state, which is 241 bytes so in place of 5,241 (5x5)."
)
DOWNLOADS: dict[str, str] = {}
LANGUAGE = False


class Navix(Environment):
    """An environment of NAVIX; its state is NAVIX's own without the key and the rendered tiles."""

    name: str = static("")

    @property
    def game(self) -> Any:
        """NAVIX's environment object, which cannot be hashed."""
        return _game(self.name)

    @property
    def observation_space(self) -> Box:
        shape = self.game.observation_space.shape
        # KeyCorridor's locked doors have state -2, which is 254.
        high = (*HIGHEST[:2], 255) if type(self.game).__name__ == "KeyCorridor" else HIGHEST
        return Box(np.zeros(shape), np.broadcast_to(high, shape), shape, np.uint8)

    @property
    def action_space(self) -> Discrete:
        return Discrete(len(self.game.action_set))

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        first = self.game.reset(key)
        state = strong(first.state.replace(key=None, cache=None))
        return state, timestep(self._observe(first.observation))

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, TimeStep]:
        # Its functions change the dictionary of entities in place.
        own = state.replace(key=key, entities=dict(state.entities))
        zero = jnp.int32(0)  # the clock is ours
        now = package("navix", "navix").Timestep(zero, None, zero, jnp.float32(0), zero, own)
        then = self.game._step(now, action)
        stepped = like(then.state.replace(key=None), state)
        return stepped, timestep(self._observe(then.observation), then.reward, then.step_type == 2)

    def _observe(self, obs: jax.Array) -> jax.Array:
        return obs.astype(jnp.uint8)

    def frames(self, states: Any) -> list[np.ndarray]:
        return pictures.of_navix(states)


def ids() -> tuple[str, ...]:
    return NAMES


def make(name: str, *, max_steps: Any = MAX_STEPS, **fields: Any) -> Environment:
    """NAVIX's `name` inside a time limit; `max_steps=None` leaves the time limit out."""
    id = f"navix/{name}"
    check_max_steps(id, max_steps)
    check_fields(id, fields, {})
    _game(name)  # what is missing is said here
    env = Navix(name)
    return env if max_steps is None else TimeLimit(env, max_steps)


@functools.cache
def _game(name: str) -> Any:
    """NAVIX's environment object, whose own clock never runs out: its state has none."""
    return package("navix", "navix").make(name, max_steps=2)

"""XLand-MiniGrid's environments (arXiv:2312.12044) behind our contract.

Conformance: tests/test_envs_suites.py. Only the raw `reset` and `step` are called.
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
from jaxrl.envs.fields import LARGEST, Field, check_fields
from jaxrl.spaces import Box, Discrete

NAMES = (  # what xminigrid 0.9.3 registers
    "MiniGrid-BlockedUnlockPickUp",
    "MiniGrid-DoorKey-16x16",
    "MiniGrid-DoorKey-5x5",
    "MiniGrid-DoorKey-6x6",
    "MiniGrid-DoorKey-8x8",
    "MiniGrid-Empty-16x16",
    "MiniGrid-Empty-5x5",
    "MiniGrid-Empty-6x6",
    "MiniGrid-Empty-8x8",
    "MiniGrid-EmptyRandom-16x16",
    "MiniGrid-EmptyRandom-5x5",
    "MiniGrid-EmptyRandom-6x6",
    "MiniGrid-EmptyRandom-8x8",
    "MiniGrid-FourRooms",
    "MiniGrid-LockedRoom",
    "MiniGrid-MemoryS128",
    "MiniGrid-MemoryS16",
    "MiniGrid-MemoryS32",
    "MiniGrid-MemoryS64",
    "MiniGrid-MemoryS8",
    "MiniGrid-Playground",
    "MiniGrid-Unlock",
    "MiniGrid-UnlockPickUp",
    "XLand-MiniGrid-R1-11x11",
    "XLand-MiniGrid-R1-13x13",
    "XLand-MiniGrid-R1-15x15",
    "XLand-MiniGrid-R1-17x17",
    "XLand-MiniGrid-R1-9x9",
    "XLand-MiniGrid-R2-11x11",
    "XLand-MiniGrid-R2-13x13",
    "XLand-MiniGrid-R2-15x15",
    "XLand-MiniGrid-R2-17x17",
    "XLand-MiniGrid-R2-9x9",
    "XLand-MiniGrid-R4-11x11",
    "XLand-MiniGrid-R4-13x13",
    "XLand-MiniGrid-R4-15x15",
    "XLand-MiniGrid-R4-17x17",
    "XLand-MiniGrid-R4-9x9",
    "XLand-MiniGrid-R6-13x13",
    "XLand-MiniGrid-R6-17x17",
    "XLand-MiniGrid-R6-19x19",
    "XLand-MiniGrid-R9-16x16",
    "XLand-MiniGrid-R9-19x19",
    "XLand-MiniGrid-R9-25x25",
)
SIZES = ("height", "width", "view_size")
MENDS = (
    "The end at the goal and the end at the clock are told apart, and both are said where both are "
    "true; the key that xminigrid leaves in its state is taken out. XLand ids have no goal before "
    "they are given a `ruleset`."
)
DOWNLOADS: dict[str, str] = {}
LANGUAGE = False


class XMiniGrid(Environment):
    """An environment of xminigrid, with the arrays of a ruleset (XLand's) as leaves.

    The clock is xminigrid's: it counts in the state, and a goal pays less the later it is reached.
    """

    game: Any = static(None)  # xminigrid's environment object
    params: Any = None

    @property
    def max_steps(self) -> int:
        """The step on which an episode is truncated."""
        return self.params.max_steps

    @property
    def observation_space(self) -> Box:
        constants = package("xminigrid", "xminigrid.core.constants")
        shape = self.game.observation_shape(self.params)
        high = np.asarray([constants.NUM_TILES - 1, constants.NUM_COLORS - 1], np.uint8)
        return Box(np.zeros(shape, np.uint8), np.broadcast_to(high, shape), shape, np.uint8)

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.game.num_actions(self.params))

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        first = self.game.reset(self.params, key)
        return strong(first.state.replace(key=None)), timestep(first.observation)

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, TimeStep]:
        del key  # nothing is random after a reset
        types = package("xminigrid", "xminigrid.types")
        now = types.TimeStep(state, types.StepType.MID, jnp.float32(0), jnp.float32(1), None)
        then = self.game.step(self.params, now, action)
        truncated = then.state.step_num >= self.params.max_steps
        ts = timestep(then.observation, then.reward, then.discount == 0, truncated)
        return like(then.state, state), ts

    def frames(self, states: Any) -> list[np.ndarray]:
        return pictures.of_xminigrid(self.params, states)


def ids() -> tuple[str, ...]:
    return NAMES


def make(name: str, *, max_steps: Any = 0, **fields: Any) -> XMiniGrid:
    """xminigrid's `name` with another height, width or view_size; of XLand's also a `ruleset`.

    `max_steps` is xminigrid's own: 0 keeps what it takes for that size, None stops the clock.
    """
    game, params, given = _game(name)
    known = {size: Field(getattr(params, size), int, structural=True) for size in SIZES}
    if hasattr(params, "ruleset"):
        known["ruleset"] = Field(params.ruleset, None)
    known["max_steps"] = Field(params.max_steps, int, structural=True)  # its rewards divide by it
    if max_steps is None or type(max_steps) is not int or max_steps > 0:
        fields["max_steps"] = LARGEST if max_steps is None else max_steps
    fields = check_fields(f"xminigrid/{name}", fields, known)
    for size in set(SIZES) & set(fields):
        if fields[size] < 3 or (size == "view_size" and fields[size] % 2 == 0):
            raise ValueError(
                f"xminigrid/{name}: {size}={fields[size]} must be at least 3, and a view_size odd; "
                f"try {known[size].default}."
            )
    return XMiniGrid(game, game.default_params(**given | fields))


@functools.cache  # equal structure is one object, so that jit does not compile again
def _game(name: str) -> tuple[Any, Any, dict[str, Any]]:
    """xminigrid's environment object, its parameters, and those that the id stands for."""
    game, params = package("xminigrid", "xminigrid").make(name)
    row = package("xminigrid", "xminigrid.registration")._REGISTRY[name]
    return game, params, row.kwargs

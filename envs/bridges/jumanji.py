"""Jumanji's environments (arXiv:2306.09884) behind our contract.

Conformance: tests/test_envs_suites.py.
"""

import copy
import functools
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, static, timestep
from jaxrl.envs.bridges import pictures
from jaxrl.envs.bridges.avals import like, strong
from jaxrl.envs.bridges.packages import package
from jaxrl.envs.fields import KINDS, LARGEST, Field, check_fields, check_max_steps
from jaxrl.spaces import LEGAL, Box, Discrete, MultiDiscrete, Space
from jaxrl.wrappers import TimeLimit

NAMES = (  # what jumanji 1.1.2 registers
    "BinPack-v2",
    "CVRP-v1",
    "Cleaner-v0",
    "Connector-v3",
    "FlatPack-v0",
    "Game2048-v1",
    "GraphColoring-v1",
    "JobShop-v0",
    "Knapsack-v1",
    "LevelBasedForaging-v0",
    "MMST-v0",
    "Maze-v0",
    "Minesweeper-v0",
    "MultiCVRP-v0",
    "PacMan-v1",
    "RobotWarehouse-v0",
    "RubiksCube-partly-scrambled-v0",
    "RubiksCube-v0",
    "SearchAndRescue-v0",
    "SlidingTilePuzzle-v0",
    "Snake-v1",
    "Sokoban-v0",
    "Sudoku-v0",
    "Sudoku-very-easy-v0",
    "TSP-v1",
    "Tetris-v0",
)
MASK, CLOCK = "action_mask", "time_limit"  # `legal` and `max_steps` here
COUNTS = ("step_count", "step")  # the observation's entries that count up to the clock
MENDS = (
    "Jumanji ends an episode at its clock as if the task were over: here that is truncation, by a "
    "`TimeLimit`, and both flags are set where both hold. Its `action_mask` is `legal` here; where "
    "it is over pairs or triples of choices these become one choice. A team's rewards are added up."
)
DOWNLOADS = {"Sokoban-v0": "the Boxoban levels"}
LANGUAGE = False


class Jumanji(Environment):
    """An environment of Jumanji; its state is Jumanji's own without the key."""

    game: Any = static(None)  # Jumanji's environment object, with a clock that never runs out
    clock: int = static(LARGEST)  # the largest count of steps that is shown

    @property
    def observation_space(self) -> Space:
        return _spaces(self.game, self.clock)[0]

    @property
    def action_space(self) -> Space:
        return _spaces(self.game, self.clock)[1]

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        state, first = self.game.reset(key)
        ts = timestep(self._observe(first.observation), metrics=first.extras)
        return strong(state.replace(key=None)), ts

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, TimeStep]:
        stepped, then = self.game.step(state.replace(key=key), self._act(action))
        obs, reward = self._observe(then.observation), jnp.sum(then.reward)
        ts = timestep(obs, reward, then.last(), metrics=then.extras)
        return like(stepped.replace(key=None), state), ts

    def _act(self, action: jax.Array) -> jax.Array:
        """The action in Jumanji's form."""
        spec = self.game.action_spec
        if isinstance(self.action_space, Discrete) and spec.shape:
            sizes = tuple((np.asarray(spec.maximum) + 1).tolist())
            action = jnp.stack(jnp.unravel_index(action, sizes))
        return action.astype(spec.dtype)

    def _observe(self, obs: Any) -> Any:
        shown = _as_dict(obs, self.game.observation_spec, self.observation_space)
        if LEGAL in self.observation_space:
            mask = getattr(obs, MASK)
            each = -1 if isinstance(self.action_space, MultiDiscrete) else None
            # After an end nothing may be legal.
            shown[LEGAL] = jnp.where(mask.any(each, keepdims=True), mask, True).reshape(-1)
        return shown

    def frames(self, states: Any) -> list[np.ndarray]:
        return pictures.of_jumanji(self.game, states)


def ids() -> tuple[str, ...]:
    return NAMES


def make(name: str, *, max_steps: Any = 0, **fields: Any) -> Environment:
    """Jumanji's `name` with fields of its constructor, inside a time limit where it has one.

    `max_steps` is its `time_limit`: 0 keeps Jumanji's, None leaves it out.
    """
    id = f"jumanji/{name}"
    own = _own(name)
    fields = check_fields(id, fields, _known(own))
    for field, value in fields.items():
        if type(value) is int and value < 1:  # the size of something
            default = _known(own)[field].default
            raise ValueError(f"{id}: {field}={value} must be at least 1; try {default}.")
    clock = getattr(own, CLOCK, None)
    max_steps = clock if type(max_steps) is int and max_steps == 0 else max_steps
    check_max_steps(id, max_steps)
    if clock is not None and type(max_steps) is int:
        fields[CLOCK] = max_steps
    env = Jumanji(_endless(_own(name, *sorted(fields.items()))), fields.get(CLOCK, LARGEST))
    return env if max_steps is None else TimeLimit(env, max_steps)


def _known(game: Any) -> dict[str, Field]:
    """The parameters of the constructor but the clock, and their defaults."""
    parameters = inspect.signature(type(game)).parameters.values()
    kinds = {p.name: type(p.default) if type(p.default) in KINDS else None for p in parameters}
    known = {p.name: Field(p.default, kinds[p.name], False, structural=True) for p in parameters}
    return {k: v for k, v in known.items() if k not in (CLOCK, "viewer")}


@functools.cache  # equal structure is one object, so that jit does not compile again
def _own(name: str, *options: tuple[str, Any]) -> Any:
    """Jumanji's environment object."""
    try:
        return package("jumanji", "jumanji").make(name, **dict(options))
    except OSError as error:
        raise OSError(f"jumanji/{name} could not download its data ({error}).") from error


@functools.cache
def _endless(game: Any) -> Any:
    """The object with another clock, which its `step` compares with; shapes stay the first one's.

    So what its `step` calls the last step is the end of the task.
    """
    if not hasattr(game, CLOCK):
        return game
    endless = copy.copy(game)
    endless.time_limit = LARGEST
    if type(game).__name__ == "SearchAndRescue":  # its rewards shrink on the way to the clock
        own = game._reward_fn
        endless._reward_fn = lambda found, step, _: own(found, step, game.time_limit)
    return endless


@functools.cache
def _spaces(game: Any, clock: int) -> tuple[Space, Space]:
    """The spaces of observations and actions.

    A mask with an entry for each combination of the choices makes these one choice.
    """
    observation, mask = _space(game.observation_spec, clock), None
    if MASK in game.observation_spec._specs:
        mask = game.observation_spec[MASK].shape
        observation[LEGAL] = Box(False, True, (math.prod(mask),), np.bool_)
    spec = game.action_spec
    if jnp.issubdtype(spec.dtype, jnp.floating):
        return observation, Box(np.asarray(spec.minimum), np.asarray(spec.maximum), spec.shape)
    sizes = tuple(np.atleast_1d(np.asarray(spec.maximum) + 1).tolist())
    if mask == sizes or not spec.shape:
        return observation, Discrete(math.prod(sizes))
    return observation, MultiDiscrete(sizes if mask is None else (mask[1],) * mask[0])


def _space(spec: Any, clock: int, name: str = "") -> Space:
    """Our form of a specification: dicts of Boxes and choices."""
    if spec._specs:
        parts = {k: v for k, v in spec._specs.items() if k != MASK}
        return {k: _space(v, clock, k) for k, v in parts.items()}
    if name in COUNTS:
        return Box(0, clock, spec.shape, spec.dtype)
    if type(spec).__name__ == "DiscreteArray":
        return Discrete(spec.num_values)
    if type(spec).__name__ == "BoundedArray":
        return Box(np.asarray(spec.minimum), np.asarray(spec.maximum), spec.shape, spec.dtype)
    is_float = jnp.issubdtype(spec.dtype, jnp.floating)
    low, high = (-np.inf, np.inf) if is_float else (-LARGEST, LARGEST)
    return Box(low, high, spec.shape, spec.dtype)


def _as_dict(obs: Any, spec: Any, space: Any) -> Any:
    """An observation as dicts of arrays in the dtypes of their spaces."""
    if not spec._specs:
        return jnp.asarray(obs, space.dtype)
    return {
        name: _as_dict(getattr(obs, name), part, space[name])
        for name, part in spec._specs.items()
        if name != MASK
    }

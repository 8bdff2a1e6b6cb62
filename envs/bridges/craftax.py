"""Craftax's environments (arXiv:2402.16801) behind our contract.

Conformance: tests/test_envs_suites.py. Only the raw `reset_env` and `step_env` are called.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, static, timestep
from jaxrl.envs.bridges import pictures
from jaxrl.envs.bridges.avals import like, strong
from jaxrl.envs.bridges.packages import package
from jaxrl.envs.fields import KINDS, LARGEST, Field, check_fields
from jaxrl.spaces import Box, Discrete

NAMES = (  # what craftax 1.6.1 has
    "Craftax-Classic-Pixels-v1",
    "Craftax-Classic-Symbolic-v1",
    "Craftax-Pixels-v1",
    "Craftax-Symbolic-v1",
)
CLOCK = "max_timesteps"  # `max_steps` here
MENDS = (
    "Craftax says one `done`: here an episode that reaches the clock alive is truncated, and "
    "death, lava or the boss's end terminates it. The metric `achievements` counts what was "
    "unlocked."
)
DOWNLOADS: dict[str, str] = {}
LANGUAGE = False


class Craftax(Environment):
    """A Craftax world; the numbers of `params` are leaves, so they vmap and randomise.

    The clock is Craftax's: it counts in the state, where it makes day and night.
    """

    game: Any = static(None)  # Craftax's environment object
    params: Any = None

    @property
    def max_steps(self) -> jax.Array | int:
        """The step on which an episode is truncated."""
        return getattr(self.params, CLOCK)

    @property
    def observation_space(self) -> Box:
        space = self.game.observation_space(self.params)
        return Box(space.low, space.high, space.shape)

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.game.num_actions)

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        obs, state = self.game.reset_env(key, self.params)
        return strong(_keyless(state)), timestep(obs, metrics=_metrics(state))

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, TimeStep]:
        # The barrier keeps XLA from fusing a world's long step into each of its readers.
        obs, stepped, reward, *_ = jax.lax.optimization_barrier(
            self.game.step_env(key, state, action, self.params)
        )
        endless = self.params.replace(**{CLOCK: LARGEST})
        terminated = self.game.is_terminal(stepped, endless)
        truncated = stepped.timestep >= self.max_steps
        ts = timestep(obs, reward, terminated, truncated, _metrics(stepped))
        return like(_keyless(stepped), state), ts

    def frames(self, states: Any) -> list[np.ndarray]:
        return pictures.of_craftax(self.game, states)


def ids() -> tuple[str, ...]:
    return NAMES


def make(name: str, *, max_steps: Any = 0, **fields: Any) -> Craftax:
    """Craftax's `name` with fields: of its static parameters (structure) or the others (numbers).

    `max_steps` is its `max_timesteps`: 0 keeps Craftax's, None stops the clock. `map_size` is the
    side of a world.
    """
    game = _game(name)
    params, structure = game.default_params, vars(game.static_env_params)
    structure = structure | {"map_size": structure["map_size"][0]}
    numbers = {k: v for k, v in vars(params).items() if type(v) in KINDS and k != CLOCK}
    known = {
        field: Field(default, type(default), structural=structural)
        for given, structural in ((structure, True), (numbers, False))
        for field, default in given.items()
    }
    fields = check_fields(f"craftax/{name}", fields, known)
    chosen = [(k, fields.pop(k)) for k in sorted(structure) if k in fields]
    for field, value in chosen:
        least = 16 if field == "map_size" else 1  # the noise of a world's heights has 16 cells
        if value < least:
            raise ValueError(
                f"craftax/{name}: {field}={value} must be at least {least}; try {structure[field]}."
            )
    if max_steps is None or not isinstance(max_steps, int) or max_steps > 0:
        fields[CLOCK] = LARGEST if max_steps is None else max_steps
    return Craftax(_game(name, *chosen), params.replace(**fields))


def _keyless(state: Any) -> Any:
    """The state without the key that it was rendered with."""
    return state.replace(state_rng=None)


def _metrics(state: Any) -> dict[str, jax.Array]:
    return {"achievements": jnp.sum(state.achievements)}


@functools.cache  # equal structure is one object, so that jit does not compile again
def _game(name: str, *structure: tuple[str, Any]) -> Any:
    """Craftax's environment object."""
    game = package("craftax", "craftax.craftax_env").make_craftax_env_from_name(name, False)
    if not structure:
        return game
    chosen: dict[str, Any] = dict(structure)
    if "map_size" in chosen:
        chosen["map_size"] = (chosen["map_size"],) * 2
    return type(game)(dataclasses.replace(game.static_env_params, **chosen))

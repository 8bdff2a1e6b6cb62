"""brax's environments (arXiv:2106.13281) behind our contract.

Conformance: tests/test_envs_suites.py. Only the raw environment's `reset` and `step` are called:
brax's `done` is our `terminated`, and its time limit of 1,000 steps, which lives in a wrapper
there, is our `TimeLimit`.
"""

import functools
import inspect
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, static, timestep
from jaxrl.envs.bridges import pictures, robots
from jaxrl.envs.bridges.avals import like, strong
from jaxrl.envs.bridges.packages import package
from jaxrl.envs.fields import KINDS, Field, check_fields, check_max_steps
from jaxrl.spaces import Box
from jaxrl.wrappers import TimeLimit

NAMES = (  # what brax 0.14.2 registers
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)
BACKENDS = ("generalized", "positional", "spring", "mjx")
MAX_STEPS = 1000  # of brax's own training
MENDS = (
    "brax's `done` is `terminated`, and its wrapper's time limit is a `TimeLimit` here, so the "
    "value of a state at the limit is kept."
)
DOWNLOADS: dict[str, str] = {}
LANGUAGE = False
ARRAYS = robots.ARRAYS | {  # brax keeps some of MuJoCo's beside them in a form of its own
    "mass": (*robots.ARRAYS["mass"], "link.inertia.mass", "link.inertia.i"),
    "damping": (*robots.ARRAYS["damping"], "dof.damping"),
    "motor_strength": (
        *robots.ARRAYS["motor_strength"],
        *("actuator.gain", "actuator.bias_q", "actuator.bias_qd"),
    ),
    "gravity": (*robots.ARRAYS["gravity"], "gravity"),
}


class Brax(robots.Robot):
    """A brax environment; its state is brax's own, whose dictionaries are copied at each step."""

    game: Any = static(None)  # brax's environment object

    @property
    def observation_space(self) -> Box:
        return Box(-jnp.inf, jnp.inf, _observed(self.game))

    @property
    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (self.game.action_size,))

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        state = strong(self._game.reset(key))
        return state, timestep(state.obs)

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, TimeStep]:
        del key  # nothing is random after a reset
        own = state.replace(info=dict(state.info), metrics=dict(state.metrics))
        stepped = like(self._game.step(own, action), state)
        return stepped, timestep(stepped.obs, stepped.reward, stepped.done > 0.5)

    @property
    def _game(self) -> Any:
        return self.scaled(self.game, "sys", ARRAYS)

    def frames(self, states: Any) -> list[np.ndarray]:
        return pictures.of_brax(self.game, states)


def ids() -> tuple[str, ...]:
    return NAMES


def make(name: str, *, max_steps: Any = MAX_STEPS, **fields: Any) -> Environment:
    """brax's `name` inside a time limit, with fields of its constructor; `backend` is its physics.

    `max_steps=None` leaves the time limit out. Its physics' factors are a `robots.Robot`'s.
    """
    id = f"brax/{name}"
    check_max_steps(id, max_steps)
    fields = check_fields(id, fields, _known(name) | robots.FIELDS)
    factors = {factor: fields.pop(factor) for factor in robots.FIELDS if factor in fields}
    backend = fields.get("backend", BACKENDS[0])
    if backend not in BACKENDS:
        raise ValueError(f"{id}: backend={backend!r} is not one of {', '.join(BACKENDS)}.")
    chosen = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in sorted(fields.items()))
    env = Brax(game=_game(name, *chosen), **factors)
    return env if max_steps is None else TimeLimit(env, max_steps)


def _known(name: str) -> dict[str, Field]:
    """The parameters of the constructor, and their defaults."""
    parameters = inspect.signature(_suite()._envs[name]).parameters.values()
    named = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    kinds = {p.name: type(p.default) if type(p.default) in KINDS else None for p in named}
    return {p.name: Field(p.default, kinds[p.name], False, structural=True) for p in named}


@functools.cache
def _observed(game: Any) -> tuple[int, ...]:
    """The shape of an observation, by tracing: brax itself would play a reset to know it."""
    return jax.eval_shape(game.reset, jax.random.key(0)).obs.shape


@functools.cache  # equal structure is one object, so that jit does not compile again
def _game(name: str, *options: tuple[str, Any]) -> Any:
    """brax's environment object."""
    with warnings.catch_warnings(action="ignore"):  # that brax is old: who asks for it knows
        return _suite().get_environment(name, **dict(options))


def _suite() -> Any:
    """The module `brax.envs`."""
    return package("brax", "brax.envs")

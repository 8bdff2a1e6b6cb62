"""gymnax 1.0's environments behind our contract; conformance: tests/test_envs_gymnax.py.

Only `reset_env` and `step_env` are called: gymnax's own `step` resets, here that is the loop's.
"""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, static, timestep
from jaxrl.envs.bridges.avals import like, strong
from jaxrl.envs.drawn import minatar
from jaxrl.envs.fields import KINDS, Field, check_fields
from jaxrl.spaces import Box, Discrete, Space, is_space

NAMES = (  # what gymnax 1.0.1 registers
    "Acrobot-v1",
    "Asterix-MinAtar",
    "BernoulliBandit-misc",
    "Breakout-MinAtar",
    "CartPole-v1",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "DiscountingChain-bsuite",
    "FourRooms-misc",
    "Freeway-MinAtar",
    "FrozenLake-misc",
    "GaussianBandit-misc",
    "MNISTBandit-bsuite",
    "MemoryChain-bsuite",
    "MetaMaze-misc",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "PointRobot-misc",
    "Pong-misc",
    "Reacher-misc",
    "Seaquest-MinAtar",
    "SimpleBandit-bsuite",
    "SpaceInvaders-MinAtar",
    "Swimmer-misc",
    "UmbrellaChain-bsuite",
)
MINATAR_ACTIONS = ("stay", "left", "up", "right", "down", "fire")
CLOCK = "max_steps_in_episode"  # `max_steps` here
MENDS = (
    "`step_env` and `reset_env` are called, never `step`, which computes a reset at every step; "
    "dtypes, weak types and bounds that gymnax does not keep are put right."
)
DOWNLOADS = {"MNISTBandit-bsuite": "MNIST"}
LANGUAGE = False
UNBOUNDED = (  # their observations leave the bounds that gymnax declares
    "GaussianBandit-misc",  # a negative reward, a time from -1
    "MemoryChain-bsuite",  # a time that rounds to -1.5e-8
    "MetaMaze-misc",  # a reward of 10
    "UmbrellaChain-bsuite",  # a time that rounds to -1.5e-8
)


class Gymnax(Environment):
    """A gymnax environment; the numbers of `params` are leaves, so they vmap and randomise.

    The clock is gymnax's: it counts in the state and `params.max_steps_in_episode` truncates.
    """

    game: Any = static(None)  # gymnax's environment object
    params: Any = None
    spaces: Any = static(None)  # of observations and actions: hashable leaves and their treedef

    @property
    def observation_space(self) -> Space:
        return self._spaces()[0]

    @property
    def action_space(self) -> Space:
        return self._spaces()[1]

    @property
    def action_names(self) -> tuple[str, ...]:
        if ".minatar." not in type(self.game).__module__:
            return ()
        return tuple(MINATAR_ACTIONS[i] for i in np.asarray(self.game.action_set))

    @property
    def max_steps(self) -> jax.Array | int:
        """The step on which gymnax truncates an episode."""
        return self.params.max_steps_in_episode

    def _spaces(self) -> tuple[Space, Space]:
        leaves, treedef = self.spaces
        return treedef.unflatten(leaves)

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        obs, state = self.game.reset_env(key, self.params)
        return strong(state), timestep(self._observe(obs))

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        # The barrier keeps XLA from fusing a game's long step into each of its readers and
        # computing it again there: on a CPU that made Breakout several times slower.
        obs, stepped, reward, terminated, _ = jax.lax.optimization_barrier(
            self.game.step_env(key, state, action, self.params)
        )
        truncated = self.game.is_truncated(stepped, self.params)
        stepped = like(stepped, state)
        return stepped, timestep(self._observe(obs), reward, terminated, truncated)

    def render(self, state: Any) -> jax.Array:
        if self.game.name not in minatar.LOOKS:
            raise ValueError(f"{self.game.name} draws no pictures; try a game of MinAtar.")
        return minatar.board(self.game.name, self.game.get_obs(state, self.params))

    def _observe(self, obs: Any) -> Any:
        """The observation in the dtypes of its space, which gymnax does not always keep."""
        space = self.observation_space
        return jax.tree.map(lambda s, x: jnp.asarray(x, s.dtype), space, obs, is_leaf=is_space)


def ids() -> tuple[str, ...]:
    return NAMES


def make(name: str, *, max_steps: Any = 0, **fields: Any) -> Gymnax:
    """gymnax's `name` with fields: of its constructor (structure) or its params (numbers).

    `max_steps` is params' `max_steps_in_episode`: 0 keeps gymnax's, None stops the clock.
    """
    options = _options(name)
    numbers = dict(vars(_game(name).default_params))
    numbers["max_steps"] = numbers.pop(CLOCK)
    known = {
        field: Field(default, type(default) if type(default) in KINDS else None, False, structural)
        for given, structural in ((options, True), (numbers, False))
        for field, default in given.items()
    }
    fields = check_fields(f"gymnax/{name}", fields, known)
    chosen = [(k, _hashable(fields.pop(k))) for k in sorted(options) if k in fields]
    game = _game(name, *chosen)
    params = game.default_params.replace(**fields)
    if max_steps is None:
        params = params.replace(**{CLOCK: np.iinfo(np.int32).max})
    elif not isinstance(max_steps, int) or max_steps > 0:
        params = params.replace(**{CLOCK: max_steps})
    observation, action = game.observation_space(params), game.action_space(params)
    spaces = (_observation_space(name, observation), _convert(action))
    leaves, treedef = jax.tree.flatten(spaces, is_leaf=is_space)
    return Gymnax(game, params, (tuple(leaves), treedef))


@functools.cache  # equal structure is one object, so that jit does not compile again
def _game(name: str, *options: tuple[str, Any]) -> Any:
    """gymnax's environment object."""
    try:
        import gymnax
    except ImportError as error:
        raise ImportError(
            f"gymnax/{name} needs gymnax: pip install 'jaxrl[gymnax]' ({error})."
        ) from error
    try:
        return gymnax.make(name, **dict(options))[0]
    except OSError as error:
        raise OSError(f"gymnax/{name} could not download its data ({error}).") from error


def _options(name: str) -> dict[str, Any]:
    """The constructor's parameters and their defaults."""
    parameters = inspect.signature(type(_game(name))).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _observation_space(name: str, space: Any) -> Space:
    """Bits for MinAtar's pixels, and bounds that hold."""
    if name.endswith("-MinAtar"):
        return Box(False, True, space.shape, np.bool_)
    if name in UNBOUNDED:
        return Box(-np.inf, np.inf, space.shape)
    return _convert(space)


def _convert(space: Any) -> Space:
    """Our form of a gymnax space; its largest floats stand for infinity."""
    kind = type(space).__name__
    if kind == "Discrete":
        return Discrete(space.n)
    if kind == "Dict":
        return {k: _convert(v) for k, v in space.spaces.items()}
    if kind == "Tuple":
        return tuple(_convert(v) for v in space.spaces)
    low, high = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
    largest = np.finfo(np.float32).max
    low, high = np.where(low <= -largest, -np.inf, low), np.where(high >= largest, np.inf, high)
    return Box(low, high, space.shape, np.dtype(space.dtype))

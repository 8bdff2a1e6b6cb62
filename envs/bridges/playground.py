"""MuJoCo Playground's environments (arXiv:2502.08844) on MJX, behind our contract.

Only the raw environment's `reset` and `step` are called, with the physics in JAX. Conformance:
tests/test_envs_playground.py.
"""

import functools
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, TimeStep, static, timestep
from jaxrl.envs.bridges import pictures, robots
from jaxrl.envs.bridges.avals import like, strong
from jaxrl.envs.fields import KINDS, Field, check_fields, check_max_steps
from jaxrl.spaces import Box
from jaxrl.wrappers import TimeLimit, tree_where

CONTROL = (  # what playground 0.2.0 has of dm_control's suite
    "AcrobotSwingup",
    "AcrobotSwingupSparse",
    "BallInCup",
    "CartpoleBalance",
    "CartpoleBalanceSparse",
    "CartpoleSwingup",
    "CartpoleSwingupSparse",
    "CheetahRun",
    "FingerSpin",
    "FingerTurnEasy",
    "FingerTurnHard",
    "FishSwim",
    "HopperHop",
    "HopperStand",
    "HumanoidRun",
    "HumanoidStand",
    "HumanoidWalk",
    "PendulumSwingup",
    "PointMass",
    "ReacherEasy",
    "ReacherHard",
    "SwimmerSwimmer6",
    "WalkerRun",
    "WalkerStand",
    "WalkerWalk",
)
ROBOTS = (  # and of locomotion and manipulation
    "AeroCubeRotateZAxis",
    "AlohaHandOver",
    "AlohaSinglePegInsertion",
    "ApolloJoystickFlatTerrain",
    "BarkourJoystick",
    "BerkeleyHumanoidJoystickFlatTerrain",
    "BerkeleyHumanoidJoystickRoughTerrain",
    "G1JoystickFlatTerrain",
    "G1JoystickRoughTerrain",
    "Go1Footstand",
    "Go1Getup",
    "Go1Handstand",
    "Go1JoystickFlatTerrain",
    "Go1JoystickRoughTerrain",
    "H1InplaceGaitTracking",
    "H1JoystickGaitTracking",
    "LeapCubeReorient",
    "LeapCubeRotateZAxis",
    "Op3Joystick",
    "PandaOpenCabinet",
    "PandaPickCube",
    "PandaPickCubeCartesian",
    "PandaPickCubeOrientation",
    "PandaRobotiqPushCube",
    "SpotFlatTerrainJoystick",
    "SpotGetup",
    "SpotJoystickGaitTracking",
    "T1JoystickFlatTerrain",
    "T1JoystickRoughTerrain",
)
NAMES = tuple(sorted(CONTROL + ROBOTS))
DOWNLOADS = dict.fromkeys(ROBOTS, "mujoco_menagerie with git")
LANGUAGE = False
MENDS = (
    "The time limit is counted here and truncates; the old state's dictionaries, which the suite's "
    "step changes, stay as they were; an episode whose physics diverge ends with finite numbers; "
    "of several observations the policy's is shown; the physics is JAX's, Warp being the default."
)
OURS = ("impl", "episode_length", "vision")  # of its config: fixed here, and our `max_steps`


class Playground(robots.Robot):
    """A raw environment of the suite, whose state is the suite's own.

    An action is applied `action_repeat` times, or until the episode ends, and the rewards summed.
    """

    game: Any = static(None)  # the suite's environment object
    size: int = static(0)  # of an observation
    action_repeat: int = static(1)

    @property
    def observation_space(self) -> Box:
        return Box(-jnp.inf, jnp.inf, (self.size,))

    @property
    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (self.game.action_size,))

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        # The suite keeps a key in its state: as plain numbers it is saved like the rest.
        state = strong(self._game.reset(jax.random.key_data(key)))
        return state, timestep(_seen(state.obs))

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, TimeStep]:
        del key  # what is random after a reset is drawn from the state's own
        stepped = self._once(state, action)
        reward = stepped.reward
        for _ in range(1, self.action_repeat):
            over, after = stepped.done > 0.5, self._once(stepped, action)
            reward += jnp.where(over, 0.0, after.reward)
            stepped = tree_where(over, stepped, after)
        obs, reward = jax.tree.map(jnp.nan_to_num, (_seen(stepped.obs), reward))
        return stepped, timestep(obs, reward, stepped.done > 0.5)

    def _once(self, state: Any, action: jax.Array) -> Any:
        own = state.replace(info=dict(state.info), metrics=dict(state.metrics))
        return like(self._game.step(own, action), state)

    @property
    def _game(self) -> Any:
        return self.scaled(self.game, "_mjx_model", robots.ARRAYS)

    def frames(self, states: Any) -> list[np.ndarray]:
        return pictures.of_playground(self.game, states)


def _seen(obs: Any) -> jax.Array:
    """What a policy sees; what only a critic of the suite's own training sees is left out."""
    return obs["state"] if isinstance(obs, Mapping) else obs


def ids() -> tuple[str, ...]:
    return NAMES


def make(name: str, *, max_steps: Any = 0, **fields: Any) -> Environment:
    """The suite's `name` inside a time limit, with fields of its config, such as `ctrl_dt`.

    `max_steps` 0 is the limit of its config (`episode_length` over `action_repeat`), None is none.
    Its physics' factors are a `robots.Robot`'s.
    """
    id = f"playground/{name}"
    config = _suite(name).get_default_config(name)
    fields = check_fields(id, fields, dict(_numbers(config)) | robots.FIELDS)
    factors = {factor: fields.pop(factor) for factor in robots.FIELDS if factor in fields}
    repeat = fields.get("action_repeat", config.action_repeat)
    if repeat < 1:
        raise ValueError(f"{id}: action_repeat={repeat} must be at least 1; try 1.")
    limit = -(-config.episode_length // repeat)
    max_steps = limit if isinstance(max_steps, int) and max_steps == 0 else max_steps
    check_max_steps(id, max_steps)
    game, size = _game(name, *sorted(fields.items()))
    env = Playground(game=game, size=size, action_repeat=repeat, **factors)
    return env if max_steps is None else TimeLimit(env, max_steps)


def _numbers(config: Any, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """The numbers of a config; those of its parts have names such as `reward_config.scales.pose`.

    They shape the program: the suite reads them in Python.
    """
    for name, value in config.items():
        if isinstance(value, Mapping | type(config)) and not name.startswith("vision"):
            yield from _numbers(value, f"{prefix}{name}.")
        elif type(value) in KINDS and prefix + name not in OURS:
            yield prefix + name, Field(value, type(value), structural=True)


@functools.cache  # equal structure is one object, so that jit does not compile again
def _game(name: str, *fields: tuple[str, Any]) -> tuple[Any, int]:
    """The suite's environment object, and the size of its observation."""
    try:
        game = _suite(name).load(name, config_overrides={**dict(fields), "impl": "jax"})
    except (OSError, subprocess.CalledProcessError) as error:
        text = f"playground/{name} could not download mujoco_menagerie with git ({error})."
        raise OSError(text) from error
    state = jax.eval_shape(game.reset, jax.ShapeDtypeStruct((2,), jnp.uint32))
    return game, _seen(state.obs).shape[0]


def _suite(name: str) -> Any:
    """The module `mujoco_playground.registry`."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what it imports
            from mujoco_playground import registry
    except ImportError as error:
        text = f"playground/{name} needs playground: pip install 'jaxrl[playground]' ({error})."
        raise ImportError(text) from error
    return registry

"""Physics of a simulated robot as fields: factors on the arrays of its model.

Each is a number of the environment like any other: given, vmapped over, swept or drawn at every
reset. None leaves the model as it is, and the program without a multiplication.
"""

import copy
from typing import Any

import jax.numpy as jnp

from jaxrl.env import Environment, check_numbers
from jaxrl.envs.fields import Field

# MuJoCo's names (mjModel). What its compiler derives from masses for constraints stays.
ARRAYS: dict[str, tuple[str, ...]] = {
    "mass": ("body_mass", "body_inertia", "body_subtreemass"),
    "friction": ("geom_friction",),
    "damping": ("dof_damping",),
    "motor_strength": ("actuator_gainprm", "actuator_biasprm"),
    "gravity": ("opt.gravity",),
}
RANGES: dict[str, tuple[float, float]] = {
    "mass": (1e-3, 1e3),
    "friction": (0, 1e3),
    "damping": (0, 1e3),
    "motor_strength": (0, 1e3),
    "gravity": (-1e3, 1e3),
}
FIELDS = {name: Field(None, float, optional=True) for name in ARRAYS}


class Robot(Environment):
    """Factors of what the model says of the robot and the world, all parts of it alike."""

    mass: float | None = None  # of every body, its inertia too
    friction: float | None = None  # of every contact
    damping: float | None = None  # of every joint
    motor_strength: float | None = None  # of the force that a motor exerts
    gravity: float | None = None

    def __post_init__(self):
        check_numbers(self, **{k: x for k, x in RANGES.items() if getattr(self, k) is not None})

    def scaled(self, game: Any, attribute: str, arrays: dict[str, tuple[str, ...]]) -> Any:
        """The suite's environment with another model in `attribute`; the same where all is off."""
        given = {name: x for name in ARRAYS if (x := getattr(self, name)) is not None}
        if not given:
            return game
        model, scaled = getattr(game, attribute), copy.copy(game)
        changes = {
            path: _at(model, path) * jnp.asarray(factor, jnp.float32)
            for name, factor in given.items()
            for path in arrays[name]
        }
        setattr(scaled, attribute, model.tree_replace(changes))
        return scaled


def _at(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = getattr(model, name)
    return model

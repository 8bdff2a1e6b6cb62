"""Checks of what a user asked for: the fields of an environment and its time limit."""

import dataclasses
import difflib
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from types import NoneType
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxrl.envs.outside import unwrapped

KINDS: dict[
    type, tuple[tuple[str, ...], str]
] = {  # type of a field -> (numpy kinds of the values it takes, their name)
    bool: (("b",), "True or False"),
    int: (("i", "u"), "an integer"),
    float: (("i", "u", "f"), "a number"),
}
Arrays = np.ndarray | jax.Array
LARGEST = 2**31 - 1  # that an int32 holds


@dataclasses.dataclass(frozen=True)
class Field:
    """What a field takes."""

    default: Any
    kind: type | None  # bool, int or float; None: anything
    optional: bool = False  # None too
    structural: bool = False  # a plain number, no array


def fields_of(constructor: Callable[..., Any]) -> dict[str, Field]:
    """The fields of an Environment class, or of a function; of a partial, with its defaults.

    A field's kind is its default's; the annotation's where that is `float | None`.
    """
    inner = unwrapped(constructor)
    try:
        hints = typing.get_type_hints(inner)
    except NameError:  # an annotation that names what is local to a function
        hints = {}
    of_class = dataclasses.fields(inner) if dataclasses.is_dataclass(inner) else ()
    structure = {f.name for f in of_class if not f.metadata.get("pytree_node", True)}
    found = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        types = typing.get_args(hints.get(name))
        optional = NoneType in types
        kinds = types if optional else (type(parameter.default),)
        kind = next((kind for kind in KINDS if kind in kinds), None)
        found[name] = Field(parameter.default, kind, optional, name in structure)
    return found


def near(name: str, known: Collection[str]) -> str:
    """The known names most like `name`, as text."""
    folded = {k.lower(): k for k in sorted(known)}
    matches = [k for k in folded if name.lower() in k][:4]
    matches = matches or difflib.get_close_matches(name.lower(), folded, n=4, cutoff=0.5)
    return ", ".join(folded[m] for m in matches) or "none"


def check_fields(id: str, given: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """`given`, checked against the field of the same name; integers become floats where it is.

    A number may be an array, as `jax.vmap` runs over environments with different numbers; a
    structural one may not.
    """
    for name in given:
        if name not in fields:
            known = ", ".join(fields) or "none"
            raise ValueError(
                f"{id} has no field {name!r}; near: {near(name, fields)}; its fields: {known}."
            )
    for name, field in fields.items():
        if field.default is inspect.Parameter.empty and name not in given:
            raise ValueError(f"{id} needs a value for {name}, which has no default.")
    return {name: _check(f"{id}: {name}", value, fields[name]) for name, value in given.items()}


def _check(what: str, value: Any, field: Field) -> Any:
    if value is None and field.optional:
        return None
    kinds, wanted = KINDS[field.kind] if field.kind else ((), "")
    wanted += " or None" if field.optional else ""
    if field.structural and isinstance(value, Arrays) and kinds:
        raise ValueError(f"{what} is structure: not an array but {wanted}; try {field.default}.")
    if isinstance(value, jax.core.Tracer):
        return value
    if _kind(value) == "f" and np.any(np.isnan(np.asarray(value, np.float64))):
        raise ValueError(f"{what}={value} is not a number; try {field.default}.")
    if kinds and _kind(value) not in kinds:
        raise ValueError(f"{what}={value!r} must be {wanted}; try {field.default}.")
    if not field.kind or isinstance(value, Arrays):
        return value
    kind: Any = field.kind
    number = kind(value)
    if kind is int and abs(number) > LARGEST:
        raise ValueError(f"{what}={value} is too large for an int32; try {field.default}.")
    return number


def check_finite(id: str, given: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Numbers are those of a float32, infinite only where the default is.

    For an environment that has been made: its own ranges say more.
    """
    for name, value in given.items():
        if _kind(value) != "f" or isinstance(value, jax.core.Tracer):
            continue
        x, default = np.abs(np.asarray(value, np.float64)), fields[name].default
        unbounded = isinstance(default, float) and np.isinf(default)
        if not np.all((x <= np.finfo(np.float32).max) | (np.isinf(x) & unbounded)):
            raise ValueError(
                f"{id}: {name}={value} must be a finite number in 32 bits; try {default}."
            )


def _kind(value: Any) -> str:
    """numpy's letter for numbers (b, i, u or f), "" for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return "i"  # of any size
    if not isinstance(value, Arrays | np.generic | bool | float):
        return ""
    dtype = jnp.result_type(value)
    return "f" if jnp.issubdtype(dtype, jnp.floating) else dtype.kind


def check_max_steps(id: str, max_steps: Any) -> None:
    """A time limit is None or an integer >= 1, or an array of them."""
    if max_steps is None or isinstance(max_steps, jax.core.Tracer):
        return
    steps = np.asarray(max_steps)
    if _kind(max_steps) not in ("i", "u") or np.any((steps < 1) | (steps > LARGEST)):
        raise ValueError(
            f"{id}: max_steps={max_steps!r} must be an integer >= 1 or None, and fit an int32; "
            "try 100."
        )

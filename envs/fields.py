"""Checks of what a user asked for: the fields of an environment and its time limit."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

KINDS = {  # type of a field's default -> (numpy kinds of the values it takes, their name)
    bool: (("b",), "True or False"),
    int: (("i", "u"), "an integer"),
    float: (("i", "u", "f"), "a number"),
}
Arrays = np.ndarray | jax.Array


def near(name: str, known: Collection[str]) -> str:
    """The known names most like `name`, as text."""
    folded = {k.lower(): k for k in sorted(known)}
    matches = [k for k in folded if name.lower() in k][:4]
    matches = matches or difflib.get_close_matches(name.lower(), folded, n=4, cutoff=0.5)
    return ", ".join(folded[m] for m in matches) or "none"


def check_fields(
    id: str,
    fields: Mapping[str, Any],
    defaults: Mapping[str, Any],
    structure: Collection[str] = (),
) -> dict[str, Any]:
    """`fields`, checked against the default of the same name; integers become floats where it is.

    A number may be an array, as `jax.vmap` runs over environments with different numbers; a field
    of `structure` may not.
    """
    for name in fields:
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ValueError(
                f"{id} has no field {name!r}; near: {near(name, defaults)}; its fields: {known}."
            )
    return {
        name: _check(f"{id}: {name}", value, defaults[name], name in structure)
        for name, value in fields.items()
    }


def _check(what: str, value: Any, default: Any, structural: bool) -> Any:
    kinds, wanted = KINDS.get(type(default), (None, None))
    if structural and isinstance(value, Arrays) and kinds:
        raise ValueError(f"{what} is structure: not an array but {wanted}; try {default}.")
    if isinstance(value, jax.core.Tracer):
        return value
    if _kind(value) == "f" and np.any(np.isnan(np.asarray(value, np.float64))):
        raise ValueError(f"{what}={value} is not a number; try {default}.")
    if kinds and _kind(value) not in kinds:
        raise ValueError(f"{what}={value!r} must be {wanted}; try {default}.")
    if not kinds or isinstance(value, Arrays):
        return value
    return type(default)(value)


def _kind(value: Any) -> str:
    """numpy's letter for numbers (b, i, u or f), "" for anything else."""
    if not isinstance(value, Arrays | np.generic | bool | int | float):
        return ""
    dtype = jnp.result_type(value)
    return "f" if jnp.issubdtype(dtype, jnp.floating) else dtype.kind


def check_max_steps(id: str, max_steps: Any) -> None:
    """A time limit is None or an integer >= 1, or an array of them."""
    if max_steps is None or isinstance(max_steps, jax.core.Tracer):
        return
    if _kind(max_steps) not in ("i", "u") or np.any(np.asarray(max_steps) < 1):
        raise ValueError(f"{id}: max_steps={max_steps!r} must be an integer >= 1 or None; try 100.")

"""Options of an algorithm as a pytree, and checks of what a user typed.

Every check names the field, its value, the rule and a value that works.
"""

import dataclasses
import typing
from typing import Any, Literal, TypeVar

import jax
import jax.core
import numpy as np

C = TypeVar("C")


@typing.dataclass_transform(frozen_default=True)
def pytree_dataclass(cls: type[C]) -> type[C]:
    """A frozen dataclass whose floats are leaves and whose other fields are structure.

    The rule of the environments: a number can be vmapped, traced and swept over without another
    program; integers, choices and sizes shape the program. A field `float | None` switches a part
    of the program off with None. Integers and choices are checked here, for the command line is
    not the only way in; `__post_init__` checks the rest of what a user typed. Traced numbers pass.
    """
    own_checks = cls.__dict__.get("__post_init__")

    def check(self):
        _check_structure(self)
        if own_checks is not None:
            own_checks(self)
        elif (inherited := getattr(super(cls, self), "__post_init__", None)) is not None:
            inherited()

    cls.__post_init__ = check  # pyright: ignore
    dataclasses.dataclass(frozen=True)(cls)
    hints = typing.get_type_hints(cls)
    fields: Any = dataclasses.fields(cls)  # pyright: ignore
    names = [f.name for f in fields if float in (hints[f.name], *typing.get_args(hints[f.name]))]
    structure = [f.name for f in fields if f.name not in names]

    def flatten_with_keys(cfg):
        children = [(jax.tree_util.GetAttrKey(n), getattr(cfg, n)) for n in names]
        return children, tuple(getattr(cfg, n) for n in structure)

    def flatten(cfg):
        return [getattr(cfg, n) for n in names], tuple(getattr(cfg, n) for n in structure)

    def unflatten(aux, children):
        return unchecked(cls, dict(zip((*names, *structure), (*children, *aux), strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _check_structure(cfg: Any) -> None:
    """ValueError for an integer that is none, or a choice that there is not."""
    hints = typing.get_type_hints(type(cfg))
    for f in dataclasses.fields(cfg):
        value, hint = getattr(cfg, f.name), hints[f.name]
        if hint is int and (not isinstance(value, int | np.integer) or isinstance(value, bool)):
            raise ValueError(f"{f.name}={value!r} must be an integer; try {f.default}.")
        if hint is float and not (is_known(value) or isinstance(value, jax.Array)):
            raise ValueError(f"{f.name}={value!r} must be a number; try {f.default}.")
        if typing.get_origin(hint) is Literal and value not in typing.get_args(hint):
            known = ", ".join(map(str, typing.get_args(hint)))
            raise ValueError(f"{f.name}={value!r} is none of {known}; try {f.default}.")


def unchecked(cls: type[C], values: dict[str, Any]) -> C:
    """A dataclass of these fields as they are, without its `__post_init__`."""
    cfg = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(cfg, name, value)
    return cfg


def with_values(cfg: C, **changes: Any) -> C:
    """The same options with other numbers, which may be traced: without the checks."""
    fields: Any = dataclasses.fields(cfg)  # pyright: ignore
    kept = {f.name: getattr(cfg, f.name) for f in fields}
    assert changes.keys() <= kept.keys(), sorted(changes.keys() - kept.keys())
    return unchecked(type(cfg), kept | changes)


def is_known(value: Any) -> bool:
    """Whether it is a number, or an array of them, that can be looked at now."""
    if isinstance(value, jax.Array):
        return not isinstance(value, jax.core.Tracer) and value.is_fully_addressable
    return isinstance(value, int | float | np.ndarray | np.generic)


def check_positive(field: str, value: Any, example: Any) -> None:
    """value > 0 and finite; None, where a field may be off, passes, and so does a traced number."""
    if is_known(value) and not (np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0)):
        raise ValueError(f"{field}={value} must be a finite number above 0; try {example}.")


def check_range(field: str, value: Any, low: float, high: float, example: Any) -> None:
    """low <= value <= high (so not NaN), and finite; None and traced numbers pass."""
    if not is_known(value):
        return
    x = np.asarray(value)
    if not np.all((low <= x) & (x <= high) & np.isfinite(x)):
        raise ValueError(f"{field}={value} must lie in [{low}, {high}]; try {example}.")


def check_divides(field: str, value: int, whole_name: str, whole: int) -> None:
    """value >= 1 and value divides whole."""
    if value < 1 or whole % value:
        raise ValueError(
            f"{field}={value} does not divide {whole_name}={whole}; "
            f"try {_near_divisors(value, whole)}."
        )


def _near_divisors(value: int, whole: int) -> str:
    divisors = [d for d in range(1, min(whole, 4096) + 1) if whole % d == 0]
    below = [d for d in divisors if d < value][-1:]
    above = [d for d in divisors if d > value][:1]
    return " or ".join(str(d) for d in below + above)

"""Options of an algorithm as a pytree, and checks of what a user typed.

Every check names the field, its value, the rule and a value that works.
"""

import dataclasses
import math
import typing
from typing import Any, TypeVar

import jax

C = TypeVar("C")


@typing.dataclass_transform(frozen_default=True)
def pytree_dataclass(cls: type[C]) -> type[C]:
    """A frozen dataclass whose floats are leaves and whose other fields are structure.

    The rule of the environments: a number can be vmapped, traced and swept over without another
    program; integers, choices and sizes shape the program. A field `float | None` switches a part
    of the program off with None. `__post_init__` checks what a user typed; leaves that stand for
    traced numbers are not checked again.
    """
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
        return _unchecked(cls, dict(zip((*names, *structure), (*children, *aux), strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _unchecked(cls: type[C], values: dict[str, Any]) -> C:
    cfg = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(cfg, name, value)
    return cfg


def with_values(cfg: C, **changes: Any) -> C:
    """The same options with other numbers, which may be traced: without the checks."""
    fields: Any = dataclasses.fields(cfg)  # pyright: ignore
    kept = {f.name: getattr(cfg, f.name) for f in fields}
    assert changes.keys() <= kept.keys(), sorted(changes.keys() - kept.keys())
    return _unchecked(type(cfg), kept | changes)


def check_positive(field: str, value: float | None, example: Any) -> None:
    """value > 0 and finite; None, where a field may be off, passes."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ValueError(f"{field}={value} must be a finite number above 0; try {example}.")


def check_range(field: str, value: float | None, low: float, high: float, example: Any) -> None:
    """low <= value <= high (so not NaN), and finite; None passes."""
    if value is not None and not (low <= value <= high and math.isfinite(value)):
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

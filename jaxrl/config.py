"""Options of an algorithm as a pytree, and checks of what a user typed.

Every check names the field, its value, the rule and a value that works.
"""

import dataclasses
import types
import typing
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import jax
import jax.core
import numpy as np

C = TypeVar("C")
LARGEST = 2**31 - 1  # that an int32 holds
Count = Annotated[int, "counted on the host"]  # in Python's integers: no array holds it


@typing.dataclass_transform(frozen_default=True)
def pytree_dataclass(cls: type[C]) -> type[C]:
    """A frozen dataclass whose floats are leaves and whose other fields are structure.

    The rule of the environments: a number can be vmapped, traced and swept over without another
    program; integers, choices and sizes shape the program. A field `float | None` switches a part
    of the program off with None. `check_fields` runs first, for the command line is not the only
    way in; `__post_init__` checks the rest of what a user typed. Traced numbers pass.
    """
    own_checks = cls.__dict__.get("__post_init__")

    def check(self):
        check_fields(self, finite=False)  # for the class's own checks say more of a range
        if own_checks is not None:
            own_checks(self)
        elif (inherited := getattr(super(cls, self), "__post_init__", None)) is not None:
            inherited()
        check_fields(self)

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


def check_fields(cfg: Any, *, finite: bool = True) -> None:
    """ValueError for a field of a dataclass that its type does not allow, or 32 bits cannot hold.

    Integers fit an int32 (a `Count` does not have to), with `finite` floats are those of a float32,
    choices are known. Arrays count by their entries; what is traced passes, and so does what is
    neither a number nor a choice.
    """
    hints = _hints(type(cfg))
    for f in dataclasses.fields(cfg):
        example: Any = f.default_factory if callable(f.default_factory) else f.default
        example = example() if callable(example) else example
        example = "another" if example is dataclasses.MISSING else example
        _check_value(f.name, getattr(cfg, f.name), hints[f.name], example, finite)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _check_value(name: str, value: Any, hint: Any, example: Any, finite: bool) -> None:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Count or hint is int:
        _check_integer(name, value, example, bounded=hint is int)
    elif hint is float:
        _check_float(name, value, example, finite)
    elif hint is bool and not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={value!r} must be True or False; try {example}.")
    elif hint is str and not (isinstance(value, str) and "\0" not in value):
        raise ValueError(f"{name}={value!r} must be a text without the character NUL.")
    elif origin is Literal and value not in inner:
        known = ", ".join(map(str, inner))
        raise ValueError(f"{name}={value!r} is none of {known}; try {example}.")
    elif origin in (typing.Union, types.UnionType) and value is not None:
        kind = next(x for x in inner if x is not types.NoneType)
        _check_value(name, value, kind, example, finite)
    elif origin is tuple:
        if not isinstance(value, tuple):
            raise ValueError(f"{name}={value!r} must be a tuple; try {example!r}.")
        for x in value:
            _check_value(name, x, inner[0], example[0] if example else "another", finite)


def _check_integer(name: str, value: Any, example: Any, *, bounded: bool) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be an integer; try {example}.")
    if bounded and abs(int(value)) > LARGEST:
        raise ValueError(f"{name}={value} is too large for an int32; try {example}.")


def _check_float(name: str, value: Any, example: Any, finite: bool) -> None:
    if not (is_known(value) or isinstance(value, jax.Array)):
        raise ValueError(f"{name}={value!r} must be a number; try {example}.")
    if not (finite and is_known(value)):
        return
    x, narrow = np.abs(_real(value)), np.finfo(np.float32)
    fits = np.all((x <= narrow.max) & ((x == 0) | (x >= narrow.tiny)))
    if not fits:
        raise ValueError(f"{name}={value} must be a finite number in 32 bits; try {example}.")


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


def check_size(field: str, value: Any, example: int) -> None:
    """An integer from 1 to what an int32 holds, where no dataclass checks its type."""
    _check_integer(field, value, example, bounded=True)
    if value < 1:
        raise ValueError(f"{field}={value} must be at least 1; try {example}.")


def check_positive(field: str, value: Any, example: Any) -> None:
    """value > 0 and finite; None, where a field may be off, passes, and so does a traced number."""
    if is_known(value) and not np.all(np.isfinite(_real(value)) & (_real(value) > 0)):
        raise ValueError(f"{field}={value} must be a finite number above 0; try {example}.")


def check_range(field: str, value: Any, low: float, high: float, example: Any) -> None:
    """low <= value <= high (so not NaN), and finite; None and traced numbers pass."""
    if not is_known(value):
        return
    x = _real(value)
    if not np.all((low <= x) & (x <= high) & np.isfinite(x)):
        raise ValueError(f"{field}={value} must lie in [{low}, {high}]; try {example}.")


def _real(value: Any) -> np.ndarray:
    """In 64 bits, where an integer of Python's that is too large is infinite."""
    try:
        return np.asarray(value, np.float64)
    except OverflowError:
        return np.asarray(np.inf)


def check_divides(field: str, value: int, whole_name: str, whole: int) -> None:
    """value >= 1 and value divides whole."""
    if value < 1 or whole % value:
        raise ValueError(
            f"{field}={value} does not divide {whole_name}={whole}; "
            f"try {_near_divisors(value, whole)}."
        )


def check_iterations(total_name: str, total: int, rows_name: str, rows: int, few: str) -> None:
    """Rows of an iteration, and iterations, that an int32 can count; `few` is an example."""
    if not 1 <= rows <= LARGEST:
        raise ValueError(f"{rows_name}={rows} must lie in [1, {LARGEST}]; try {few}.")
    if -(-total // rows) > LARGEST:
        raise ValueError(
            f"{total_name}={total} is more than {LARGEST} iterations of {rows_name}={rows}; "
            f"try {LARGEST * rows}."
        )


def _near_divisors(value: int, whole: int) -> str:
    divisors = [d for d in range(1, min(whole, 4096) + 1) if whole % d == 0]
    below = [d for d in divisors if d < value][-1:]
    above = [d for d in divisors if d > value][:1]
    return " or ".join(str(d) for d in below + above)

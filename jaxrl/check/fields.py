"""Checks of an environment's fields and spaces, before anything is traced."""

import dataclasses
import os
import traceback
from collections.abc import Iterator
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment
from jaxrl.spaces import is_space


class EnvCheckError(AssertionError):
    """An environment breaks the contract; the message says what to change."""


def type_name(value: Any) -> str:
    return type(value).__name__


def is_static(field: dataclasses.Field) -> bool:
    return not field.metadata.get("pytree_node", True)


def fields_of(env: Any) -> Iterator[tuple[Environment, dataclasses.Field]]:
    """(owner, field) of an environment and of those it wraps."""
    for field in dataclasses.fields(env):
        yield env, field
        value = getattr(env, field.name)
        if isinstance(value, Environment):
            yield from fields_of(value)


def check_is_environment(env: Any) -> None:
    if not isinstance(env, Environment):
        name = env.__name__ if isinstance(env, type) else type_name(env)
        raise EnvCheckError(
            f"{env!r} is not an Environment; derive the class from jaxrl.env.Environment and pass "
            f"an instance, {name}() and not {name}."
        )
    stored = vars(env).keys() - {f.name for f in dataclasses.fields(env)}
    if stored:
        raise EnvCheckError(
            f"{type_name(env)}.{min(stored)} is set but not declared, so jit and vmap lose it; "
            "declare it as a field, or compute it in a property."
        )


def check_is_pytree(env: Environment) -> None:
    """Fields are numbers or hashable structure, and survive flattening."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(env):
        dtype = leaf.dtype if isinstance(leaf, jax.Array) else np.asarray(leaf).dtype
        if not (jnp.issubdtype(dtype, jnp.bool_) or jnp.issubdtype(dtype, jnp.number)):
            raise EnvCheckError(
                f"{type_name(env)}{jax.tree_util.keystr(path)}={leaf!r} is not a number; declare "
                "that field with `jaxrl.env.static(default)`."
            )
    for owner, field in fields_of(env):
        try:
            hash(getattr(owner, field.name) if is_static(field) else 0)
        except TypeError as error:
            raise EnvCheckError(
                f"{type_name(owner)}.{field.name} is static but cannot be hashed ({error}); make "
                "it a tuple, or drop `static` if it holds numbers."
            ) from error
    leaves, treedef = jax.tree.flatten(env)
    again, again_treedef = jax.tree.flatten(env.replace())
    if again_treedef != treedef or any(a is not b for a, b in zip(again, leaves, strict=True)):
        raise EnvCheckError(
            f"{type_name(env)} changes when it is made again from its own fields: __post_init__ "
            "replaces one; compute it in a property."
        )


def check_can_be_traced(env: Environment) -> None:
    """`replace` and `make` take traced numbers: a curriculum, physics drawn at a reset."""
    owners = {id(owner): owner for owner, _ in fields_of(env)}.values()
    try:
        for owner in owners:
            jax.eval_shape(lambda env: jax.tree.leaves(env.replace()), owner)
    except Exception as error:
        raise EnvCheckError(
            f"{type_name(env)} cannot be made inside jit or vmap{user_line(error)}, where its "
            "numbers are tracers; in __post_init__ use `jaxrl.env.check_numbers`, which lets them "
            "pass, or look at a number only if `jaxrl.env.is_known(number)`."
        ) from error


def check_numbers_are_leaves(env: Environment) -> None:
    """A real number is static only if a space depends on it."""
    for owner, field in fields_of(env):
        value = getattr(owner, field.name)
        number = isinstance(value, float) and is_static(field)
        if number and not _shapes_a_space(owner, field.name):
            raise EnvCheckError(
                f"{type_name(owner)}.{field.name}={value} is a number that no space depends on, "
                f"but static, so it cannot be vmapped or randomised; write `{field.name}: float = "
                f"{value}`, or `float | None` where None is to switch it off."
            )


def _shapes_a_space(env: Environment, name: str) -> bool:
    other = env.replace(**{name: 1.5 * getattr(env, name) + 0.25})
    return (env.observation_space, env.action_space) != (
        other.observation_space,
        other.action_space,
    )


def check_spaces(env: Environment) -> None:
    """Both are made of Discrete, MultiDiscrete and Box, and need no traced number."""
    for name in ("observation_space", "action_space"):
        leaves = jax.tree.leaves(getattr(env, name), is_leaf=is_space)
        wrong = [leaf for leaf in leaves if not is_space(leaf)]
        if wrong or not leaves:
            raise EnvCheckError(
                f"{type_name(env)}.{name} holds {wrong[0] if wrong else 'nothing'!r}, which is not "
                "a space; make it a property that returns a Discrete, a MultiDiscrete, a Box, or a "
                "dict or tuple of them."
            )
        try:
            jax.eval_shape(lambda env, name=name: (getattr(env, name), 0)[1], env)
        except Exception as error:
            raise EnvCheckError(
                f"{type_name(env)}.{name} cannot be made inside jit{user_line(error)}: it reads a "
                "field that is a number there. Declare that field with `jaxrl.env.static(default)`."
            ) from error


def user_line(error: BaseException) -> str:
    """Where the user's code failed, as far as the traceback tells."""
    frames = traceback.extract_tb(error.__traceback__)
    not_theirs = tuple(
        os.path.dirname(str(file)) + os.sep for file in (jax.__file__, flax.__file__, __file__)
    )
    standard = os.path.dirname(dataclasses.__file__)
    ours = [
        f
        for f in frames
        if not f.filename.startswith(not_theirs)
        and (not f.filename.startswith(standard) or "site-packages" in f.filename)
    ]
    return f" ({ours[-1].filename}:{ours[-1].lineno}: `{ours[-1].line}`)" if ours else ""

"""Checks of the shapes and dtypes that an environment returns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.check.fields import EnvCheckError
from jaxrl.check.trace import Trace, trace
from jaxrl.env import Environment
from jaxrl.spaces import Space, by_leaf, is_space


def named_leaves(tree: Any, name: str) -> dict[str, Any]:
    """Leaves, or spaces, by path: `state.x`, `obs['board']`."""
    flat = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_space)
    return {name + jax.tree_util.keystr(path): leaf for path, leaf in flat}


def aval_str(leaf: Any) -> str:
    """`float32[4]`, with `weak` where a Python number set the dtype."""
    weak = " weak" if getattr(leaf, "weak_type", False) else ""
    return f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]{weak}"


def check_reward_and_flags(traced: Trace) -> None:
    """reward is float32 [], the flags are bool [], none of them weakly typed."""
    for name, wanted in (("reward", "float32"), ("terminated", "bool"), ("truncated", "bool")):
        leaves = jax.tree.leaves(getattr(traced.out[1], name))
        found = aval_str(leaves[0]) if len(leaves) == 1 else f"{len(leaves)} arrays"
        if found != f"{wanted}[]":
            raise EnvCheckError(
                f"{traced.name}: {name} is {found} and must be {wanted}[]; make the TimeStep with "
                f"`jaxrl.env.timestep`, or write jnp.asarray({name}, '{wanted}')."
            )


def check_metrics(reset: Trace, step: Trace) -> None:
    """A flat dict of scalars, with the same names in reset and step."""
    for traced in (reset, step):
        metrics = traced.out[1].metrics
        if not isinstance(metrics, dict):
            raise EnvCheckError(f"{traced.name}: metrics must be a dict of scalars; return {{}}.")
        for name, value in metrics.items():
            if jax.tree.structure(value) != jax.tree.structure(0) or value.shape != ():
                raise EnvCheckError(
                    f"{traced.name}: metrics[{name!r}] must be one scalar; reduce it, with "
                    "jnp.mean for example, or give its parts names of their own."
                )
    missing = reset.out[1].metrics.keys() ^ step.out[1].metrics.keys()
    if missing:
        raise EnvCheckError(
            f"{step.name} and {reset.name} must report the same metrics, but only one of them has "
            f"{sorted(missing)}; give the other a value too, 0.0 for example."
        )


def check_no_float64(name: str, returned: tuple[Any, Any]) -> None:
    """Of avals or values: jit would make float32 of a numpy default and hide it."""
    leaves = named_leaves(returned[0], "state") | named_leaves(returned[1], "timestep")
    for path, leaf in leaves.items():
        if getattr(leaf, "dtype", None) == np.float64:
            raise EnvCheckError(
                f"{name}: {path} is float64; use jnp instead of np, or pass dtype=jnp.float32."
            )


def check_obs(traced: Trace, space: Space) -> None:
    """obs and final_obs have the structure, shapes and dtypes of observation_space."""
    spaces, treedef = jax.tree.flatten(by_leaf(space), is_leaf=is_space)
    for field in ("obs", "final_obs"):
        obs = getattr(traced.out[1], field)
        if jax.tree.structure(obs) != treedef:
            raise EnvCheckError(
                f"{traced.name}: {field} has the structure {jax.tree.structure(obs)} and "
                f"observation_space has {treedef}; make them the same."
            )
        for (path, leaf), wanted in zip(named_leaves(obs, field).items(), spaces, strict=True):
            if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
                raise EnvCheckError(
                    f"{traced.name}: {path} is {aval_str(leaf)} and observation_space says "
                    f"{aval_str(wanted)}; change the one that is wrong."
                )


def check_stable(reset: Trace, step: Trace) -> None:
    """step returns what reset returns, leaf by leaf, so that a scan can carry it."""
    for part, name in enumerate(("state", "timestep")):
        before, after = (named_leaves(t.out[part], name) for t in (reset, step))
        for path in sorted(before.keys() | after.keys()):
            a, b = (aval_str(d[path]) if path in d else "missing" for d in (before, after))
            if a != b:
                raise EnvCheckError(
                    f"{path} is {a} in {reset.name} and {b} in {step.name}; {_mend(path, a, b)}."
                )
        trees = [jax.tree.structure(t.out[part]) for t in (reset, step)]
        if trees[0] != trees[1]:
            raise EnvCheckError(
                f"{name} is {trees[0]} in {reset.name} and {trees[1]} in {step.name}; return the "
                "same type with the same static fields."
            )


def check_numbers_may_be_arrays(
    env: Environment, reset: Trace, step: Trace, args: tuple[Any, ...]
) -> None:
    """A run stacks the fields that are numbers into arrays: no dtype may change by that."""
    strong = jax.tree.map(_strong, env)
    for traced, name, given in ((reset, "reset", args[-1:]), (step, "step", args)):
        out = trace(strong, name, *given).out
        for part, label in enumerate(("state", "timestep")):
            numbers, arrays = (named_leaves(o[part], label) for o in (traced.out, out))
            for path, leaf in arrays.items():
                a, b = aval_str(numbers[path]), aval_str(leaf)
                if a != b:
                    raise EnvCheckError(
                        f"{traced.name}: {path} is {a} where fields are Python numbers and {b} "
                        f"where they are arrays; {_mend(path, a, b)}."
                    )


def _strong(leaf: Any) -> jax.Array:
    """As an array: int32, float32 or bool where it was a Python number."""
    kinds = {bool: jnp.bool_, int: jnp.int32, float: jnp.float32}
    return jnp.asarray(leaf, kinds.get(type(leaf)))


def _mend(path: str, a: str, b: str) -> str:
    leaf = path.split(".")[-1]
    if "missing" in (a, b):
        return "return the same fields from both"
    if a.removesuffix(" weak") == b.removesuffix(" weak"):
        dtype = a.split("[")[0]
        return f"write jnp.asarray({leaf}, jnp.{dtype}) where it is weak, not a Python number"
    if a.split("[")[0] == b.split("[")[0]:
        return "keep its shape fixed: pad it, or update it with .at[].set()"
    return f"cast it in step with .astype('{a.split('[')[0]}'), or start it with the other dtype"

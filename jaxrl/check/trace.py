"""Checks of an environment's traced programs: what they call, which keys they use."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.check.cost import equations
from jaxrl.check.fields import EnvCheckError, type_name, user_line
from jaxrl.env import Environment, TimeStep


class Trace(NamedTuple):
    """One function of the environment, traced: its program and what it returns."""

    name: str  # CartPole.step
    jaxpr: Any
    out: Any  # pytree of ShapeDtypeStruct


def trace(env: Environment, name: str, *args: Any) -> Trace:
    """Traces `env.reset` or `env.step` with every field of the environment traced too."""
    label = f"{type_name(env)}.{name}"

    def call(env, *args):  # a new function each time, which jax has not traced before
        return getattr(env, name)(*args)

    try:
        jaxpr, out = jax.make_jaxpr(call, return_shape=True)(env, *args)
    except Exception as error:
        hint = "mend that line so that it also runs under jit"
        if isinstance(error, TypeError | IndexError) and "racer" in str(error):
            hint = (
                "Python or numpy met a number that is known only when the program runs; use "
                "jnp.where for `if` and jnp for np, and declare a field that sets a size or "
                "chooses code with `jaxrl.env.static(default)`"
            )
        first_line = str(error).strip().split("\n")[0]
        raise EnvCheckError(
            f"{label} cannot be traced{user_line(error)}: {type_name(error)}: {first_line} -- "
            f"{hint}."
        ) from error
    if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], TimeStep)):
        raise EnvCheckError(
            f"{label} returns a {type_name(out)}; return (state, TimeStep), where "
            "`jaxrl.env.timestep(obs, reward, terminated)` makes the second."
        )
    return Trace(label, jaxpr, out)


def check_traces_agree(first: Trace, second: Trace) -> None:
    """Tracing twice gives one program: nothing in it comes from Python's own state."""
    a, b = (re.sub(r"0x[0-9a-f]+", "", str(t.jaxpr)).splitlines() for t in (first, second))
    consts = zip(first.jaxpr.consts, second.jaxpr.consts, strict=False)
    if a == b and all(_bits(x) == _bits(y) for x, y in consts):
        return
    changed = [f"{x.strip()} and then {y.strip()}" for x, y in zip(a, b, strict=False) if x != y]
    raise EnvCheckError(
        f"{first.name} gives another program when it is traced again "
        f"({changed[0] if changed else 'other lines or constants'}): it reads or changes something "
        "outside its arguments, such as a counter, np.random or the time. Keep what changes in the "
        "state and draw random numbers from `key`."
    )


def _bits(constant: Any) -> bytes:
    data = jax.random.key_data(constant) if _is_key(constant) else constant
    return np.asarray(data).tobytes()


def _is_key(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def check_no_callbacks(traced: Trace) -> None:
    for eqn in equations(traced.jaxpr):
        name = eqn.primitive.name
        if "callback" in name or name in ("debug_print", "infeed", "outfeed"):
            raise EnvCheckError(
                f"{traced.name} calls back to Python ({name}), which stops the device at every "
                "step; compute it with jnp, remove jax.debug.print, and report through "
                "TimeStep.metrics."
            )


def check_has_no_key(traced: Trace) -> None:
    made = any(eqn.primitive.name == "random_seed" for eqn in equations(traced.jaxpr))
    if made or any(_is_key(constant) for constant in traced.jaxpr.consts):
        raise EnvCheckError(
            f"{traced.name} has a key of its own, so it draws the same numbers every time; use "
            "the `key` it is given."
        )


def check_no_key_in_state(traced: Trace) -> None:
    """Neither a typed key nor the bits of one."""
    raw = {
        id(v) for e in traced.jaxpr.eqns if e.primitive.name == "random_unwrap" for v in e.outvars
    }
    leaves = jax.tree_util.tree_leaves_with_path(traced.out[0])
    # The first outputs of the program are the leaves of the state, in this order.
    outvars = traced.jaxpr.jaxpr.outvars if hasattr(traced.jaxpr, "jaxpr") else traced.jaxpr.outvars
    for (path, leaf), var in zip(leaves, outvars, strict=False):
        words = leaf.dtype == np.uint32 and leaf.shape[-1:] == (2,)
        named = re.search(r"\b(key|rng|prng)s?\b", jax.tree_util.keystr(path))
        if _is_key(leaf) or (words and (named or id(var) in raw)):
            raise EnvCheckError(
                f"{traced.name} keeps a key in the state (state{jax.tree_util.keystr(path)}); "
                "remove it and use the `key` that reset and step are given."
            )


def check_keys_are_used_once(env: Environment, name: str, *args: Any) -> None:
    try:
        with jax.debug_key_reuse(True):
            jax.eval_shape(lambda env, *args: getattr(env, name)(*args), env, *args)
    except jax.errors.KeyReuseError as error:
        raise EnvCheckError(
            f"{type_name(env)}.{name} uses a key twice{user_line(error)}, so two of its random "
            "draws are the same or related; write `a_key, b_key = jax.random.split(key)` and use "
            "each once, and not `key` again."
        ) from error

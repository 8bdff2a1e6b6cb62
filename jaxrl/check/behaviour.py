"""Checks that run the environment: purity, jit, vmap and fresh resets."""

from typing import Any

import jax
import numpy as np

from jaxrl import spaces
from jaxrl.check.avals import check_no_float64, named_leaves
from jaxrl.check.fields import EnvCheckError, type_name
from jaxrl.env import Environment

NUM_RESETS = 256  # a reset with one fair coin in it gives all the same once in 2^255 times


def call_reset(env: Environment, key: jax.Array) -> Any:
    return env.reset(key)


def call_step(env: Environment, state: Any, action: Any, key: jax.Array) -> Any:
    return env.step(state, action, key)


def many_resets(env: Environment, key: jax.Array) -> Any:
    """(state, TimeStep) of NUM_RESETS keys."""
    keys = jax.random.split(key, NUM_RESETS)
    return jax.jit(jax.vmap(call_reset, (None, 0)))(env, keys)


def check_reset_flags(env: Environment, ts: Any) -> None:
    """A reset is not an end and pays nothing. ts: [NUM_RESETS]."""
    for name in ("reward", "terminated", "truncated"):
        if np.any(getattr(ts, name)):
            raise EnvCheckError(
                f"{type_name(env)}.reset: {name} is {np.max(getattr(ts, name))} and must be "
                f"{'0' if name == 'reward' else 'False'}; return `jaxrl.env.timestep(obs)`, and "
                "start only episodes that are not over."
            )


def check_is_pure(env: Environment, reset_key: jax.Array, step_key: jax.Array) -> None:
    """Outside jit: the same arguments give the same results, and are left as they were."""
    action = spaces.sample(env.action_space, step_key)
    fields = _copy(env)
    start = env.reset(reset_key)
    check_no_float64(f"{type_name(env)}.reset", start)
    before = _copy(start)
    after = env.step(start[0], action, step_key)
    check_no_float64(f"{type_name(env)}.step", after)
    first = _copy(after)
    env.step(after[0], action, reset_key)
    for kept, now, what in (
        (fields, env, "the environment's fields"),
        (before[0], start[0], "the state it was given"),
    ):
        if found := difference(kept, now, "state"):
            raise EnvCheckError(
                f"{type_name(env)}.step changes {what} ({found}); build new ones, with "
                "state.replace(...) or {**state, ...}, and assign nothing in place."
            )
    for name, kept, again in (
        ("reset", before, env.reset(reset_key)),
        ("step", first, env.step(start[0], action, step_key)),
    ):
        if found := difference(kept, again):
            raise EnvCheckError(
                f"{type_name(env)}.{name} gives another result when called again with the same "
                f"arguments ({found}); it must depend on nothing else."
            )


def check_jit_agrees(env: Environment, reset_key: jax.Array, step_key: jax.Array) -> None:
    """Under jit and outside of it the numbers are the same, but for rounding."""
    action = spaces.sample(env.action_space, step_key)
    start = env.reset(reset_key)
    args = start[0], action, step_key
    for name, eager, compiled in (
        ("reset", start, jax.jit(call_reset)(env, reset_key)),
        ("step", env.step(*args), jax.jit(call_step)(env, *args)),
    ):
        if found := difference(eager, compiled, tolerance=1e-4):
            raise EnvCheckError(
                f"{type_name(env)}.{name} gives another result under jit ({found}); let nothing "
                "depend on whether a value is traced, and compute with jnp, not Python or np."
            )


def check_vmap_agrees(env: Environment, state: Any, key: jax.Array) -> None:
    """A batch of steps under vmap equals the steps one by one. state: [NUM_RESETS]."""
    state = jax.tree.map(lambda x: x[:3], state)
    keys = jax.random.split(key, 3)
    actions = jax.vmap(lambda k: spaces.sample(env.action_space, k))(keys)
    batch = jax.jit(jax.vmap(call_step, (None, 0, 0, 0)))(env, state, actions, keys)
    for i in range(3):
        row, one = jax.tree.map(lambda x, i=i: x[i], (batch, (state, actions, keys)))
        if found := difference(jax.jit(call_step)(env, *one), row, tolerance=1e-4):
            raise EnvCheckError(
                f"{type_name(env)}.step gives another result under vmap ({found}); write it for "
                "one environment, and look at its custom_vmap rules if it has any."
            )


def check_resets_differ(env: Environment, resets: Any) -> bool:
    """Whether resets ignore their key; if they read it, some of many must differ."""
    same = all(np.all(np.asarray(x) == np.asarray(x)[:1]) for x in jax.tree.leaves(resets))
    if same and _reads_key(env):
        raise EnvCheckError(
            f"{type_name(env)}.reset reads its key, yet {NUM_RESETS} keys gave one and the same "
            "state; let the state or obs depend on what is drawn, or write `del key`."
        )
    return same


def _reads_key(env: Environment) -> bool:
    """Whether an output of reset depends on the key; an inner jaxpr counts as one operation."""
    closed = jax.make_jaxpr(lambda key: env.reset(key))(jax.random.key(0))
    jaxpr = getattr(closed, "jaxpr", closed)
    live = {id(v) for v in jaxpr.outvars}
    for eqn in reversed(jaxpr.eqns):
        if any(id(v) in live for v in eqn.outvars):
            live |= {id(v) for v in eqn.invars}
    return id(jaxpr.invars[0]) in live


def _copy(tree: Any) -> Any:
    """The same tree with values that nobody else can change."""
    return jax.tree.map(lambda x: np.array(x), tree)


def difference(before: Any, after: Any, name: str = "", tolerance: float = 0.0) -> str:
    """The first leaf that differs, in words, or "". Without a name: two (state, TimeStep)."""
    if not name:
        parts = zip(("state", "timestep"), before, after, strict=True)
        return next(filter(None, (difference(a, b, n, tolerance) for n, a, b in parts)), "")
    old, new = named_leaves(before, name), named_leaves(after, name)
    if old.keys() != new.keys():
        return f"{min(old.keys() ^ new.keys())} is there only once"
    for path in old:
        a, b = np.asarray(old[path]), np.asarray(new[path])
        rounding = tolerance if np.issubdtype(a.dtype, np.floating) else 0.0
        if not (a.shape == b.shape and np.allclose(a, b, rounding, rounding, equal_nan=True)):
            return f"{path} is {_text(a)} and then {_text(b)}"
    return ""


def _text(value: np.ndarray) -> str:
    return np.array2string(value, precision=6, threshold=6, edgeitems=2).replace("\n", "")

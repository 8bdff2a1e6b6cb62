"""Checks of what an environment shows during random steps."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.check import legal
from jaxrl.check.avals import named_leaves
from jaxrl.check.fields import EnvCheckError, type_name, user_line
from jaxrl.env import Environment, TimeStep
from jaxrl.spaces import Space
from jaxrl.wrappers import tree_where


class Seen(flax.struct.PyTreeNode):
    """What is kept of one step; under scan and vmap each leaf is [T, B]."""

    inside: dict[str, jax.Array]  # bool: this leaf of obs or final_obs lies in its space
    low: dict[str, jax.Array]  # the smallest entry of that leaf
    high: dict[str, jax.Array]
    finite: dict[str, jax.Array]  # bool: this leaf of state or TimeStep has no NaN or infinity
    stuck: jax.Array  # bool: the mask of legal actions allows none
    moved: jax.Array  # bool: final_obs is not obs
    done: jax.Array
    restarted: jax.Array  # bool: the state is that of a reset with this step's key


def random_steps(env: Environment, start: Any, keys: jax.Array) -> tuple[Any, Seen]:
    """Random actions, legal ones, from `start`, (state, obs) [B]: the last of these, and what was
    seen [T, B]. An episode that is over is followed by a fresh one. keys: [T, B, 3]."""
    step = jax.vmap(lambda now, key: _random_step(env, now, *key))
    return jax.lax.scan(step, start, keys)


def _random_step(
    env: Environment, now: Any, action_key: jax.Array, step_key: jax.Array, reset_key: jax.Array
) -> tuple[Any, Seen]:
    state, obs = now
    new, ts = env.step(state, legal.random_action(env, obs, action_key), step_key)
    # An environment that resets itself is likely to do so with its step's key or half of it.
    keys = jnp.stack([reset_key, step_key, *jax.random.split(step_key)])
    starts, first = jax.vmap(env.reset)(keys)
    is_start = jax.vmap(lambda key, start: tree_equal(new, start) & ~tree_equal(state, start))
    restarted = jnp.any(is_start(keys, starts))  # keys: a state may have no leaf to map over
    fresh = jax.tree.map(lambda x: x[0], (starts, first.obs))
    following = tree_where(ts.done, fresh, (new, ts.obs))
    return following, _look(env, new, ts, restarted)


def _look(env: Environment, state: Any, ts: TimeStep, restarted: jax.Array) -> Seen:
    shown = named_leaves(ts.obs, "obs") | named_leaves(ts.final_obs, "final_obs")
    space_of = named_spaces(env)
    checked = named_leaves(state, "state") | named_leaves(ts, "timestep")
    return Seen(
        inside={k: space_of[k].contains(x) for k, x in shown.items()},
        low={k: jnp.min(x) for k, x in shown.items() if x.size},
        high={k: jnp.max(x) for k, x in shown.items() if x.size},
        finite={
            k: jnp.all(jnp.isfinite(x))
            for k, x in checked.items()
            if jnp.issubdtype(x.dtype, jnp.floating)
        },
        stuck=~legal.allows_one(env, ts.obs),
        moved=~tree_equal(ts.obs, ts.final_obs),
        done=ts.done,
        restarted=restarted,
    )


def named_spaces(env: Environment) -> dict[str, Space]:
    """The space of each leaf of obs and final_obs, by path."""
    space = spaces.by_leaf(env.observation_space)
    return {k: s for name in ("obs", "final_obs") for k, s in named_leaves(space, name).items()}


def tree_equal(a: Any, b: Any) -> jax.Array:
    """bool []: every leaf equal."""
    equal = jax.tree.map(lambda x, y: jnp.all(x == y), a, b)
    return jnp.all(jnp.stack([jnp.asarray(True), *jax.tree.leaves(equal)]))


def first_where(flag: Any) -> str:
    """The first step and environment where flag [T, B] is set, or "" if nowhere."""
    where = np.argwhere(np.asarray(flag))
    return f"step {where[0][0] + 1} of environment {where[0][1]}" if len(where) else ""


def check_stays_finite(env: Environment, start: Any, keys: jax.Array, seen: Seen) -> None:
    """start and keys: what the steps began with."""
    for path, finite in seen.finite.items():
        bad = ~np.asarray(finite)
        if when := first_where(bad):
            t, b = np.argwhere(bad)[0]
            here = jax.tree.map(lambda x, b=b: x[b : b + 1], start)
            raise EnvCheckError(
                f"{type_name(env)}: {path} is NaN or infinite after {when} of random actions"
                f"{nan_line(env, here, keys[: t + 1, b : b + 1])}; guard the division, root or "
                "logarithm behind it, or end the episode earlier."
            )


def nan_line(env: Environment, start: Any, keys: jax.Array) -> str:
    """Where the last of these steps of one environment makes its first NaN, "" if it makes none."""
    (state, obs), _ = jax.jit(random_steps)(env, start, keys[:-1])
    state, obs = jax.tree.map(lambda x: x[0], (state, obs))
    action_key, step_key, _ = keys[-1, 0]
    action = legal.random_action(env, obs, action_key)
    try:
        with jax.debug_nans(True), jax.disable_jit():
            env.step(state, action, step_key)
    except FloatingPointError as error:
        return user_line(error)
    return ""


def check_legal_allows_one(env: Environment, first: Any, seen: Seen) -> None:
    """Of the observations of resets, `first` [B], and of steps."""
    at_reset = ~np.asarray(jax.vmap(lambda obs: legal.allows_one(env, obs))(first))
    when = "a reset" if np.any(at_reset) else first_where(seen.stuck)
    if when:
        raise EnvCheckError(
            f"{type_name(env)}: obs['legal'] allows no action after {when}; allow at least one, "
            "also in the last observation of an episode (all of them, for example)."
        )


def check_stays_in_space(env: Environment, seen: Seen) -> None:
    for path, space in named_spaces(env).items():
        outside = ~np.asarray(seen.inside[path])
        if when := first_where(outside):
            t, b = np.argwhere(outside)[0]
            raise EnvCheckError(
                f"{type_name(env)}: {path} has entries from {seen.low[path][t, b]} to "
                f"{seen.high[path][t, b]} after {when} of random actions, outside "
                f"observation_space (from {space.low.min()} to {space.high.max()}); widen the "
                "space, or clip the observation."
            )


def check_does_not_reset_itself(env: Environment, seen: Seen) -> None:
    """Only the loop starts the next episode. A reset with an unlikely key is not found out."""
    if when := first_where(seen.moved):
        raise EnvCheckError(
            f"{type_name(env)}: final_obs is not obs after {when}; return `timestep(obs, ...)` "
            "with where the action led, and leave the next episode to VecEnv."
        )
    done, restarted = np.asarray(seen.done), np.asarray(seen.restarted)
    only_at_the_end = np.any(~done) and not np.any(restarted & ~done)
    if only_at_the_end and (when := first_where(restarted & done)):
        raise EnvCheckError(
            f"{type_name(env)}.step starts a new episode by itself ({when}): the state it returns "
            "is a fresh reset's. Return the last state of the old one; the loop goes on from there."
        )

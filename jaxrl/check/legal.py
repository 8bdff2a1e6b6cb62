"""Checks of the mask of legal actions: the entry `legal` of an observation that is a dict."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.check.fields import EnvCheckError, type_name
from jaxrl.env import Environment
from jaxrl.spaces import Box, Discrete, MultiDiscrete


def has_mask(env: Environment) -> bool:
    return spaces.legal_space(env.observation_space) is not None


def choices(env: Environment) -> tuple[int, ...]:
    """How many actions each choice has; () where actions are not discrete."""
    space = env.action_space
    if isinstance(space, Discrete):
        return (space.n,)
    return tuple(space.nvec) if isinstance(space, MultiDiscrete) else ()


def check_legal_space(env: Environment) -> None:
    """A bool for each action, of a MultiDiscrete one choice after the other."""
    if not has_mask(env):
        return
    size = sum(choices(env))
    found = spaces.legal_space(env.observation_space)
    if not size or found != Box(False, True, (size,), np.bool_):
        rule = f"Box(False, True, ({size},), bool)" if size else "left out"
        raise EnvCheckError(
            f"{type_name(env)}: observation_space['legal'] is the mask of legal actions of "
            f"{env.action_space}, so it must be {rule}, not {found}."
        )


def masks(env: Environment, obs: Any) -> list[jax.Array]:
    """bool [A] of each choice; none where the environment has no mask."""
    if not has_mask(env):
        return []
    ends = list(itertools.accumulate(choices(env)))
    return jnp.split(obs[spaces.LEGAL], ends[:-1])


def allows_one(env: Environment, obs: Any) -> jax.Array:
    """bool []: every choice has a legal action."""
    return jnp.all(jnp.stack([jnp.asarray(True), *(jnp.any(m) for m in masks(env, obs))]))


def random_action(env: Environment, obs: Any, key: jax.Array) -> Any:
    """An action of the space, a legal one where the observation says which are."""
    if not has_mask(env):
        return spaces.sample(env.action_space, key)
    each = masks(env, obs)
    keys = jax.random.split(key, len(each))
    drawn = [
        jax.random.categorical(k, jnp.where(mask, jnp.float32(0), -jnp.inf)).astype(jnp.int32)
        for k, mask in zip(keys, each, strict=True)
    ]
    return drawn[0] if isinstance(env.action_space, Discrete) else jnp.stack(drawn)

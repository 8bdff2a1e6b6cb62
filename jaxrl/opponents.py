"""Who plays the other side of a game: uniform play, a policy of the past, the learner itself.

An opponent is a pytree that is called like a policy, `opponent(obs, key) -> action`, and a field of
the environment: its moves are made inside `step`, its weights are leaves.
"""

from pathlib import Path
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl import networks
from jaxrl.distributions import Categorical
from jaxrl.env import Environment
from jaxrl.policy import Policy, load_policy
from jaxrl.spaces import LEGAL

E = TypeVar("E", bound=Environment)
CHOICES = "random (any legal action alike), self (the learner's own policy) or a run's folder"


class Random(flax.struct.PyTreeNode):
    """Any legal action alike."""

    def __call__(self, obs: Any, key: jax.Array) -> jax.Array:
        legal = obs[LEGAL]
        noise = jax.random.uniform(key, legal.shape[:-1], jnp.float32)
        return Categorical(jnp.zeros(legal.shape, jnp.float32), legal).sample(noise)


class Self(Random):
    """In training the learner's policy of the same iteration (`against`); Random elsewhere."""


def chosen(id: str, given: Any, env: Environment) -> Any:
    """The opponent that was asked for in `env`, whose own opponent is not looked at.

    ValueError where there is none, or for a policy of other spaces or with a memory.
    """
    words = {"random": Random(), "self": Self()}
    if isinstance(given, str) and given in words:
        return words[given]
    if isinstance(given, str | Path):
        try:
            given = load_policy(given)
        except FileNotFoundError as error:
            raise ValueError(f"{id}: opponent={given}: {error} Else it is {CHOICES}.") from None
    elif not callable(given):
        raise ValueError(
            f"{id}: opponent={given!r} must say who plays the others: {CHOICES}; try "
            "opponent=random."
        )
    if isinstance(given, Policy):
        check(id, given, env)
    return given


def check(id: str, policy: Policy, env: Environment) -> None:
    """ValueError for a policy that cannot be an opponent in the environment."""
    if networks.has_memory(policy.network):
        raise ValueError(
            f"{id}: the opponent's network={policy.spec.network} has a memory, which an opponent "
            "has no place for; try one that was trained with --algo.network mlp."
        )
    if not policy.plays(env):
        raise ValueError(
            f"{id}: the opponent was trained for other spaces, {policy.spec.observation_space} and "
            f"{policy.action_space}; give one that was trained in {id}."
        )


def plays_itself(env: Environment) -> bool:
    """Whether the learner's own policy belongs into the environment."""
    return any(map(_is_self, jax.tree.leaves(env, is_leaf=_is_self)))


def against(env: E, policy: Any) -> E:
    """The environment with the policy in the place of every `Self`."""
    return jax.tree.map(lambda x: policy if _is_self(x) else x, env, is_leaf=_is_self)


def _is_self(x: Any) -> bool:
    return isinstance(x, Self)

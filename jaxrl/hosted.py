"""How an algorithm plays and learns where its environments are stepped outside of the program."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax

from jaxrl import actions
from jaxrl.env import Environment, Wrapper
from jaxrl.metrics import Metrics
from jaxrl.rollout import Carry, Decision, Ended, Transition
from jaxrl.wrappers import ScaleAction


class Played(flax.struct.PyTreeNode):
    """A rollout as it comes from the host."""

    steps: Transition  # leaves [T, B, ...]
    ended: Ended
    obs: Any  # leaves [B, ...]: where it ended
    memory: Any  # the same, of a recurrent policy
    cut: jax.Array  # bool [B]: the episode that went on from the last rollout was lost


@dataclass(frozen=True)
class Hosted:
    """The same functions that an iteration in one program is made of, and what lies between them.

    An iteration is `num_rounds` rollouts of `num_steps`, each followed by `learn`.
    """

    num_rounds: int
    num_steps: int
    keys: Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]  # (iteration's key, round) ->
    # keys of a rollout and of what is learned from it
    player: Callable[[Any], Any]  # state -> what acting reads of it
    act: Callable[[Any, Any, Any, Any], tuple[Any, Decision]]  # (player, memory, obs, noise)
    noise: Callable[[jax.Array, tuple[int, ...]], Any]  # of one environment
    learn: Callable[..., tuple[Any, Metrics]]  # (state, played, key, axis): after a rollout
    afresh: Callable[[Any], Any] = lambda state: state  # the state where all environments are new
    memory: Callable[[Any], Any] = lambda state: ()  # that of the policy, leaves [B, ...]


def round_keys(key: jax.Array, num_rounds: int, i: Any) -> tuple[jax.Array, jax.Array]:
    """(rollout's, learning's) of round i of an iteration: those of an off-policy `update`."""
    _, rounds_key = jax.random.split(key)
    play_key, learn_key = jax.random.split(jax.random.split(rounds_key, num_rounds)[i])
    return play_key, learn_key


def carried(state: Any, played: Played) -> Carry:
    """A state's carry after a rollout."""
    return state.carry.replace(obs=played.obs, memory=played.memory)


def to_env(env: Environment, action: Any) -> Any:
    """Actions as drawn, as the environment inside of these wrappers takes them."""
    while isinstance(env, Wrapper):
        if isinstance(env, ScaleAction):
            space = env.env.action_space
            action = actions.to_env(action, space, actions.scaling(space, env.squash))
        env = env.env
    return action

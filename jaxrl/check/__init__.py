"""`check_env`: whether an environment keeps the contract, and what it costs."""

import jax
import numpy as np

from jaxrl import config, memory, spaces
from jaxrl.check import avals, behaviour, cost, fields, legal, rollout, trace
from jaxrl.check.cost import CostCard
from jaxrl.check.fields import EnvCheckError
from jaxrl.env import Environment

__all__ = ["CostCard", "EnvCheckError", "check_env"]


def check_env(
    env: Environment,
    *,
    seed: int = 0,
    num_steps: int = 200,
    num_envs: int = 8,
    verbose: bool = True,
) -> CostCard:
    """Checks everything the trainers rely on, then measures and prints the environment's costs.

    Raises EnvCheckError with what to change in the environment, for the first rule broken.
    """
    for name, value in (("num_steps", num_steps), ("num_envs", num_envs)):
        config.check_size(name, value, 8)
    config.check_range("seed", seed, 0, config.LARGEST, 0)
    size = 3 * 8 * num_steps * num_envs  # of the keys alone
    memory.check_host("num_steps*num_envs", num_steps * num_envs, size)
    # The checks repeat keys on purpose; `check_keys_are_used_once` turns this on for itself.
    with jax.debug_key_reuse(False):
        check_structure(env, seed)
        deterministic = check_behaviour(env, seed, num_steps, num_envs)
        card = cost.measure(env, jax.random.key(seed), deterministic_reset=deterministic)
    if verbose:
        print(card)
    return card


def check_structure(env: Environment, seed: int) -> None:
    """Everything that can be known without running a program."""
    fields.check_is_environment(env)
    fields.check_is_pytree(env)
    fields.check_can_be_traced(env)
    fields.check_spaces(env)
    legal.check_legal_space(env)
    fields.check_numbers_are_leaves(env)
    key = jax.random.key(seed)
    reset, reset_again = (trace.trace(env, "reset", key) for _ in range(2))
    trace.check_no_key_in_state(reset)
    args = reset.out[0], spaces.sample(env.action_space, key), key
    step, step_again = (trace.trace(env, "step", *args) for _ in range(2))
    for traced, again in ((reset, reset_again), (step, step_again)):
        trace.check_traces_agree(traced, again)
        trace.check_no_callbacks(traced)
        trace.check_has_no_key(traced)
        trace.check_no_key_in_state(traced)
        avals.check_reward_and_flags(traced)
        avals.check_no_float64(traced.name, traced.out)
        avals.check_obs(traced, env.observation_space)
    avals.check_metrics(reset, step)
    avals.check_stable(reset, step)
    avals.check_numbers_may_be_arrays(env, reset, step, args)
    trace.check_keys_are_used_once(env, "reset", key)
    trace.check_keys_are_used_once(env, "step", *args)


def check_behaviour(env: Environment, seed: int, num_steps: int, num_envs: int) -> bool:
    """Everything that takes running; returns whether all episodes start in the same state."""
    reset_key, step_key, rollout_key = jax.random.split(jax.random.key(seed), 3)
    resets = behaviour.many_resets(env, reset_key)
    behaviour.check_reset_flags(env, resets[1])
    behaviour.check_is_pure(env, reset_key, step_key)
    behaviour.check_jit_agrees(env, reset_key, step_key)
    behaviour.check_vmap_agrees(env, resets[0], step_key)
    deterministic = behaviour.check_resets_differ(env, resets)
    start = resets[0], resets[1].obs
    start = jax.tree.map(lambda x: x[np.arange(num_envs) % len(x)], start)
    keys = jax.random.split(rollout_key, (num_steps, num_envs, 3))
    _, seen = jax.jit(rollout.random_steps)(env, start, keys)
    rollout.check_stays_finite(env, start, keys, seen)
    rollout.check_stays_in_space(env, seen)
    rollout.check_legal_allows_one(env, resets[1].obs, seen)
    rollout.check_does_not_reset_itself(env, seen)
    return deterministic

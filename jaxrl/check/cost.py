"""What an environment costs: time, memory and operations of one reset and one step."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxrl import spaces
from jaxrl.env import Environment, TimeStep, per_env_keys
from jaxrl.wrappers import tree_where

MIN_S = 0.02  # a timed call runs at least this long


@dataclass(frozen=True)
class CostCard:
    """Costs of one environment, measured on a batch; times are per environment."""

    env: str
    device: str
    batch_size: int
    step_ns: float
    reset_ns: float
    step_ops: int  # equations in the jaxpr; a loop's body counts once
    reset_ops: int
    step_flops: float | None  # as XLA counts them; None where it does not say
    state_bytes: int
    obs_bytes: int
    compile_s: float  # of the two timed programs together
    deterministic_reset: bool  # every episode starts in the same state

    def __str__(self) -> str:
        flops = "" if self.step_flops is None else f", {self.step_flops:.0f} flops"
        note = ", deterministic reset" if self.deterministic_reset else ""
        rows = {
            "step": f"{self.step_ns:>12,.1f} ns     {self.step_ops} ops{flops}",
            "reset": f"{self.reset_ns:>12,.1f} ns     {self.reset_ops} ops{note}",
            "state": f"{self.state_bytes:>12,} bytes",
            "obs": f"{self.obs_bytes:>12,} bytes",
            "compile": f"{self.compile_s:>12.2f} s",
        }
        head = f"{self.env} on {self.device}, per environment of {self.batch_size}"
        return "\n".join([head, *(f"  {name:<8}{row}" for name, row in rows.items())])


def measure(
    env: Environment, key: jax.Array, *, batch_size: int = 1024, deterministic_reset: bool = False
) -> CostCard:
    """Compiles and times resets and steps with random actions; about a second if cheap."""
    first_key, action_key, run_key = jax.random.split(key, 3)
    action = spaces.sample(env.action_space, action_key)
    start, ts = jax.eval_shape(env.reset, first_key)
    batch_size = max(1, min(batch_size, 2**28 // max(1, num_bytes(start))))
    keys = per_env_keys(first_key, jnp.arange(batch_size))
    started = time.perf_counter()
    resets = jax.jit(_resets).lower(env, keys, 1).compile()
    compile_s = time.perf_counter() - started
    first = resets(env, keys, 1)
    actions = jax.vmap(lambda k: spaces.sample(env.action_space, k))(
        per_env_keys(action_key, jnp.arange(batch_size))
    )
    started = time.perf_counter()
    steps = jax.jit(_steps).lower(env, *first, actions, run_key, 1).compile()
    compile_s += time.perf_counter() - started
    flops = (steps.cost_analysis() or {}).get("flops")
    return CostCard(
        env=describe(env),
        device=jax.default_backend(),
        batch_size=batch_size,
        step_ns=_seconds(lambda n: steps(env, *first, actions, run_key, n)) / batch_size * 1e9,
        reset_ns=_seconds(lambda n: resets(env, keys, n)) / batch_size * 1e9,
        step_ops=num_ops(jax.make_jaxpr(env.step)(start, action, run_key)),
        reset_ops=num_ops(jax.make_jaxpr(env.reset)(first_key)),
        step_flops=None if flops is None else flops / batch_size,
        state_bytes=num_bytes(start),
        obs_bytes=num_bytes(ts.obs),
        compile_s=compile_s,
        deterministic_reset=deterministic_reset,
    )


def _resets(env: Environment, keys: jax.Array, n: Any) -> Any:
    """(state, TimeStep) [B] of the last of n rounds of resets, each with other keys."""

    def again(i, carry):
        del carry
        return jax.vmap(lambda key: env.reset(jax.random.fold_in(key, i)))(keys)

    shape = jax.eval_shape(again, 0, None)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    return jax.lax.fori_loop(0, n, again, empty)


def _steps(env: Environment, start: Any, ts: TimeStep, action: Any, key: jax.Array, n: Any) -> Any:
    """(state, TimeStep) [B] after n steps; where an episode ends it starts over from `start`."""
    index = jnp.arange(ts.reward.shape[0])

    def again(i, carry):
        keys = per_env_keys(jax.random.fold_in(key, i), index)
        state, ts = jax.vmap(env.step)(carry[0], action, keys)
        return jax.vmap(tree_where)(ts.done, start, state), ts

    return jax.lax.fori_loop(0, n, again, (start, ts))


def _seconds(call: Callable[[int], Any]) -> float:
    """Of one round: best of 3 calls, each of as many rounds as fill MIN_S."""
    n = 1
    while (elapsed := _elapsed(call, n)) < MIN_S and n < 2**20:
        n *= 4
    return min(elapsed, _elapsed(call, n), _elapsed(call, n)) / n


def _elapsed(call: Callable[[int], Any], n: int) -> float:
    started = time.perf_counter()
    jax.block_until_ready(call(n))
    return time.perf_counter() - started


def describe(env: Environment) -> str:
    """The names of the wrappers and of what they wrap: `TimeLimit(CartPole)`."""
    inner = getattr(env, "env", None)
    name = type(env).__name__
    return f"{name}({describe(inner)})" if isinstance(inner, Environment) else name


def num_bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr and of those inside it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in _inner(eqn):
            yield from equations(inner)


def num_ops(jaxpr: Any) -> int:
    """Equations, without those that only hold another jaxpr."""
    return sum(not _inner(eqn) for eqn in equations(jaxpr))


def _inner(eqn: Any) -> list[Any]:
    return [x for x in jax.tree.leaves(eqn.params, is_leaf=_is_jaxpr) if _is_jaxpr(x)]


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, core.Jaxpr | core.ClosedJaxpr)

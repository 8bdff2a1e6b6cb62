"""The environment contract: a frozen pytree with two pure functions and two spaces."""

import dataclasses
from typing import Any, Self, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import config
from jaxrl.config import is_known
from jaxrl.spaces import Space

State = TypeVar("State")
Metrics = dict[str, jax.Array]


class TimeStep(flax.struct.PyTreeNode):
    """What one reset or step of one environment says.

    `final_obs` is where the action led, before any auto-reset: equal to `obs` except where a loop
    has begun the next episode. `metrics` holds scalars that no algorithm reads.
    """

    obs: Any
    reward: jax.Array  # float32 []
    terminated: jax.Array  # bool []: the task ended; the value of final_obs is 0
    truncated: jax.Array  # bool []: the clock ended it; final_obs keeps its value
    final_obs: Any
    metrics: Metrics

    @property
    def done(self) -> jax.Array:
        """bool []: the episode is over, for either reason."""
        return self.terminated | self.truncated


def timestep(
    obs: Any,
    reward: Any = 0.0,
    terminated: Any = False,
    truncated: Any = False,
    metrics: Metrics | None = None,
) -> TimeStep:
    """A TimeStep of a raw environment, in the contract's dtypes; the defaults are a reset's.

    Of `metrics`, float32 [] each, trainers report the value at an episode's last step: add up in
    the state what is to be counted over an episode.
    """
    return TimeStep(
        obs=obs,
        reward=jnp.asarray(reward, jnp.float32),
        terminated=jnp.asarray(terminated, jnp.bool_),
        truncated=jnp.asarray(truncated, jnp.bool_),
        final_obs=obs,
        metrics={name: jnp.asarray(x, jnp.float32) for name, x in (metrics or {}).items()},
    )


def static(default: Any) -> Any:
    """A field of structure (a size, a flag): part of the compiled program, not a number in it."""
    return flax.struct.field(pytree_node=False, default=default)


def check_numbers(env: Any, **bounds: tuple[float, float]) -> None:
    """ValueError for a field that is not a number from low to high, for `__post_init__`.

    Of an array every entry counts. What is not known yet passes (a tracer), and so does None,
    with which a field `float | None` switches a thing off.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(env)}
    for name, (low, high) in bounds.items():
        value = getattr(env, name)
        if is_known(value) and not np.all((low <= np.asarray(value)) & (np.asarray(value) <= high)):
            shown = " ".join(str(value).split())
            more = f", or a larger max_{name}" if f"max_{name}" in defaults else ""
            raise ValueError(
                f"{name}={shown} must be a number from {low:.10g} to {high:.10g}; "
                f"try {defaults[name]}{more}."
            )


class Environment(flax.struct.PyTreeNode):
    """One environment: pure functions of their arguments, written for one instance.

    Subclasses are frozen dataclasses. A field that is a number is a pytree leaf, so that it can be
    vmapped, traced and randomised; None in a field `float | None` switches a thing off; a field of
    structure is declared with `static`. `__post_init__` checks what a user asks for and is not run
    when jit or vmap put an environment together. The state holds what the Markov process needs and
    nothing else: no key, no clock unless the rules have one.
    Environments never reset or batch themselves: see `jaxrl.wrappers` and `jax.vmap`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        _register(dataclasses.dataclass(frozen=True, **kwargs)(cls))

    def replace(self, **changes: Any) -> Self:
        """The same environment with other values in some fields."""
        return dataclasses.replace(self, **changes)

    @property
    def observation_space(self) -> Space:
        raise NotImplementedError(f"{type(self).__name__} must define observation_space")

    @property
    def action_space(self) -> Space:
        raise NotImplementedError(f"{type(self).__name__} must define action_space")

    @property
    def action_names(self) -> tuple[str, ...]:
        """What a person calls each of its Discrete actions; () where they have no names."""
        return ()

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        """A new episode's first state and TimeStep (reward 0, both flags False)."""
        raise NotImplementedError(f"{type(self).__name__} must define reset(key)")

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        """The next state and what was seen on the way; `state` is left as it was."""
        raise NotImplementedError(f"{type(self).__name__} must define step(state, action, key)")

    def render(self, state: Any) -> jax.Array:
        """A picture of a state, uint8 [H, W, 3], which jit and vmap take too (`jaxrl.frames`).

        ValueError where the environment has none.
        """
        raise ValueError(
            f"{type(self).__name__} draws no pictures; try GridWorld-v0, or give it a "
            "render(state) -> uint8 [H, W, 3]."
        )


def _register(cls: type) -> None:
    """Makes a pytree of a dataclass, as flax.struct does, but one that differs from its likes.

    Of what `jax.tree_util.register_dataclass` (and so flax) registers, any two classes with as
    many fields are equal treedefs (seen in jax 0.10.2 and 0.11.2; only their hashes differ). One
    jit called with two such environments then now and then runs the first one's program.
    """
    fields = dataclasses.fields(cls)
    static_names = [f.name for f in fields if not f.metadata.get("pytree_node", True)]
    names = [f.name for f in fields if f.name not in static_names]

    def flatten(env):
        return [getattr(env, n) for n in names], tuple(getattr(env, n) for n in static_names)

    def flatten_with_keys(env):
        children, aux = flatten(env)
        return zip(map(jax.tree_util.GetAttrKey, names), children, strict=True), aux

    def unflatten(aux, children):
        # Without __post_init__, which checks what a user asks for.
        values = zip((*names, *static_names), (*children, *aux), strict=True)
        return config.unchecked(cls, dict(values))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


class Wrapper(Environment):
    """An environment around another one; spaces pass through unless a subclass changes them."""

    env: Environment

    def inside(self, state: Any) -> Any:
        """The state of the environment inside: here the same, for a wrapper without one."""
        return state

    def of_state(self, state: Any) -> Environment:
        """The environment inside, with the numbers that it has in this state."""
        del state  # they are always the same, but for what draws them
        return self.env

    def render(self, state: Any) -> jax.Array:
        return self.of_state(state).render(self.inside(state))

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        return self.env.action_space

    @property
    def action_names(self) -> tuple[str, ...]:
        return self.env.action_names


def per_env_keys(key: jax.Array, env_index: jax.Array) -> jax.Array:
    """A key for each environment [B], a function of (key, global environment index) alone."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(env_index)

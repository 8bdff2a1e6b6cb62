"""Physics that vary: numbers drawn at every reset, noise, late actions and pushes.

Wrappers of one environment, inside its time limit. In order from the inside: `Push`, `ActionDelay`,
`ObservationNoise`, `Randomise`, which may draw the numbers of the other three too.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.env import Environment, TimeStep, Wrapper, check_numbers, static
from jaxrl.spaces import LEGAL, Box

STDS = 3.0  # standard deviations to either side within which a normal number is drawn


class Draw(flax.struct.PyTreeNode):
    """The distribution of one number, which is rounded where it is a `whole` one."""

    numbers: tuple[Any, ...]  # low and high; of a normal mean and deviation; of a choice all of it
    kind: str = flax.struct.field(pytree_node=False)  # uniform, loguniform, normal or choice
    whole: bool = flax.struct.field(pytree_node=False, default=False)

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest number that is drawn."""
        if self.kind == "normal":
            mean, std = self.numbers
            return mean - STDS * std, mean + STDS * std
        return min(self.numbers), max(self.numbers)

    def sample(self, key: jax.Array, base: Any = None, level: Any = None) -> jax.Array:
        """A number, float32 or int32 []; with a level in [0, 1] it is so far from `base` to there.

        Of a choice a number is drawn with the chance `level`, and else it is `base`.
        """
        draw_key, level_key = jax.random.split(key)
        x = self._sample(draw_key)
        if level is not None and self.kind == "choice":
            x = jnp.where(jax.random.uniform(level_key) < level, x, base)
        elif level is not None:
            x = (1 - level) * base + level * x
        return jnp.round(x).astype(jnp.int32) if self.whole else x.astype(jnp.float32)

    def _sample(self, key: jax.Array) -> jax.Array:
        if self.kind == "choice":
            index = jax.random.randint(key, (), 0, len(self.numbers), jnp.int32)
            return jnp.stack([jnp.asarray(x, jnp.float32) for x in self.numbers])[index]
        if self.kind == "normal":
            mean, std = self.numbers
            return mean + std * jax.random.truncated_normal(key, -STDS, STDS, (), jnp.float32)
        low, high = self.numbers
        unit = jax.random.uniform(key, (), jnp.float32)
        if self.kind == "loguniform":
            x = jnp.exp(jnp.log(low) * (1 - unit) + jnp.log(high) * unit)
        elif self.whole:
            x = jnp.floor(low + unit * (high - low + 1))
        else:
            x = low * (1 - unit) + high * unit
        return jnp.clip(x, low, high)


def numbers(env: Environment) -> dict[str, Any]:
    """The fields that can be drawn and their values: numbers of the environment, and what is off.

    None stands for what is switched off. A suite's numbers count, wherever in a field they lie.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(env, is_leaf=lambda x: x is None)
    named = {_name(path): x for path, x in paths}
    return {name: x for name, x in named.items() if name and (x is None or _is_number(x))}


def with_numbers(env: Any, drawn: Mapping[str, Any]) -> Any:
    """The environment with other numbers, which may be traced: without its checks."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: drawn.get(_name(path), x), env, is_leaf=lambda x: x is None
    )


def _name(path: tuple[Any, ...]) -> str:
    """Of a leaf that is a field, else ""."""
    return getattr(path[-1], "name", "") if path else ""


def _is_number(x: Any) -> bool:
    known = isinstance(x, int | float | np.ndarray | np.generic | jax.Array)
    return known and np.ndim(x) == 0 and jnp.result_type(x).kind in "iuf"


class RandomiseState(flax.struct.PyTreeNode):
    inner: Any
    drawn: tuple[jax.Array, ...]  # of this episode


class Randomise(Wrapper):
    """Draws fields of the environment inside at every reset, each by itself.

    An episode is played in an environment that has these numbers. With a level in [0, 1] they lie
    so far between the environment's own and those drawn: a curriculum's, which moves it.
    """

    draws: tuple[Draw, ...] = ()
    names: tuple[str, ...] = static(())
    curriculum_level: float | None = None

    def reset(self, key: jax.Array) -> tuple[RandomiseState, TimeStep]:
        reset_key, *keys = jax.random.split(key, 1 + len(self.draws))
        base, level = numbers(self.env), self.curriculum_level
        drawn = tuple(
            draw.sample(k, base[name], level)
            for draw, name, k in zip(self.draws, self.names, keys, strict=True)
        )
        inner, ts = self.with_drawn(drawn).reset(reset_key)
        return RandomiseState(inner, drawn), ts

    def step(
        self, state: RandomiseState, action: Any, key: jax.Array
    ) -> tuple[RandomiseState, TimeStep]:
        inner, ts = self.with_drawn(state.drawn).step(state.inner, action, key)
        return RandomiseState(inner, state.drawn), ts

    def inside(self, state: RandomiseState) -> Any:
        return state.inner

    def of_state(self, state: RandomiseState) -> Environment:
        return self.with_drawn(state.drawn)

    def with_drawn(self, drawn: tuple[jax.Array, ...]) -> Environment:
        """The environment of an episode with these numbers."""
        return with_numbers(self.env, dict(zip(self.names, drawn, strict=True)))


class ObservationNoise(Wrapper):
    """Adds normal noise to every real number that is observed, within the bounds of its space.

    The state, rewards and endings are as without it.
    """

    observation_noise: float = 0.0  # its standard deviation

    def __post_init__(self):
        check_numbers(self, observation_noise=(0, 1e9))
        leaves = jax.tree.leaves(self.env.observation_space, is_leaf=spaces.is_space)
        if not any(map(_is_real, leaves)):
            raise ValueError(
                f"observation_noise={self.observation_noise} needs observations of reals, not "
                f"{self.env.observation_space}; leave it out."
            )

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        reset_key, noise_key = jax.random.split(key)
        state, ts = self.env.reset(reset_key)
        return state, self._noisy(ts, noise_key)

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        step_key, noise_key = jax.random.split(key)
        state, ts = self.env.step(state, action, step_key)
        return state, self._noisy(ts, noise_key)

    def _noisy(self, ts: TimeStep, key: jax.Array) -> TimeStep:
        leaves, treedef = jax.tree.flatten(self.observation_space, is_leaf=spaces.is_space)
        seen = treedef.flatten_up_to(ts.obs)
        keys = jax.random.split(key, len(leaves))
        obs = treedef.unflatten(map(self._add, leaves, seen, keys))
        return ts.replace(obs=obs, final_obs=obs)

    def _add(self, space: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        if not _is_real(space):
            return x
        noise = jax.random.normal(key, x.shape, jnp.float32)
        noisy = x + (self.observation_noise * noise).astype(x.dtype)
        return jnp.clip(noisy, space.low, space.high)


class ActionDelayState(flax.struct.PyTreeNode):
    inner: Any
    queue: Any  # leaves [most_delay, ...]: the last actions, the newest first


class ActionDelay(Wrapper):
    """What acts is the action of `action_delay` steps ago.

    Until there is one it is 0, or what lies nearest to 0 in the space.
    """

    action_delay: int = 0  # steps
    most_delay: int = static(0)  # the longest that may be drawn

    def __post_init__(self):
        check_numbers(self, action_delay=(0, self.most_delay))
        _check_any_action(self.env, "action_delay", self.action_delay)

    def reset(self, key: jax.Array) -> tuple[ActionDelayState, TimeStep]:
        inner, ts = self.env.reset(key)

        def wait(space):
            return jnp.broadcast_to(
                jnp.asarray(np.clip(0, space.low, space.high), space.dtype),
                (self.most_delay, *space.shape),
            )

        queue = jax.tree.map(wait, self.action_space, is_leaf=spaces.is_space)
        return ActionDelayState(inner, queue), ts

    def step(
        self, state: ActionDelayState, action: Any, key: jax.Array
    ) -> tuple[ActionDelayState, TimeStep]:
        queue = jax.tree.map(
            lambda old, new: jnp.concatenate([jnp.asarray(new, old.dtype)[None], old]),
            state.queue,
            action,
        )
        action = jax.tree.map(lambda x: x[self.action_delay], queue)
        inner, ts = self.env.step(state.inner, action, key)
        return ActionDelayState(inner, jax.tree.map(lambda x: x[:-1], queue)), ts

    def inside(self, state: ActionDelayState) -> Any:
        return state.inner


class Push(Wrapper):
    """Now and then disturbs an action: a random one is added to reals, or replaces a choice."""

    push_chance: float = 0.0  # of a push in a step
    push: float = 1.0  # the largest that is added to reals, in halves of their range

    def __post_init__(self):
        check_numbers(self, push_chance=(0, 1), push=(0, 1e9))
        _check_any_action(self.env, "push_chance", self.push_chance)
        leaves = jax.tree.leaves(self.action_space, is_leaf=spaces.is_space)
        if not all(space.bounded for space in leaves if _is_real(space)):
            raise ValueError(
                f"push_chance={self.push_chance} needs actions with bounds, not "
                f"{self.action_space}; leave it out."
            )

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        return self.env.reset(key)

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        step_key, chance_key, push_key = jax.random.split(key, 3)
        pushed = jax.random.uniform(chance_key) < self.push_chance
        pushes = spaces.sample(self.action_space, push_key)

        def disturb(space, push, x):
            if _is_real(space):
                push = x + self.push * (push - (space.low + space.high) / 2)
            return jnp.where(pushed, push.astype(x.dtype), x)

        action = jax.tree.map(disturb, self.action_space, pushes, action, is_leaf=spaces.is_space)
        return self.env.step(state, action, step_key)


def _is_real(space: Any) -> bool:
    return isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)


def _check_any_action(env: Environment, name: str, value: Any) -> None:
    """ValueError where an action may be illegal by the time that it acts."""
    if spaces.legal_space(env.observation_space) is not None:
        raise ValueError(
            f"{name}={value} would play illegal actions, which the observation's {LEGAL!r} "
            "forbids; leave it out."
        )

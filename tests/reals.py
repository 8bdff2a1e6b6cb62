"""Environments with real actions, and stub critics, for tests of learners that need them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from one_of import one_of
from quick import jit
from walk import Walk, WalkState

from envs.probe import value
from jaxrl.env import Environment
from jaxrl.spaces import Box


class Drift(Walk):
    """A Walk whose action, from -2 to 1, is the stride: its middle is not 0."""

    @property
    def action_space(self):
        return Box(-2.0, 1.0, (1,))

    def step(self, state, action, key):
        x = state.x + self.stride * action[0] + 0.01 * jax.random.normal(key)
        state = WalkState(x, state.t + 1)
        return state, self.look(state, x, jnp.abs(x) > self.limit)


PROBES = (value.Target(), value.Forever())


Probe = one_of(PROBES, Box(-2.0, 2.0, (1,)))


def learned(algorithm: Any, cfg: Any, envs: list[Environment], read: Any) -> list[Any]:
    """`read(state)` after a run in each of these environments, of one structure."""
    several = jax.tree.map(lambda *x: jnp.stack(x), *envs)

    def run(inputs):
        raw, key = inputs
        env = algorithm.wrap(raw, cfg)
        init_key, key = jax.random.split(key)
        state = algorithm.init(init_key, cfg=cfg, env=env)
        keys = jax.random.split(key, cfg.num_iterations)
        state, _ = jax.lax.scan(partial(algorithm.update, cfg=cfg, env=env), state, keys)
        return read(state)

    inputs = several, jax.random.split(jax.random.key(0), len(envs))
    found = jax.device_get(jit(partial(jax.lax.map, run))(inputs))
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(envs))]


@dataclass(frozen=True)
class Spec:
    action_space: Any


class StubCritics(flax.struct.PyTreeNode):
    """Two critics: scale * (the observation's first number + the action's)."""

    scale: Any = flax.struct.field(default_factory=lambda: np.float32([1.0, -2.0]))
    spec: Spec = flax.struct.field(pytree_node=False, default=Spec(Box(-1.0, 1.0, (1,))))

    def __call__(self, inputs):
        obs, action = inputs
        return self.scale * (obs[..., :1] + action[..., :1])

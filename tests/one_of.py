"""Several probes as one environment, so that one program learns all of them side by side."""

import flax.struct
import jax

from jaxrl.env import Environment
from jaxrl.spaces import Box


def one_of(probes, actions):
    """The class of an environment that is the probe with the index it is made with, a leaf."""

    class OneOf(Environment):
        index: jax.Array = flax.struct.field(default=0)

        @property
        def observation_space(self):
            return Box(-1.0, 1.0, (1,))

        @property
        def action_space(self):
            return actions

        def reset(self, key):
            return jax.lax.switch(self.index, [probe.reset for probe in probes], key)

        def step(self, state, action, key):
            return jax.lax.switch(self.index, [probe.step for probe in probes], state, action, key)

    return OneOf

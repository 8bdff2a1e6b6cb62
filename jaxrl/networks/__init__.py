"""Networks of policies: flax nnx modules, used as plain pytrees.

A network is a class called as `MyNet(spec, rngs)`. It has `distribution(obs)`; PPO also needs
`value(obs)`. Name it `mlp`, `cnn`, `gru`, `lstm` or `my_module:MyNet`.
"""

from jaxrl.networks.actor_critic import ActorCritic, Tower
from jaxrl.networks.build import build, check_value, class_of, distribution_and_value
from jaxrl.networks.encoders import Encoder
from jaxrl.networks.recurrent import begin, has_memory, look, recall
from jaxrl.networks.spec import ACTIVATIONS, NetworkSpec

__all__ = [
    "ACTIVATIONS",
    "ActorCritic",
    "Encoder",
    "NetworkSpec",
    "Tower",
    "begin",
    "build",
    "check_value",
    "class_of",
    "distribution_and_value",
    "has_memory",
    "look",
    "recall",
]

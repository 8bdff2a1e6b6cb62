"""What fixes a network's structure, and the distribution that its outputs describe."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import config, distributions, spaces
from jaxrl.networks.encoders import check_image
from jaxrl.spaces import Box, Space, is_space
from jaxrl.theirs import telling

BUILT_IN = ("mlp", "cnn", "gru", "lstm")
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


def own_class(name: str) -> Any:
    """The class that `my_module:MyNet` means, None for the built-in ones.

    ValueError where there is none.
    """
    if name in BUILT_IN:
        return None
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise ValueError(
            f"network={name} must be {', '.join(BUILT_IN)} or my_module:MyNet; try mlp."
        )
    try:
        with telling(f"network={name}: the module {module_name} cannot be imported"):
            module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"network={name} needs the module {error.name}, which is not found; add its folder to "
            "PYTHONPATH or install it."
        ) from error
    if not callable(getattr(module, class_name, None)):
        raise ValueError(f"network={name}: the module {module_name} has no class {class_name}.")
    return getattr(module, class_name)


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is built from; hashable, so that it can be part of a compiled program.

    ValueError where observations have no encoder, actions no distribution, where the network is not
    found, or where the spaces could not be saved with the policy.
    """

    observation_space: Space  # what the network sees, after any normalisation
    action_space: Space  # what is drawn: see `actions.drawn_space`
    network: str = "mlp"  # one of BUILT_IN, or my_module:MyNet
    hidden: tuple[int, ...] = (64, 64)  # widths of hidden layers
    activation: str = "tanh"  # a name in networks.ACTIVATIONS
    squash: bool = False  # tanh-squashed Gaussian for a Box of actions

    def __post_init__(self):
        config.check_fields(self)
        for width in self.hidden:
            config.check_positive("hidden", width, 64)
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation={self.activation} is none of {known}; try tanh.")
        for space in (self.observation_space, self.action_space):
            spaces.to_json(space)  # refuses what could not be loaded again
        num_outputs = self.num_outputs
        if self.squash and not isinstance(self.action_space, Box):
            raise ValueError(
                f"squash=True needs a Box of actions, not {self.action_space}; leave it out."
            )
        leaves = jax.tree.leaves(spaces.features_space(self.observation_space), is_leaf=is_space)
        if not leaves or any(isinstance(leaf, spaces.TextSpace) for leaf in leaves):
            raise ValueError(
                f"no encoder for observations {self.observation_space}: use Box, Discrete, "
                "MultiDiscrete or a dict of them."
            )
        images = [leaf for leaf in leaves if spaces.is_image(leaf)]
        if self.network == "cnn" and not images:
            raise ValueError(
                f"network=cnn needs image observations [H, W, C], not {self.observation_space}; "
                "try network=mlp."
            )
        for image in images if self.network == "cnn" else []:
            check_image(image)
        own_class(self.network)
        self._check_legal(num_outputs)

    def _check_legal(self, num_outputs: int) -> None:
        legal = spaces.legal_space(self.observation_space)
        if legal is None:
            return
        mask = Box(False, True, (num_outputs,), np.bool_)
        if legal != mask or isinstance(self.action_space, Box):
            raise ValueError(
                f"the observation '{spaces.LEGAL}' is a mask of choices, {mask} for actions "
                f"{self.action_space}, not {legal}; give it another name if it is something else."
            )

    def __hash__(self) -> int:
        """Spaces may be dicts, which have no hash."""
        leaves = jax.tree.leaves((self.observation_space, self.action_space), is_leaf=is_space)
        return hash((*leaves, self.network, self.hidden, self.activation, self.squash))

    def of_class(self, module: str, name: str) -> "NetworkSpec":
        """The same for a module's class of that name, Conv before it for a cnn; one's own stays."""
        if self.network not in ("mlp", "cnn"):
            return self
        convolves = "Conv" if self.network == "cnn" else ""
        return replace(self, network=f"{module}:{convolves}{name}")

    @property
    def num_outputs(self) -> int:
        """How many numbers `distribution` needs; ValueError for actions without a distribution."""
        return distributions.num_outputs(self.action_space)

    def distribution(
        self, output: jax.Array, obs: Any, log_std: Any = None
    ) -> distributions.Distribution:
        """The distribution that `output` [..., num_outputs] describes, over legal actions alone.

        A Box of actions also needs `log_std`, broadcastable to `output`.
        """
        has_mask = spaces.legal_space(self.observation_space) is not None
        legal = obs[spaces.LEGAL] if has_mask else None
        return distributions.make(self.action_space, output, log_std, self.squash, legal)

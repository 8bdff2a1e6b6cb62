"""Policies: separate actor and critic towers in flax nnx, used as plain pytrees."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrl import distributions
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, is_space

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


def features(space: Space, obs: Any) -> jax.Array:
    """An observation of any space as one float32 vector [..., D]: one-hot, flat, concatenated."""
    spaces = jax.tree.leaves(space, is_leaf=is_space)
    return jnp.concatenate(
        [_leaf_features(s, o) for s, o in zip(spaces, jax.tree.leaves(obs), strict=True)], -1
    )


def _leaf_features(space: Any, obs: jax.Array) -> jax.Array:
    if isinstance(space, Discrete):
        return jax.nn.one_hot(obs, space.n)
    if isinstance(space, MultiDiscrete):
        return jnp.concatenate(
            [jax.nn.one_hot(obs[..., i], n) for i, n in enumerate(space.nvec)], -1
        )
    batch = obs.shape[: obs.ndim - len(space.shape)]
    return obs.astype(jnp.float32).reshape(*batch, -1)


def num_features(space: Space) -> int:
    """The D of `features`."""
    leaves = jax.tree.leaves(space, is_leaf=is_space)
    return sum(
        s.n
        if isinstance(s, Discrete)
        else sum(s.nvec)
        if isinstance(s, MultiDiscrete)
        else int(np.prod(s.shape))
        for s in leaves
    )


def _linear(inputs: int, outputs: int, scale: float, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.orthogonal(scale), rngs=rngs)


class Tower(nnx.Module):
    """Convolutions for an image, hidden layers, then a linear one with gain `out_scale`.

    All kernels are orthogonal, hidden ones with gain sqrt(2), as arXiv:2006.05990 recommends.
    """

    def __init__(self, spec: "NetworkSpec", outputs: int, out_scale: float, rngs: nnx.Rngs):
        space = spec.observation_space
        self.convs = nnx.List(_convolutions(space, rngs) if spec.kind == "cnn" else [])
        flat = _conv_outputs(space, self.convs) if self.convs else num_features(space)
        sizes = (flat, *spec.hidden)
        self.hidden = nnx.List([_linear(i, o, 2**0.5, rngs) for i, o in pairwise(sizes)])
        self.out = _linear(sizes[-1], outputs, out_scale, rngs)
        self.spec = spec

    def __call__(self, obs: Any) -> jax.Array:
        """[..., outputs] from observations with any number of leading batch axes."""
        x = self._image_features(obs) if self.convs else features(self.spec.observation_space, obs)
        return self.after_first(self.layers[0](x))

    @property
    def layers(self) -> list[nnx.Linear]:
        """The linear layers in order, the one with the outputs last."""
        return [*self.hidden, self.out]

    def after_first(self, x: jax.Array) -> jax.Array:
        """[..., outputs] from the first linear layer's [..., width], its activation still to do."""
        activation = ACTIVATIONS[self.spec.activation]
        for layer in self.layers[1:]:
            x = layer(activation(x))
        return x

    def _image_features(self, obs: jax.Array) -> jax.Array:
        space = self.spec.observation_space
        batch = obs.shape[:-3]
        x = obs.reshape(-1, *space.shape).astype(jnp.float32)
        x = x / 255.0 if obs.dtype == np.uint8 and space.high.max() > 1 else x
        for layer in self.convs:
            x = jax.nn.relu(layer(x))
        return x.reshape(*batch, -1)


@dataclass(frozen=True)
class NetworkSpec:
    """What fixes a policy's structure; hashable, so that it can be part of a compiled program."""

    observation_space: Space
    action_space: Space
    kind: Literal["mlp", "cnn"]
    hidden: tuple[int, ...]
    activation: str
    squash: bool  # tanh-squashed Gaussian for a Box action space

    def __post_init__(self):
        is_image = (
            isinstance(self.observation_space, Box) and len(self.observation_space.shape) == 3
        )
        if self.kind == "cnn" and not is_image:
            raise ValueError(
                f"network=cnn needs image observations [H, W, C], not {self.observation_space}; "
                "try network=mlp."
            )
        if self.squash and not isinstance(self.action_space, Box):
            raise ValueError(
                f"squash=True needs a Box action space, not {self.action_space}; leave it out."
            )


class ActorCritic(nnx.Module):
    """Two separate towers, so that the critic can be read apart from the rollout."""

    def __init__(self, spec: NetworkSpec, rngs: nnx.Rngs):
        outputs = distributions.num_outputs(spec.action_space)
        self.actor = Tower(spec, outputs, 0.01, rngs)
        self.critic = Tower(spec, 1, 1.0, rngs)
        continuous = isinstance(spec.action_space, Box)
        self.log_std = nnx.Param(jnp.zeros(outputs)) if continuous else None
        self.spec = spec

    def distribution(self, obs: Any) -> distributions.Distribution:
        """pi(. | obs), with the batch axes of `obs`."""
        return self._distribution(self.actor(obs))

    def _distribution(self, outputs: jax.Array) -> distributions.Distribution:
        log_std = None if self.log_std is None else self.log_std[...]
        return distributions.make(self.spec.action_space, outputs, log_std, self.spec.squash)

    def value(self, obs: Any) -> jax.Array:
        """V(obs), float32 with the batch axes of `obs`."""
        return self.critic(obs)[..., 0]

    def distribution_and_value(self, obs: Any) -> tuple[distributions.Distribution, jax.Array]:
        """Both at once: the towers' first layers as one product, a wider and so a faster one."""
        if self.actor.convs:
            return self.distribution(obs), self.value(obs)
        first: list[Any] = [self.actor.layers[0], self.critic.layers[0]]
        kernel = jnp.concatenate([layer.kernel[...] for layer in first], -1)
        bias = jnp.concatenate([layer.bias[...] for layer in first])
        x = features(self.spec.observation_space, obs) @ kernel + bias
        of_actor, of_critic = jnp.split(x, [first[0].kernel.shape[-1]], -1)
        value = self.critic.after_first(of_critic)[..., 0]
        return self._distribution(self.actor.after_first(of_actor)), value

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The noise that sampling `shape` actions needs."""
        return distributions.noise(self.spec.action_space, key, shape)

    def to_env(self, action: jax.Array) -> jax.Array:
        """The sampled action as the environment takes it: tanh applied if squashed."""
        return jnp.tanh(action) if self.spec.squash else action


def _convolutions(space: Box, rngs: nnx.Rngs) -> list[nnx.Conv]:
    """One 3x3 layer for boards up to 16x16 (MinAtar's paper), else DQN's three (Nature 2015)."""
    channels = space.shape[-1]
    is_board = max(space.shape[:2]) <= 16
    layers = [(16, 3, 1)] if is_board else [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
    convs = []
    for features_out, size, stride in layers:
        convs.append(
            nnx.Conv(
                channels,
                features_out,
                kernel_size=(size, size),
                strides=(stride, stride),
                padding="VALID",
                kernel_init=nnx.initializers.orthogonal(2**0.5),
                rngs=rngs,
            )
        )
        channels = features_out
    return convs


def _conv_outputs(space: Box, convs: Any) -> int:
    height, width, channels = space.shape
    for conv in convs:
        height, width = (
            (side - size) // stride + 1
            for side, size, stride in zip(
                (height, width), conv.kernel_size, conv.strides, strict=True
            )
        )
        channels = conv.out_features
    if min(height, width) < 1:
        raise ValueError(
            f"network=cnn needs images of at least 36x36, or boards of 3x3 to 16x16, not "
            f"{space.shape[0]}x{space.shape[1]}; try network=mlp."
        )
    return height * width * channels

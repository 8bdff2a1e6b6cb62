"""Critics Q(obs, action) side by side: several networks of one structure as one."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl.networks.actor_critic import Tower
from jaxrl.networks.build import class_of
from jaxrl.networks.spec import NetworkSpec
from jaxrl.spaces import Box, is_image, is_space


def make_critics(spec: NetworkSpec, count: int, key: jax.Array) -> Tower:
    """`count` fresh critics, leaves [count, ...]; `spec` is the actor's.

    A Box of actions, as the actor puts them out in [-1, 1], is read beside the observation; of
    choices each has an output. Images go through convolutions where the actor's class is a cnn, or
    someone's own.
    """
    leaves = jax.tree.leaves(spec.observation_space, is_leaf=is_space)
    convolve = getattr(class_of(spec.network), "encoder", "cnn") == "cnn"
    convolve = convolve and any(is_image(leaf) for leaf in leaves)
    spec, outputs = replace(spec, network="cnn" if convolve else "mlp"), spec.num_outputs
    if isinstance(spec.action_space, Box):
        unit = Box(-1.0, 1.0, spec.action_space.shape)
        spec, outputs = replace(spec, observation_space=(spec.observation_space, unit)), 1
    # One after the other and not vmapped: see `make_program` on batched QR factorisations.
    critics = [Tower(spec, outputs, 1.0, nnx.Rngs(params=k)) for k in jax.random.split(key, count)]
    return jax.tree.map(lambda *x: jnp.stack(x), *critics)


def each_q(critics: Tower, inputs: Any) -> jax.Array:
    """Each critic's outputs, float32 [count, ...], of an observation or (observation, action)."""
    q = jax.vmap(lambda critic: critic(inputs))(critics)
    return q[..., 0] if isinstance(critics.spec.action_space, Box) else q

"""A network of action values, used as a plain pytree, and the policies that it stands for."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl.distributions import Categorical
from jaxrl.networks.actor_critic import linear
from jaxrl.networks.encoders import Encoder
from jaxrl.networks.spec import NetworkSpec
from jaxrl.spaces import Box, Discrete


class QNetwork(nnx.Module):
    """Q(obs, .) over the actions: hidden layers with LayerNorm and ReLU, then a linear one.

    LayerNorm keeps the values of actions that are not tried bounded (arXiv:2407.04811, section 3).
    """

    convolve = False  # images
    normed = True  # with LayerNorm
    rescale = False  # see reals with two finite bounds in [-1, 1]
    dueling = False  # V(obs) + A(obs, .) - mean A(obs, .): eq. 9 of arXiv:1511.06581

    def __init__(self, spec: NetworkSpec, rngs: nnx.Rngs):
        if not isinstance(spec.action_space, Discrete):
            others = (
                "SAC, TD3 or PPO"
                if isinstance(spec.action_space, Box) and spec.action_space.bounded
                else "PPO"
            )
            raise ValueError(f"Q needs Discrete actions, not {spec.action_space}; try {others}.")
        if self.convolve:
            replace(spec, network="cnn")  # refuses what is no image
        self.encoder = Encoder(spec.observation_space, rngs, self.convolve, self.rescale)
        sizes = (self.encoder.size, *spec.hidden)
        self.hidden = nnx.List([linear(i, o, 2**0.5, rngs) for i, o in pairwise(sizes)])
        widths = spec.hidden if self.normed else ()
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for width in widths])
        self.out = linear(sizes[-1], spec.action_space.n + self.dueling, 1.0, rngs)
        self.spec = spec

    def q(self, obs: Any) -> jax.Array:
        """float32 [..., A], with the batch axes of `obs`; -inf where an action is illegal."""
        x = self.encoder(obs)
        norms = self.norms if self.normed else [lambda x: x] * len(self.hidden)
        for layer, norm in zip(self.hidden, norms, strict=True):
            x = jax.nn.relu(norm(layer(x)))
        q = self.out(x)
        if self.dueling:
            value, advantage = q[..., :1], q[..., 1:]
            q = value + advantage - jnp.mean(advantage, -1, keepdims=True)
        legal = getattr(self.spec.distribution(q, obs), "legal", None)
        if legal is None:
            return q
        # Where nothing is legal, as after the end of a game, everything is: no maximum of nothing.
        return jnp.where(legal | ~jnp.any(legal, -1, keepdims=True), q, -jnp.inf)

    def value(self, obs: Any) -> jax.Array:
        """max_a Q(obs, a)."""
        return jnp.max(self.q(obs), -1)

    def distribution(self, obs: Any) -> Categorical:
        """All probability on the best action, the first of several."""
        q = self.q(obs)
        best = jax.nn.one_hot(jnp.argmax(q, -1), q.shape[-1], dtype=jnp.float32)
        return Categorical(1e9 * best)  # so that the others' probability is exactly 0


# Of each kind the options that differ; `policy.json` keeps the name of its class, such as
# ConvScaledDuelingQNetwork.
PLAIN, DUELING = {"normed": False}, {"normed": False, "dueling": True}
KINDS: dict[str, dict[str, bool]] = {
    "": {},
    "Plain": PLAIN,
    "Dueling": DUELING,
    "ScaledPlain": {**PLAIN, "rescale": True},
    "ScaledDueling": {**DUELING, "rescale": True},
}
for _kind, _options in KINDS.items():
    for _name, _more in ((_kind, _options), (f"Conv{_kind}", {**_options, "convolve": True})):
        if _name:
            _own = {"__module__": __name__, **_more}
            globals()[f"{_name}QNetwork"] = type(QNetwork)(f"{_name}QNetwork", (QNetwork,), _own)  # pyright: ignore


def named(spec: NetworkSpec, kind: str = "") -> NetworkSpec:
    """The spec with the class of an mlp or cnn of one of KINDS."""
    return spec.of_class(__name__, f"{kind}QNetwork")


def of_action(q: jax.Array, action: jax.Array) -> jax.Array:
    """[...]: the values of actions [...] among q [..., A]."""
    return jnp.take_along_axis(q, action[..., None], -1)[..., 0]


def draw_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """float32 [..., 2]: what `epsilon_greedy` needs for `shape` actions."""
    return jax.random.uniform(key, (*shape, 2), jnp.float32)


def epsilon_greedy(q: jax.Array, epsilon: jax.Array, noise: jax.Array) -> jax.Array:
    """int32 [...]: with probability epsilon any legal action alike, else the best of q [..., A].

    Illegal is what has a value of -inf. noise[..., 0] says whether the action is random, and
    noise[..., 1] which one then.
    """
    anything = Categorical(jnp.zeros_like(q), q > -jnp.inf).sample(noise[..., 1])
    return jnp.where(noise[..., 0] < epsilon, anything, jnp.argmax(q, -1).astype(jnp.int32))

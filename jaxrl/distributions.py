"""Action distributions, sampled from noise that was drawn beforehand.

A whole rollout's noise is one draw before the loop, so `sample` takes noise, not a key. `noise`
says what an action of a space needs: one uniform per discrete choice (inverse CDF), one standard
normal per real number.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space

HALF_LOG_2PI = 0.5 * float(np.log(2.0 * np.pi))


class Categorical(flax.struct.PyTreeNode):
    """One choice of A from `logits` [..., A]."""

    logits: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        """int32 [...]: the inverse CDF at `noise`, uniform in [0, 1), shape [...]."""
        probability = jax.nn.softmax(self.logits)
        count = self.logits.shape[-1]
        upto = jnp.tril(jnp.ones((count, count), probability.dtype))
        cdf = jnp.sum(probability[..., None, :] * upto, -1)
        return jnp.sum(noise[..., None] >= cdf[..., :-1], -1, dtype=jnp.int32)

    def mode(self) -> jax.Array:
        return jnp.argmax(self.logits, -1).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
        chosen = action[..., None] == jnp.arange(self.logits.shape[-1])
        return jnp.sum(jnp.where(chosen, jax.nn.log_softmax(self.logits), 0.0), -1)

    def entropy(self) -> jax.Array:
        log_probability = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probability) * log_probability, -1)


class MultiCategorical(flax.struct.PyTreeNode):
    """Independent choices; `logits` [..., sum(nvec)] holds one block per choice."""

    logits: jax.Array
    nvec: tuple[int, ...] = flax.struct.field(pytree_node=False)

    def _parts(self) -> list[Categorical]:
        borders = np.cumsum(self.nvec)[:-1].tolist()
        return [Categorical(part) for part in jnp.split(self.logits, borders, -1)]

    def sample(self, noise: jax.Array) -> jax.Array:
        """int32 [..., len(nvec)] from uniform noise of the same shape."""
        return jnp.stack([p.sample(noise[..., i]) for i, p in enumerate(self._parts())], -1)

    def mode(self) -> jax.Array:
        return jnp.stack([p.mode() for p in self._parts()], -1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        return sum(p.log_prob(action[..., i]) for i, p in enumerate(self._parts()))  # pyright: ignore

    def entropy(self) -> jax.Array:
        return sum(p.entropy() for p in self._parts())  # pyright: ignore


class Gaussian(flax.struct.PyTreeNode):
    """Independent normals with `mean` [..., A] and `log_std` broadcastable to it."""

    mean: jax.Array
    log_std: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> jax.Array:
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * z**2 - self.log_std - HALF_LOG_2PI, -1)

    def entropy(self) -> jax.Array:
        log_std = jnp.broadcast_to(self.log_std, self.mean.shape)
        return jnp.sum(log_std + 0.5 + HALF_LOG_2PI, -1)


def _log_tanh_slope(x: jax.Array) -> jax.Array:
    """log(1 - tanh(x)^2), without cancellation."""
    return 2.0 * (jnp.log(2.0) - x - jax.nn.softplus(-2.0 * x))


class TanhGaussian(flax.struct.PyTreeNode):
    """A normal squashed by tanh into (-1, 1), arXiv:1801.01290 appendix C.

    Samples and `log_prob`'s argument are the numbers *before* tanh, which loses none to rounding:
    `to_env` of the space's head squashes them.
    """

    mean: jax.Array
    log_std: jax.Array

    def _normal(self) -> Gaussian:
        return Gaussian(self.mean, self.log_std)

    def sample(self, noise: jax.Array) -> jax.Array:
        return self._normal().sample(noise)

    def mode(self) -> jax.Array:
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log density of tanh(action)."""
        return self._normal().log_prob(action) - jnp.sum(_log_tanh_slope(action), -1)

    def entropy(self) -> jax.Array:
        """By Gauss-Hermite quadrature with 16 points (no closed form exists)."""
        point, weight = np.polynomial.hermite.hermgauss(16)
        x = self.mean[..., None] + jnp.exp(self.log_std)[..., None] * np.sqrt(2.0) * point
        slope = jnp.sum(_log_tanh_slope(x) * (weight / np.sqrt(np.pi)), -1)
        return self._normal().entropy() + jnp.sum(slope, -1)


Distribution = Categorical | MultiCategorical | Gaussian | TanhGaussian


def num_outputs(space: Space) -> int:
    """How many numbers a network must put out for a space's distribution.

    Raises ValueError for a space that has none.
    """
    if isinstance(space, Discrete):
        return space.n
    if isinstance(space, MultiDiscrete):
        return sum(space.nvec)
    if isinstance(space, Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
        return space.shape[0]
    raise ValueError(
        f"no distribution for the action space {space}: use Discrete, MultiDiscrete or a float Box "
        "of one axis (reshape inside the environment)."
    )


def noise(space: Space, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What `sample` needs for `shape` actions: uniforms, or standard normals for a Box."""
    draw = jax.random.normal if isinstance(space, Box) else jax.random.uniform
    return draw(key, (*shape, *space.shape))


def make(
    space: Space, output: jax.Array, log_std: Any = None, squash: bool = False
) -> Distribution:
    """The distribution over `space` that a network's `output` [..., num_outputs] describes."""
    if isinstance(space, Discrete):
        return Categorical(output)
    if isinstance(space, MultiDiscrete):
        return MultiCategorical(output, space.nvec)
    return TanhGaussian(output, log_std) if squash else Gaussian(output, log_std)

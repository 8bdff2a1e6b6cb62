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
LOG_2 = float(np.log(2.0))
UNROLLED = 32  # actions whose CDF is added up one by one: faster than a cumulative sum up to here


class Categorical(flax.struct.PyTreeNode):
    """One choice of A from `logits` [..., A].

    With `legal` (bool [..., A], 1 = may be taken) an illegal action has probability 0: it is never
    sampled, adds nothing to the entropy and has a log-prob of -inf; log-probs of legal ones are
    normalised over the legal. Where nothing is legal, as after the end of a game, everything is.
    """

    logits: jax.Array
    legal: jax.Array | None = None

    def _masked(self) -> tuple[jax.Array, Any]:
        """(logits, -inf where illegal; which are legal, None for all)."""
        if self.legal is None:
            return self.logits, None
        legal = self.legal | ~jnp.any(self.legal, -1, keepdims=True)
        return jnp.where(legal, self.logits, -jnp.inf), legal

    def probability(self) -> jax.Array:
        """float32 [..., A]: of each action, 0 where illegal."""
        return jax.nn.softmax(self._masked()[0])

    def sample(self, noise: jax.Array) -> jax.Array:
        """int32 [...]: the inverse CDF at `noise`, uniform in [0, 1), shape [...]."""
        logits, _ = self._masked()
        return _inverse_cdf(jnp.exp(logits - jnp.max(logits, -1, keepdims=True)), noise)

    def mode(self) -> jax.Array:
        """int32 [...]: the likeliest action."""
        return jnp.argmax(self._masked()[0], -1).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """float32 [...] of actions [...]."""
        log_probability = jax.nn.log_softmax(self._masked()[0])
        chosen = action[..., None] == jnp.arange(self.logits.shape[-1], dtype=jnp.int32)
        return jnp.sum(jnp.where(chosen, log_probability, 0.0), -1)

    def entropy(self) -> jax.Array:
        """float32 [...], in nats, over the legal actions."""
        logits, legal = self._masked()
        log_probability = jax.nn.log_softmax(logits)
        if legal is not None:  # before exp: 0 * -inf would be NaN, in the gradient too
            log_probability = jnp.where(legal, log_probability, 0.0)
            return -jnp.sum(jnp.where(legal, jnp.exp(log_probability), 0.0) * log_probability, -1)
        return -jnp.sum(jnp.exp(log_probability) * log_probability, -1)

    def kl(self, other: "Categorical") -> jax.Array:
        """KL(self || other), float32 [...], over the legal actions, which are the same for both."""
        (logits, legal), (others, _) = self._masked(), other._masked()
        log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
        if legal is not None:
            log_p, log_q = (jnp.where(legal, x, 0.0) for x in (log_p, log_q))
            return jnp.sum(jnp.where(legal, jnp.exp(log_p), 0.0) * (log_p - log_q), -1)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


def _inverse_cdf(weight: jax.Array, noise: jax.Array) -> jax.Array:
    """int32 [...]: the first action whose sum of weights [..., A] up to it exceeds noise * total.

    An action of weight 0 is never taken, whatever the rounding: not by its neighbours' share, and
    not behind the last one by a noise just below 1, which stays below 1 times any total.
    """
    count = weight.shape[-1]
    if count <= UNROLLED:  # added one after the other: a weight of 0 leaves the sum as it is
        upto = [weight[..., 0]]
        for i in range(1, count):
            upto.append(upto[-1] + weight[..., i])
        target = noise * upto[-1]
        passed = (target >= x for x in upto[:-1])
        return sum((x.astype(jnp.int32) for x in passed), jnp.zeros(noise.shape, jnp.int32))
    # Partial sums in parallel are each rounded in their own way: leave weights of 0 out by hand.
    upto = jnp.where(weight > 0, jnp.cumsum(weight, -1), 0.0)
    target = noise * jnp.max(upto, -1)
    index = jnp.arange(count, dtype=jnp.int32)
    return jnp.min(jnp.where(upto > target[..., None], index, count - 1), -1)


class MultiCategorical(flax.struct.PyTreeNode):
    """Independent choices; `logits` and `legal` [..., sum(nvec)] hold one block per choice."""

    logits: jax.Array
    nvec: tuple[int, ...] = flax.struct.field(pytree_node=False)
    legal: jax.Array | None = None

    def _parts(self) -> list[Categorical]:
        borders = np.cumsum(self.nvec)[:-1].tolist()
        logits = jnp.split(self.logits, borders, -1)
        if self.legal is None:
            return [Categorical(part) for part in logits]
        legal = jnp.split(self.legal, borders, -1)
        return [Categorical(*part) for part in zip(logits, legal, strict=True)]

    def sample(self, noise: jax.Array) -> jax.Array:
        """int32 [..., len(nvec)] from uniform noise of the same shape."""
        return jnp.stack([p.sample(noise[..., i]) for i, p in enumerate(self._parts())], -1)

    def mode(self) -> jax.Array:
        return jnp.stack([p.mode() for p in self._parts()], -1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        return sum(p.log_prob(action[..., i]) for i, p in enumerate(self._parts()))  # pyright: ignore

    def entropy(self) -> jax.Array:
        return sum(p.entropy() for p in self._parts())  # pyright: ignore

    def kl(self, other: "MultiCategorical") -> jax.Array:
        """KL(self || other)."""
        both = zip(self._parts(), other._parts(), strict=True)
        return sum(p.kl(q) for p, q in both)  # pyright: ignore


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

    def kl(self, other: "Gaussian") -> jax.Array:
        """KL(self || other)."""
        longer = other.log_std - self.log_std
        z = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return jnp.sum(longer + 0.5 * (jnp.exp(-2.0 * longer) + z**2 - 1.0), -1)


def _log_tanh_slope(x: jax.Array) -> jax.Array:
    """log(1 - tanh(x)^2), without cancellation."""
    return 2.0 * (LOG_2 - x - jax.nn.softplus(-2.0 * x))


class TanhGaussian(flax.struct.PyTreeNode):
    """A normal squashed by tanh into (-1, 1), arXiv:1801.01290 appendix C.

    Samples and `log_prob`'s argument are the numbers *before* tanh, which loses none to rounding:
    `actions.to_env` squashes them.
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
        point, weight = np.float32(np.sqrt(2.0) * point), np.float32(weight / np.sqrt(np.pi))
        x = self.mean[..., None] + jnp.exp(self.log_std)[..., None] * point
        slope = jnp.sum(_log_tanh_slope(x) * weight, -1)
        return self._normal().entropy() + jnp.sum(slope, -1)

    def kl(self, other: "TanhGaussian") -> jax.Array:
        """KL(self || other), which tanh leaves as it is between the normals."""
        return self._normal().kl(other._normal())


Distribution = Categorical | MultiCategorical | Gaussian | TanhGaussian


def num_outputs(space: Space) -> int:
    """How many numbers a network must put out for a space's distribution.

    Raises ValueError for a space that has none.
    """
    if isinstance(space, Discrete):
        return space.n
    if isinstance(space, MultiDiscrete):
        return sum(space.nvec)
    is_real = isinstance(space, Box) and jnp.issubdtype(space.dtype, jnp.floating)
    if is_real and len(space.shape) == 1 and space.shape[0] > 0:
        return space.shape[0]
    raise ValueError(
        f"no distribution for the action space {space}: use Discrete, MultiDiscrete or a float Box "
        "(of several axes or none by wrappers.ScaleAction)."
    )


def noise(space: Space, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What `sample` needs for `shape` actions: uniforms, or standard normals for a Box; float32."""
    draw = jax.random.normal if isinstance(space, Box) else jax.random.uniform
    return draw(key, (*shape, *space.shape), jnp.float32)


def make(
    space: Space,
    output: jax.Array,
    log_std: Any = None,
    squash: bool = False,
    legal: jax.Array | None = None,
) -> Distribution:
    """The distribution over `space` that a network's `output` [..., num_outputs] describes.

    `log_std` and `squash` are of a Box; `legal` (bool, like `output`) of choices.
    """
    if isinstance(space, Discrete):
        return Categorical(output, legal)
    if isinstance(space, MultiDiscrete):
        return MultiCategorical(output, space.nvec, legal)
    return TanhGaussian(output, log_std) if squash else Gaussian(output, log_std)

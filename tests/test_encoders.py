"""How an encoder computes what it sees: convolutions as products, reals between their bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrl.networks import Encoder, encoders
from jaxrl.spaces import Box


@pytest.mark.parametrize(
    ("side", "stride", "shape"), [(3, 1, (5, 6, 2)), (4, 2, (9, 8, 3)), (8, 4, (17, 16, 1))]
)
def test_a_product_of_patches_is_the_convolution_and_has_its_gradient(side, stride, shape):
    how = {"kernel_size": (side, side), "strides": (stride, stride), "padding": "VALID"}
    layer = nnx.Conv(shape[-1], 4, **how, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(4.0)
    x = jax.random.normal(jax.random.key(1), (3, *shape))

    def both(layer, x):
        forms = encoders.convolved, lambda layer, x: layer(x)
        out = [form(layer, x) for form in forms]
        grads = [jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1))(layer, x) for f in forms]
        return out, grads

    (patches, direct), (mine, own) = jax.jit(both)(layer, x)
    np.testing.assert_allclose(patches, direct, rtol=1e-5, atol=1e-5)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert jax.default_backend() != "cpu" or " convolution(" not in compiled_text(layer, x)


def compiled_text(layer, x):
    return jax.jit(encoders.convolved).lower(layer, x).compile().as_text()


def test_reals_with_two_finite_bounds_may_be_seen_in_one_unit_and_others_stay():
    low, high = np.float32([-1.2, -0.07, -np.inf, 0, 2]), np.float32([0.6, 0.07, 1, np.inf, 2])
    space = {"bits": Box(False, True, (2,), np.bool_), "real": Box(low, high, (5,))}
    obs = {"bits": jnp.array([True, False]), "real": jnp.float32([-0.3, 0.035, -5, 7, 2])}
    plain = Encoder(space, nnx.Rngs(0))(obs)
    np.testing.assert_array_equal(plain, [1, 0, *obs["real"]])
    seen = Encoder(space, nnx.Rngs(0), rescale=True)(obs)
    np.testing.assert_allclose(seen, [1, 0, 0, 0.5, -5, 7, 2], atol=1e-6)

"""What the optimisers of a language model do to its parts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxrl.algos.sft import Config
from jaxrl.lm.learn.agent import MUON_RMS, optimizer
from jaxrl.lm.model.config import preset
from jaxrl.lm.model.transformer import Transformer
from jaxrl.policy import named_leaves


def first_step(**options: Any) -> dict[str, np.ndarray]:
    """The change of each parameter by one step against a random gradient."""
    model = Transformer(preset("nano", 300), nnx.Rngs(0))
    transform = optimizer(Config(learning_rate=1e-2, sft_learning_rate=5.0, **options))
    leaves, structure = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    grads = jax.tree.unflatten(structure, drawn)
    updates, _ = jax.jit(transform.update)(grads, transform.init(model), model)
    return {name: np.asarray(x) for name, x in named_leaves(updates).items()}


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_muon_makes_the_steps_of_matrices_orthogonal_and_leaves_the_rest_to_adam(name):
    for path, change in first_step(optimizer=name).items():
        if name == "adam" or change.ndim < 3:
            size = 1e-2 if name == "adam" else 1.474e-2  # with Nesterov's momentum
            np.testing.assert_allclose(np.abs(change), size, rtol=1e-3, err_msg=path)
            continue
        sizes = np.linalg.svd(change, compute_uv=False)  # of each layer's matrix
        # All but the least of a random matrix come near to one another.
        assert np.all(sizes.max(-1) < 2 * np.quantile(sizes, 0.1, axis=-1)), path
        rms = np.sqrt(np.mean(np.square(change), (1, 2)))
        # Five Newton-Schulz steps leave singular values between 0.7 and 1.2.
        np.testing.assert_allclose(rms, MUON_RMS * 1e-2, rtol=0.3, err_msg=path)


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_a_linear_schedule_ends_at_zero(name):
    transform = optimizer(
        Config(optimizer=name, lr_schedule="linear", total_episodes=768, sft_episodes=256)
    )
    x = {"matrix": jnp.eye(3)[None], "rest": jnp.ones(3)}
    state, grads = transform.init(x), jax.tree.map(jnp.ones_like, x)
    sizes = []
    for _ in range(4):
        updates, state = transform.update(grads, state, x)
        sizes.append(float(optax.tree.norm(updates)))
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] == 0

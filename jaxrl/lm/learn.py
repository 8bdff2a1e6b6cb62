"""Learning from sequences of tokens: their log-probs, and gradients summed over pieces and devices.

A loss is a sum and a count, (numerator, denominator). Numerators' gradients and denominators are
added up over micro-batches and devices and divided at the very end, so that neither the size of a
piece nor the number of devices changes the result.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxrl.env import per_env_keys
from jaxrl.lm import lora
from jaxrl.lm.log_prob import token_log_prob
from jaxrl.lm.model import Transformer, forward, unstack
from jaxrl.objectives import Sums, quotient

Told = tuple[jax.Array, dict[str, Sums]]  # a loss's denominator, and metrics as sums
Total = Callable[[Any, Any], tuple[Any, Any]]  # gradients, other sums -> both over all devices
Loss = Callable[[Any, Any], tuple[jax.Array, Told]]


class Rows(flax.struct.PyTreeNode):
    """N sequences. Columns 0 .. C-2 of what has C-1 of them belong to the tokens 1 .. C-1."""

    token: jax.Array  # int32 [N, C]
    length: jax.Array  # int32 [N]
    mask: jax.Array  # bool [N, C-1]: the policy drew the token
    sampled_log_prob: jax.Array  # float32 [N, C-1]: by the sampler
    log_prob: jax.Array  # float32 [N, C-1]: by the learner, before the iteration's first step
    advantage: jax.Array  # float32 [N, C-1]
    ref_log_prob: jax.Array  # float32 [N, C-1]: under the reference model; 0 without one


def predict(
    model: Transformer,
    token: jax.Array,
    length: jax.Array,
    temperature: float,
    chunk: int,
    remat: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Log-prob and entropy [N, C-1] of the tokens 1 .. C-1, each given those before it."""
    hidden = hidden_states(model, token, length, remat)
    return token_log_prob(model, hidden, token[:, 1:], chunk, temperature)


def hidden_states(
    model: Transformer, token: jax.Array, length: jax.Array, remat: bool = False
) -> jax.Array:
    """[N, C-1, D]: after each of the tokens 0 .. C-2.

    With `remat` the backward pass computes each layer again, in a loop over the stacked layers.
    Without it they are taken apart: such a loop would copy what the backward pass needs.
    """
    model = model if remat else unstack(model)
    return forward(model, token[:, :-1], jnp.minimum(length, token.shape[1] - 1), remat=remat)[0]


def in_pieces(rows: Any, size: int) -> Any:
    """Leaves [N / size, size, ...] of leaves [N, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), rows)


def map_pieces(f: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """f of `size` rows at a time; leaves [N, ...] again."""
    out = jax.lax.map(f, in_pieces(rows, size))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)


def shuffled(
    key: jax.Array,
    prompt_index: jax.Array,
    num_epochs: int,
    num_minibatches: int,
    group_size: int = 1,
) -> jax.Array:
    """int32 [epochs * minibatches, episodes]: which of this device's episodes each step takes.

    Of every `num_minibatches` prompts in a row each minibatch gets one, at random and with its
    whole group: a function of (key, epoch, global prompt) alone, on any number of devices.
    """
    size = num_minibatches
    start = jnp.arange(0, prompt_index.shape[0], size)
    block_keys = per_env_keys(key, prompt_index[::size] // size)

    def epoch(e):
        order = jax.vmap(lambda k: jax.random.permutation(jax.random.fold_in(k, e), size))
        return (order(block_keys) + start[:, None]).T  # [minibatches, blocks]

    prompt = jax.vmap(epoch)(jnp.arange(num_epochs)).reshape(num_epochs * size, -1)
    rows = prompt[..., None] * group_size + jnp.arange(group_size)
    return rows.reshape(rows.shape[0], -1)


def gradient(
    loss: Loss, model: Any, rows: Any, size: int, total: Total | None = None
) -> tuple[Any, dict[str, jax.Array]]:
    """Gradient of numerator / denominator over all rows, and the mean metrics.

    `loss(model, piece)` sees `size` rows and returns its numerator and (denominator, metrics as
    sums). Small pieces stay in a CPU's cache: 8 rows of 128 tokens take a quarter of the time that
    256 rows at once take. `total` sums over devices; without it there is one.
    The gradient is that of what is trained of the model (`lora.trained`).
    """
    part = lora.trained(model)
    grad_fn = jax.grad(
        lambda part, piece: loss(lora.with_trained(model, part), piece), has_aux=True
    )

    def add(so_far, piece):
        return jax.tree.map(jnp.add, so_far, grad_fn(part, piece)), None

    split = in_pieces(rows, size)
    shapes = jax.eval_shape(grad_fn, part, jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (grads, told), _ = jax.lax.scan(add, zeros, split)
    grads, (count, sums) = (grads, told) if total is None else total(grads, told)
    metrics = {name: quotient(pair) for name, pair in sums.items()}
    return jax.tree.map(lambda g: g / jnp.maximum(count, 1.0), grads), metrics


def descend(
    transform: optax.GradientTransformation,
    grads: Any,
    norm: jax.Array,
    max_norm: float,
    opt_state: Any,
    model: Any,
) -> tuple[Any, Any]:
    """(model, optimiser state) after one step against the gradient, clipped to a norm."""
    scale = jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-12))
    grads = jax.tree.map(lambda g: g * scale, grads)
    part = lora.trained(model)
    updates, opt_state = transform.update(grads, opt_state, part)
    return lora.with_trained(model, optax.apply_updates(part, updates)), opt_state

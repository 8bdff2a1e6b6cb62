"""Steps of a language model's parameters against a gradient.

The transforms know no learning rate: it is a number of the iteration, and applied where the step
is taken. So nothing counts iterations but the state.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from jaxrl.lm.learn.options import OptimizerConfig
from jaxrl.lm.model.params import Params
from jaxrl.lm.model.shards import Layout
from jaxrl.lm.model.transformer import MATRICES
from jaxrl.metrics import Metrics, value
from jaxrl.policy import named_leaves

MUON_RMS = 0.6  # about three times Adam's, as measured
TABLES = ("embed", "head")  # of a row for each token


def optimizer(cfg: OptimizerConfig) -> optax.GradientTransformation:
    """AdamW or Muon at learning rate 1.

    Muon (arXiv:2502.16982) moves a matrix along its gradient made orthogonal, so far that its
    elements change by MUON_RMS learning rates (root mean square).
    """
    decay = 0.0 if cfg.weight_decay is None else cfg.weight_decay
    if cfg.optimizer == "muon":
        return optax.contrib.muon(
            1.0,
            adam_b2=0.99,
            adam_learning_rate=1.0,
            weight_decay=decay,
            consistent_rms=MUON_RMS,
            muon_weight_dimension_numbers=_stacked,
        )
    return optax.adamw(1.0, b2=0.99, weight_decay=decay, mask=decayed)


@jax.named_scope("optimiser")
def descend(
    grads: Params, params: Params, opt_state: Any, *, cfg: OptimizerConfig, layout: Layout
) -> tuple[Params, Any, Metrics]:
    """(parameters, optimiser state, metrics) after one step of `cfg.learning_rate`.

    Policy and critic are clipped to `max_grad_norm` each for itself: a critic that is far off does
    not hold the policy back.
    """
    norms = layout.norms(grads)

    def clipped(part: Any, norm: jax.Array) -> Any:
        scale = jnp.minimum(1.0, cfg.max_grad_norm / jnp.maximum(norm, 1e-12))
        return jax.tree.map(lambda g: (g * scale).astype(g.dtype), part)

    metrics = {"grad_norm": value(norms.policy), "learning_rate": value(cfg.learning_rate)}
    grads = grads.replace(policy=clipped(grads.policy, norms.policy))
    if grads.critic is not None:
        metrics["critic_grad_norm"] = value(norms.critic)
        grads = grads.replace(critic=clipped(grads.critic, norms.critic))
    part: Any = params.trained()
    clipped_grads: Any = grads
    updates, opt_state = optimizer(cfg).update(clipped_grads, opt_state, part)

    def times(rate: Any, changes: Any, like: Any) -> Any:
        return jax.tree.map(lambda u, x: (rate * u).astype(x.dtype), changes, like)

    changes: Any = updates
    changes = changes.replace(
        policy=times(cfg.learning_rate, changes.policy, part.policy),
        critic=times(cfg.critic_rate, changes.critic, part.critic),
    )
    moved: Any = optax.apply_updates(part, changes)
    params = params.with_trained(moved)
    metrics["param_norm"] = value(layout.norms(params).policy)
    return params, opt_state, metrics


def decayed(params: Any) -> Any:
    """True for what weight decay touches: matrices and tables of tokens; no norm, bias or critic.

    By name: with layers stacked in front a norm has as many axes as a table.
    """
    leaves, structure = jax.tree.flatten(params)
    names = named_leaves(params)
    assert len(names) == len(leaves)
    return jax.tree.unflatten(structure, [_is_decayed(name) for name in names])


def _is_decayed(name: str) -> bool:
    parts = name.replace("'", ".").replace("[", ".").replace("]", ".").split(".")
    kind = [part for part in parts if part and part != "value"][-1]
    return kind in TABLES or (kind in ("weight", "down", "up") and bool(set(parts) & set(MATRICES)))


def _stacked(params: Any) -> Any:
    """Where Muon finds matrices: in the layers' [L, inputs, outputs]; None elsewhere."""
    of_layers = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    return jax.tree.map(lambda x: of_layers if jnp.ndim(x) == 3 else None, params)

"""What a step against the gradient does to the parts of a language model."""

from dataclasses import replace
from typing import Any

import agents
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from quick import jit

from jaxrl.algos import grpo, sft, turn_ppo
from jaxrl.lm.learn.optimizer import MUON_RMS, decayed, descend, optimizer
from jaxrl.lm.model.config import preset
from jaxrl.lm.model.params import Params
from jaxrl.lm.model.shards import Layout
from jaxrl.lm.model.transformer import Transformer
from jaxrl.policy import named_leaves

PLAIN = Layout(None, None)


@jit
def step_of(grads, params, cfg):
    """(parameters, optimiser state, metrics) after the first step."""
    return descend(grads, params, optimizer(cfg).init(params), cfg=cfg, layout=PLAIN)


def first_step(**options: Any) -> dict[str, np.ndarray]:
    """The change of each parameter by one step against a random gradient."""
    model = Transformer(preset("nano", 300), nnx.Rngs(0))
    cfg = sft.Config(learning_rate=1e-2, max_grad_norm=1e9, **options)
    leaves, structure = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    grads, params = Params(jax.tree.unflatten(structure, drawn)), Params(model)

    after, _, _ = step_of(grads, params, cfg)
    change = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), after, params)
    return named_leaves(change.policy)


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


FAMILIES = {
    "scratch": agents.MODEL,
    "biases and a head": replace(agents.MODEL, num_layers=2, qkv_bias=True, tied=False),
    "four norms": replace(
        agents.MODEL, num_layers=2, family="gemma2", post_norms=True, norm_offset=True
    ),
    "adapters": replace(agents.MODEL, lora_rank=2),
}


@pytest.mark.parametrize("cfg", FAMILIES.values(), ids=FAMILIES)
def test_weight_decay_touches_matrices_and_tables_and_no_norm_bias_or_critic(cfg):
    params = agents.params(has_critic=True)
    params = params.replace(policy=Transformer(cfg, nnx.Rngs(0))).trained()
    touched = {name for name, kept in named_leaves(decayed(params)).items() if kept}
    everything = named_leaves(params)
    left = everything.keys() - touched
    assert all("norm" in name or "bias" in name or ".critic" in name for name in left), left
    assert not any("norm" in name or "bias" in name for name in touched)
    wanted = {name for name in everything if "embed" in name or "head" in name}
    assert touched >= wanted and len(touched) - len(wanted) in (7, 14)


def test_weight_decay_shrinks_what_it_touches_by_its_rate_and_moves_nothing_else():
    params = agents.params(has_critic=True)
    cfg = turn_ppo.Config(weight_decay=0.5, learning_rate=0.1)
    zero = jax.tree.map(jnp.zeros_like, params)
    after, _, _ = step_of(zero, params, cfg)
    kept = named_leaves(decayed(params))
    new = named_leaves(after)
    for name, x in named_leaves(params).items():
        np.testing.assert_allclose(new[name], x * (0.95 if kept[name] else 1), rtol=1e-6)


def test_policy_and_critic_are_clipped_apart():
    params = agents.params(has_critic=True)
    grads = params.replace(
        policy=jax.tree.map(lambda x: jnp.full_like(x, 1e-3), params.policy),
        critic=jax.tree.map(lambda x: jnp.full_like(x, 1e3), params.critic),
    )
    norms = PLAIN.norms(grads)
    np.testing.assert_allclose(norms.policy, optax.tree.norm(grads.policy), rtol=1e-5)
    np.testing.assert_allclose(norms.critic, 3e3, rtol=1e-5)
    assert norms.policy < 1 < norms.critic
    cfg = turn_ppo.Config(max_grad_norm=1.0)
    _, state, metrics = step_of(grads, params, cfg)
    (mu,) = (x.mu for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu"))
             if hasattr(x, "mu"))  # fmt: skip
    np.testing.assert_allclose(mu.policy.embed[...], 1e-4, rtol=1e-5)  # as it came
    np.testing.assert_allclose(10 * optax.tree.norm(mu.critic), 1.0, rtol=1e-5)
    assert metrics["critic_grad_norm"].numerator > 2.9e3


def rates(cfg: Any, iterations: int) -> list[float]:
    return [float(cfg.at_iteration(jnp.int32(i)).learning_rate) for i in range(iterations)]


def test_the_warm_start_has_its_own_rate_and_a_linear_one_falls_towards_0_from_its_end():
    cfg = grpo.Config(
        sft_steps=3, sft_learning_rate=0.5, learning_rate=0.1, lr_schedule="linear",
        entropy_coef=0.2, entropy_schedule="linear", sft_coef=0.4, total_episodes=512 * 4,
    )  # fmt: skip
    assert cfg.num_iterations == 7
    np.testing.assert_allclose(
        rates(cfg, 8), [0.5, 0.5, 0.5, 0.1, 0.075, 0.05, 0.025, 0.0], atol=1e-7
    )
    now = cfg.at_iteration(jnp.int32(5))
    np.testing.assert_allclose([now.entropy_coef, now.sft_coef], [0.1, 0.2], rtol=1e-6)
    constant = replace(cfg, lr_schedule="constant", entropy_schedule="constant")
    assert rates(constant, 8)[3:] == [pytest.approx(0.1)] * 5


def test_the_critics_first_step_after_a_warm_start_is_of_the_rate_of_learning():
    """No counter sleeps through the warm start: policy and critic move by the same rate."""
    cfg = turn_ppo.Config(sft_steps=3, sft_learning_rate=0.5, learning_rate=1e-3)
    params = agents.params(has_critic=True)
    state = optimizer(cfg).init(params)
    grads = jax.tree.map(jnp.ones_like, params)

    @jit
    def step(params, state, iteration):
        now = cfg.at_iteration(iteration)
        of_policy = grads.replace(critic=jax.tree.map(jnp.zeros_like, grads.critic))
        used = jax.tree.map(lambda a, b: jnp.where(iteration < 3, a, b), of_policy, grads)
        return descend(used, params, state, cfg=now, layout=PLAIN)[:2]

    for iteration in range(3):
        params, state = step(params, state, jnp.int32(iteration))
    assert not params.critic.weight.any()
    after, _ = step(params, state, jnp.int32(3))
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after, params)
    assert 0 < moved.critic.weight < 3e-3
    assert all(0 < x < 3e-3 for x in jax.tree.leaves(moved.policy))

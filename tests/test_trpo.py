"""TRPO's step and its parts, against dense matrices and by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from quick import jit
from small_ppo import small_policy

from jaxrl import sgd
from jaxrl.algos import trpo
from jaxrl.distributions import Categorical
from jaxrl.on_policy import Batch
from jaxrl.spaces import Box, Discrete

CFG = trpo.Config(cg_damping=0.05, cg_steps=80, target_kl=1e-5)
ONE = sgd.over_devices(None)


@pytest.mark.parametrize("b", [[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
def test_conjugate_gradient_solves_n_equations_in_n_steps_and_nothing_by_0(b):
    a = np.float32([[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 2.0]])
    b = np.float32(b)
    solve = jit(lambda b, n: trpo.conjugate_gradient(lambda x: a @ x, b, n))
    np.testing.assert_allclose(solve(b, 3), np.linalg.solve(a, b), atol=1e-5)
    np.testing.assert_array_equal(solve(b, 0), np.zeros(3))
    assert np.all(np.isfinite(solve(b, 50)))


@pytest.mark.parametrize(
    ("gain", "kl", "share", "tries"),
    [
        (lambda s: s, lambda s: 0.009 * s, 1.0, 1),  # the whole step
        (lambda s: s, lambda s: 0.03 * s * s, 0.512, 4),  # 0.64 is still too far: 0.0123
        (lambda s: 0.7 - s, lambda s: 0.0 * s, 0.64, 3),  # a longer one makes it worse
        (lambda s: -s, lambda s: 0.0 * s, 0.0, 10),  # none helps: it stays
        (lambda s: 0.0 * s, lambda s: 0.0 * s, 0.0, 10),  # no gain is none
        (lambda s: s, lambda s: jnp.nan * s, 0.0, 10),  # of what is unknown none is near
    ],
)
def test_the_first_share_that_gains_and_stays_near_is_taken(gain, kl, share, tries):
    found, told = trpo.line_search(lambda s: (gain(s), kl(s)), trpo.Config())
    np.testing.assert_allclose(found, share, rtol=1e-6)
    assert told["line_search_tries"] == tries
    assert told["kl"] <= 0.01 and told["improvement"] >= 0


def rows_of(policy, action_space):
    """Eight rows that the policy played."""
    rng = np.random.default_rng(1)
    obs, advantage = np.float32(rng.normal(size=(8, 2))), np.float32(rng.normal(size=8))
    if isinstance(action_space, Box):
        action = np.float32(rng.normal(size=(8, 2)))
    else:
        action = rng.integers(0, 3, 8).astype(np.int32)
    log_prob = policy.distribution(obs).log_prob(action)
    return Batch(obs, action, log_prob, advantage, advantage, advantage)


@pytest.fixture(scope="module", params=[Discrete(3), Box(-1.0, 1.0, (2,))], ids=["choice", "real"])
def problem(request):
    """(policy, rows, its Fisher matrix from the scores of all outcomes, the surrogate's slope)."""
    policy = small_policy(request.param)
    rows = jit(partial(rows_of, action_space=request.param))(policy)
    flat, unravel = ravel_pytree(policy)

    def scores(flat):
        """What the distribution's own Fisher matrix is known for."""
        pi = unravel(flat).distribution(rows.obs)
        if isinstance(pi, Categorical):
            return jax.nn.log_softmax(pi.logits)
        return pi.mean, jnp.broadcast_to(pi.log_std, pi.mean.shape)

    def dense(flat):
        pi, slopes = unravel(flat).distribution(rows.obs), jax.jacobian(scores)(flat)
        if isinstance(pi, Categorical):
            weighted = jnp.sqrt(jax.nn.softmax(pi.logits))[..., None] * slopes
            return jnp.einsum("nai,naj->ij", weighted, weighted) / 8
        of_mean, of_std = slopes
        of_mean = of_mean * jnp.exp(-pi.log_std)[:, None]
        products = jnp.einsum("nai,naj->ij", of_mean, of_mean)
        return (products + 2 * jnp.einsum("nai,naj->ij", of_std, of_std)) / 8

    slope = lambda policy: sgd.gradient(trpo.surrogate, policy, rows, total=ONE)[0]  # noqa: E731
    matrix, g = jit(lambda flat: (dense(flat), ravel_pytree(slope(unravel(flat)))[0]))(flat)
    return policy, rows, np.asarray(matrix, np.float64), np.asarray(g, np.float64)


def test_a_product_with_fishers_matrix_is_that_of_the_dense_one(problem):
    policy, rows, matrix, _ = problem
    flat, unravel = ravel_pytree(policy)
    vector = np.float32(np.random.default_rng(2).normal(size=flat.shape))

    @jit
    def run(policy, vector):
        return ravel_pytree(trpo.fisher_product(policy, unravel(vector), rows, ONE))[0]

    np.testing.assert_allclose(run(policy, vector), matrix @ vector, rtol=1e-3, atol=1e-5)


def test_the_step_is_the_natural_gradient_of_the_length_that_the_kl_allows(problem):
    policy, rows, matrix, g = problem
    after, log = jit(lambda p, rows: trpo.improve(p, rows, CFG, None))(policy, rows)
    damped = matrix + 0.05 * np.eye(len(g))
    step = np.linalg.solve(damped, -g)
    step *= np.sqrt(2 * CFG.target_kl / (step @ damped @ step))
    moved = np.asarray(ravel_pytree(after)[0] - ravel_pytree(policy)[0], np.float64)
    assert float(log["step_share"].numerator) == 1
    np.testing.assert_allclose(moved, step, rtol=0.02, atol=2e-6)
    jax.tree.map(np.testing.assert_array_equal, after.critic, policy.critic)
    kl, gain = float(log["kl"].numerator), float(log["improvement"].numerator)
    np.testing.assert_allclose(kl, step @ matrix @ step / 2, rtol=0.05)
    np.testing.assert_allclose(gain, -g @ step, rtol=0.1)


def test_without_an_advantage_the_policy_stays_and_nothing_is_nan(problem):
    policy, rows, _, _ = problem
    rows = rows.replace(advantage=0 * rows.advantage)
    after, log = jit(lambda p, rows: trpo.improve(p, rows, CFG, None))(policy, rows)
    jax.tree.map(np.testing.assert_array_equal, after, policy)
    assert float(log["step_share"].numerator) == 0
    assert np.all(np.isfinite(jax.tree.leaves(log)))


def test_the_critics_loss_has_no_slope_in_the_policy(problem):
    policy, rows, _, _ = problem
    slope = jit(jax.grad(lambda p: trpo.critic_loss(p, rows)[0].numerator))(policy)
    assert all(np.all(x == 0) for x in jax.tree.leaves((slope.actor, slope.log_std)))
    assert max(np.max(np.abs(x)) for x in jax.tree.leaves(slope.critic)) > 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_kl": 0.0}, "target_kl=0.0 must be .* above 0; try 0.01"),
        ({"cg_steps": 0}, "cg_steps=0 must be .* above 0; try 15"),
        ({"line_search_shrink": 1.5}, r"line_search_shrink=1.5 must lie in \[0.0, 1.0\]; try 0.8"),
        ({"cg_damping": -1.0}, "cg_damping=-1.0 must lie in"),
        ({"gae_lambda": 2.0}, "gae_lambda=2.0 must lie in"),
    ],
)
def test_an_option_out_of_range_is_refused_with_a_value_that_works(options, words):
    with pytest.raises(ValueError, match=words):
        trpo.Config(**options)

"""Metrics as sums: what is unknown stays so, and no mean depends on how the work was cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import sgd
from jaxrl.metrics import HIDDEN, Sums, add_up, mean, merged, quotient, until_broken, value
from train.causes import first_broken
from train.logs import known_means

X = np.float32([1, 2, 4, 8, 16, 32])
KEEP = np.array([0, 1, 1, 0, 0, 1], bool)


def test_a_mean_is_the_sum_of_what_the_mask_keeps_over_how_much_that_is():
    assert mean(X) == (63, 6) and mean(X, KEEP) == (38, 3)
    assert mean(X > 3) == (4, 6)  # of booleans too, in float32
    assert mean(X > 3).numerator.dtype == jnp.float32
    assert quotient(mean(X, KEEP)) == np.float32(38 / 3)


def test_what_the_mask_drops_may_be_anything_and_has_no_gradient():
    x = jnp.where(KEEP, X, jnp.nan)
    assert mean(x, KEEP) == (38, 3)
    grad = jax.grad(lambda x: mean(x, KEEP).numerator)(x)
    np.testing.assert_array_equal(grad, KEEP)


def test_an_empty_mean_is_unknown_and_leaves_the_others_as_they_are():
    empty = mean(X, KEEP & False)
    assert empty == (0, 0) and quotient(empty) == 0
    two = add_up({"entropy": jax.tree.map(lambda *x: jnp.stack(x), mean(X), empty)})
    assert quotient(two["entropy"]) == np.float32(63 / 6)  # and not half of it


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_mean_over_pieces_is_the_mean_of_all_rows_not_of_the_pieces(size):
    pieces = [mean(X[i : i + size], KEEP[i : i + size]) for i in range(0, 6, size)]
    stacked = {"x": jax.tree.map(lambda *x: jnp.stack(x), *pieces)}
    assert add_up(stacked)["x"] == (38, 3)


def test_a_number_that_is_no_mean_is_shown_as_its_mean_over_iterations():
    norms = {"norm": jax.tree.map(lambda *x: jnp.stack(x), value(2), value(6))}
    assert add_up(norms)["norm"] == (8, 2)


def masked_loss(params, rows):
    x, keep = rows
    return mean(params * x, keep), {"x": mean(x, keep)}


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_a_gradient_in_pieces_weighs_every_kept_row_the_same(size):
    grads, metrics = sgd.gradient(masked_loss, jnp.float32(3), (X, KEEP), size)
    np.testing.assert_allclose(grads, 38 / 3, rtol=1e-6)
    assert metrics == {"x": (38, 3), "loss": (3 * 38, 3)}


def test_a_gradient_of_nothing_is_zero_and_its_metrics_are_unknown():
    grads, metrics = sgd.gradient(masked_loss, jnp.float32(3), (X, KEEP & False), 2)
    assert grads == 0 and metrics == {"x": (0, 0), "loss": (0, 0)}


def window(numerator, denominator):
    """Sums as the host has them, [iterations, K]."""
    return Sums(np.float32(numerator), np.float32(denominator))


def test_a_window_is_divided_once_so_that_an_iteration_counts_by_what_it_counted():
    """Three episodes of return 1 and one of return 9 have a mean of 3; 5 is that of the means."""
    host = {"episode_return": window([[3], [9], [100]], [[3], [1], [1]])}
    np.testing.assert_array_equal(known_means(host, 0, 2)["episode_return"], [3])
    np.testing.assert_array_equal(known_means(host)["episode_return"], [112 / 5])


def test_what_is_unknown_of_all_members_is_left_out_and_of_some_is_nan():
    host = {"both": window([[0, 0]], [[0, 0]]), "one": window([[0, 6]], [[0, 2]])}
    means = known_means(host)
    assert set(means) == {"one"}
    np.testing.assert_array_equal(means["one"], [np.nan, 3])
    assert known_means(host, 1, 1) == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["numerator", "denominator"])
def test_a_number_that_is_not_finite_is_found_with_its_iteration_name_and_member(bad, part):
    host = {"first": window(np.ones((4, 3)), np.ones((4, 3)))}
    assert first_broken(host, 4) is None
    host["second"] = window(np.ones((4, 3)), np.ones((4, 3)))
    getattr(host["second"], part)[2, 1] = bad
    host["third"] = window(np.ones((4, 3)), np.ones((4, 3)))
    host["third"].numerator[3, 0] = bad
    assert first_broken(host, 4) == (2, 1, "loss (second)", False)
    assert first_broken(host, 2) is None


def test_a_metric_that_diverges_although_nothing_was_counted_is_found_too():
    host = {"loss": window([[0], [np.nan]], [[1], [0]])}
    assert first_broken(host, 2) == (1, 0, "loss", False)


NAN = ("param_norm", "grad_norm_actor", "approx_kl", "value", "fuel", "episode_return")


@pytest.mark.parametrize(
    ("broken", "what", "of_env"),
    [
        ({"observation": 1, "reward": 1, "action": 1}, "observation", True),
        ({"reward": 2, "action": 1}, "reward", True),
        ({"action": 1}, "action", False),
        ({}, "fuel", True),
    ],
)
def test_what_was_played_is_named_before_what_was_made_of_it(broken, what, of_env):
    host = {name: window([[np.nan]], [[1]]) for name in NAN}
    for name in ("observation", "reward", "action"):
        host[HIDDEN + name] = window([[broken.get(name, 0)]], [[1]])
    assert first_broken(host, 1, ["fuel"]) == (0, 0, what, of_env)


def test_what_is_learned_is_named_in_the_order_of_cause():
    names, said = ["value", "policy_loss", "grad_norm_actor", "param_norm"], []
    while names:
        host = {name: window([[np.nan]], [[1]]) for name in sorted(names)}
        said += [broken.what] if (broken := first_broken(host, 1)) else []
        del names[0]
    wanted = ["value", "loss (policy_loss)", "gradient (grad_norm_actor)"]
    assert said == [*wanted, "parameters (param_norm)"]


def test_a_counter_is_an_explanation_and_stops_no_run():
    """An observation may be NaN on purpose, where a network knows what to make of it."""
    host = {"loss": window([[1]], [[1]]), HIDDEN + "observation": window([[1]], [[1]])}
    assert first_broken(host, 1) is None


def test_what_follows_the_first_broken_minibatch_is_not_added_up():
    """Or of a gradient that breaks all that could be said is that everything is broken."""
    nan = np.nan
    stacked = {"loss": Sums(np.float32([1, 2, nan]), np.ones(3, np.float32))}
    stacked["grad_norm"] = Sums(np.float32([1, nan, nan]), np.ones(3, np.float32))
    total = add_up(until_broken(jax.tree.map(jnp.asarray, stacked)))
    assert total["loss"] == (3, 2) and np.isnan(total["grad_norm"].numerator)


def test_a_name_that_two_give_is_refused_and_others_are_joined():
    one, other = {"loss": value(1.0)}, {"fuel": value(2.0)}
    assert merged(one, other) == one | other
    with pytest.raises(ValueError, match="metric 'loss' is the trainer's and the environment's"):
        merged(one, other, {"loss": value(3.0)})

"""Statistics of final returns, by hand."""

import numpy as np
import pytest

from jaxrl.statistics import (
    bootstrap_ci,
    interval,
    iqm,
    majority,
    pass_at,
    performance_profile,
    powers,
    probability_of_improvement,
    resampled_iqm,
    summarize_returns,
    wilson,
)

RETURNS = np.array([[1.0, 3.0], [2.0, 2.0], [0.0, 8.0], [100.0, 200.0], [-50.0, 10.0]])


def test_the_iqm_is_the_mean_of_the_middle_half():
    assert iqm(np.array([1e9, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, -1e9])) == 3.5
    assert iqm(np.array([1.0, 2.0, 3.0])) == 2  # fewer than four: nothing to cut
    np.testing.assert_array_equal(iqm(np.array([[0, 1, 2, 99], [9, 9, 9, 9]])), [1.5, 9])


def test_the_interval_is_that_of_the_iqm_of_resampled_scores():
    scores = np.random.default_rng(1).normal(10, 2, 40)
    low, high = bootstrap_ci(scores)
    rng = np.random.default_rng(2)
    resampled = iqm(rng.choice(scores, (4000, 40)))
    np.testing.assert_allclose([low, high], np.percentile(resampled, [2.5, 97.5]), atol=0.15)
    assert low < iqm(scores) < high


def test_the_interval_is_a_function_of_scores_and_seed():
    scores = np.random.default_rng(1).normal(size=12)
    assert bootstrap_ci(scores, 3) == bootstrap_ci(scores, 3) != bootstrap_ci(scores, 4)


@pytest.mark.parametrize("scores", [np.array([7.0]), np.full(6, 7.0)])
def test_scores_that_do_not_vary_have_an_interval_of_no_width(scores):
    assert bootstrap_ci(scores) == [7, 7]


def test_a_summary_of_several_seeds_resamples_seeds():
    summary = summarize_returns(RETURNS)
    assert summary["per_seed"] == [2, 2, 4, 150, -20] and summary["mean"] == 27.6
    assert summary["iqm"] == pytest.approx(8 / 3)  # of the means 2, 2 and 4
    assert summary["ci95"] == bootstrap_ci(RETURNS.mean(1)) and summary["ci95_over"] == "seeds"
    assert summary["episodes_per_seed"] == 2


def test_a_summary_of_one_seed_resamples_its_episodes():
    summary = summarize_returns(RETURNS.reshape(1, -1))
    assert summary["per_seed"] == [27.6] == [summary["mean"]]
    assert summary["iqm"] == iqm(RETURNS.ravel()) and summary["ci95_over"] == "episodes"
    assert summary["ci95"] == bootstrap_ci(RETURNS.ravel())
    assert summary["episodes_per_seed"] == 10


def test_a_summary_has_the_mean_of_every_metric_over_all_seeds_and_of_each():
    metrics = {
        "success": np.array([[True, False], [True, True]]),
        "fuel": np.float32([[1, 3], [5, 7]]),
    }
    summary = summarize_returns(np.ones((2, 2)), metrics)
    assert summary["metrics"] == {
        "fuel": {"mean": 4.0, "per_seed": [2.0, 6.0]},
        "success": {"mean": 0.75, "per_seed": [0.5, 1.0]},
    }
    assert list(summary["metrics"]) == ["fuel", "success"]
    assert summarize_returns(np.ones((2, 2)))["metrics"] == {}


def test_pass_at_k_is_the_share_of_draws_of_k_samples_that_hold_a_right_one():
    success = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], bool)
    assert pass_at(success, 1) == success.mean()
    # Of the 6 pairs of samples 3, 0 and 6 hold a right one.
    assert pass_at(success, 2) == pytest.approx((3 / 6 + 0 + 6 / 6) / 3)
    assert pass_at(success, 4) == pytest.approx(2 / 3)
    assert powers(1) == [1] and powers(6) == [1, 2, 4, 6] and powers(8) == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("answer", "success", "right"),
    [
        ([5, 7, 7, 9], [1, 0, 0, 0], 0),  # 7 is said most often
        ([5, 7, 7, 5], [1, 0, 0, 1], 1),  # of equals the first seen
        ([7, 5, 5, 7], [0, 1, 1, 0], 0),
        ([-1, -1, -1, 5], [0, 0, 0, 1], 1),  # no answer has no vote
        ([-1, -1, -1, -1], [0, 0, 0, 0], 0),
    ],
)
def test_the_majority_is_of_answers_and_not_of_samples(answer, success, right):
    assert majority(np.array([success], bool), np.array([answer])) == right


def test_the_interval_of_a_share_has_a_width_at_its_ends():
    assert wilson(0.0, 64) == pytest.approx([0.0, 0.0566], abs=1e-4)
    assert wilson(0.5, 100) == pytest.approx([0.4038, 0.5962], abs=1e-4)
    assert wilson(1.0, 64) == pytest.approx([0.9434, 1.0], abs=1e-4)


def test_resampled_iqms_are_of_whole_runs_and_give_the_interval_of_the_bootstrap():
    scores = np.random.default_rng(1).normal(10, 2, 40)
    both = resampled_iqm(np.stack([scores, scores + 5], 1), 2000)
    np.testing.assert_allclose(both[:, 1] - both[:, 0], 5)  # a run is drawn with all it has
    np.testing.assert_allclose(interval(both[:, 0]), bootstrap_ci(scores), atol=0.15)


def test_the_probability_of_improvement_counts_ties_half_and_tasks_alike():
    one, other = np.array([1.0, 3.0, 5.0]), np.array([3.0, 4.0])
    assert probability_of_improvement([one], [other])[0] == pytest.approx((0.5 + 2) / 6)
    tasks = [one, np.array([9.0])], [other, np.array([0.0, 1.0])]  # of the second all, of the first
    point, (low, high) = probability_of_improvement(*tasks)
    assert point == pytest.approx((2.5 / 6 + 1) / 2) and 0.5 <= low < point < high <= 1
    back, (below, above) = probability_of_improvement(tasks[1], tasks[0])
    assert back == pytest.approx(1 - point)
    np.testing.assert_allclose([1 - above, 1 - below], [low, high], atol=0.02)


def test_a_performance_profile_is_the_share_of_runs_above_each_score():
    tau = np.array([0.0, 1.0, 2.5, 9.0])
    share, (low, high) = performance_profile([np.array([1.0, 2.0, 3.0, 4.0])], tau)
    np.testing.assert_array_equal(share, [1, 0.75, 0.5, 0])
    assert (low <= share).all() and (share <= high).all() and low[2] == 0 and high[2] == 1
    tasks = [np.array([0.0]), np.array([5.0, 5.0, 5.0])]
    np.testing.assert_array_equal(performance_profile(tasks, tau)[0], [0.5, 0.5, 0.5, 0])


def test_they_are_those_of_rliable():
    theirs = pytest.importorskip("rliable.metrics", reason="the reference of these definitions")
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 1, (7, 5)).round(1), rng.normal(0.5, 2, (9, 5)).round(1)
    point = probability_of_improvement(list(x.T), list(y.T))[0]
    np.testing.assert_allclose(point, theirs.probability_of_improvement(x, y))
    np.testing.assert_allclose(iqm(x.ravel()), theirs.aggregate_iqm(x))

"""Datasets as strata: their small-sample corrections, and what no change leaves open."""

import numpy as np
import pytest
from scipy import optimize, stats

from forgetbench.statistics.bounds import zero_change_bound
from forgetbench.statistics.intervals import clustered_mean, paired_difference
from forgetbench.statistics.seeds import over_seeds
from forgetbench.statistics.significance import equivalence_p
from forgetbench.statistics.strata import Stratum


def stratum(weight: float, clusters: int) -> Stratum:
    return Stratum(weight, clusters, float(clusters), float(clusters), 0.0)


def two_sets(first: int, second: int) -> tuple[list[list[str]], np.ndarray, list[str]]:
    """Unclustered items of two datasets of equal weight."""
    weights = np.r_[np.full(first, 0.5 / first), np.full(second, 0.5 / second)]
    return [[str(i) for i in range(first + second)]], weights, ["a"] * first + ["b"] * second


def test_the_interval_of_two_unequal_datasets_is_welchs() -> None:
    random = np.random.default_rng(0)
    y = np.r_[random.normal(0, 3, 6), random.normal(0, 1, 200)]
    estimate = clustered_mean(y, *two_sets(6, 200), limits=None)
    welch = stats.ttest_ind(y[:6], -y[6:], equal_var=False).confidence_interval()
    assert (2 * estimate.ci_low, 2 * estimate.ci_high) == pytest.approx((welch.low, welch.high))


def test_a_dataset_of_one_cluster_leaves_no_error() -> None:
    ways, weights, strata = two_sets(1, 50)
    estimate = clustered_mean(np.random.default_rng(0).normal(size=51), ways, weights, strata)
    assert (estimate.stderr, estimate.ci_low) == (None, None)


@pytest.mark.parametrize(
    ("weights", "clusters"), [((1.0,), (40,)), ((0.5, 0.5), (10, 1000)), ((0.2, 0.5, 0.3), (9, 30, 80))]
)
def test_the_room_of_no_change_is_the_largest_mean_within_the_budget(
    weights: tuple[float, ...], clusters: tuple[int, ...]
) -> None:
    strata = [stratum(w, c) for w, c in zip(weights, clusters, strict=True)]
    budget = {"type": "eq", "fun": lambda q: np.sum(clusters * np.log1p(-q)) - np.log(0.05)}
    start = np.full(len(weights), 1 - 0.05 ** (1 / sum(clusters)))
    optimum = optimize.minimize(
        lambda q: -np.dot(weights, q), start, bounds=[(0, 0.99)] * len(weights), constraints=budget
    )
    assert zero_change_bound(strata, shares_clusters=False) == pytest.approx(-optimum.fun, rel=1e-4)


def test_strata_on_the_same_pictures_are_no_independent_witnesses() -> None:
    strata = [stratum(0.5, 20), stratum(0.5, 20)]
    assert zero_change_bound(strata, shares_clusters=True) == pytest.approx(1 - 0.05 ** (1 / 20))
    assert zero_change_bound(strata, shares_clusters=False) == pytest.approx(1 - 0.05 ** (1 / 40))


def test_few_items_of_one_dataset_keep_an_unchanged_mean_uncertain() -> None:
    ways, weights, strata = two_sets(10, 1000)
    change = paired_difference(np.ones(1010), np.ones(1010), ways, weights, strata).difference
    assert change.ci_high == pytest.approx(0.5 * (1 - 0.05**0.1), rel=0.05)


def test_one_large_cluster_counts_as_hardly_more_than_one() -> None:
    clusters = [["large"] * 250 + [str(i) for i in range(50)]]
    change = paired_difference(np.ones(300), np.ones(300), clusters).difference
    assert change.ci_high > 0.8


def test_a_drop_that_one_dataset_may_hide_is_not_ruled_out() -> None:
    ways, weights, strata = two_sets(20, 2000)
    change = over_seeds([np.zeros(2020)], ways, weights, strata)
    # A drop of 2 points may be one of 4 points in 20 items, which leaves them unchanged with .96^20.
    assert equivalence_p(change, 0.02) == pytest.approx(0.96**20)


def test_an_interaction_at_the_margin_is_rarely_called_none() -> None:
    n, margin = 150, 0.02
    ways, _, strata = two_sets(n, n)
    weights = np.r_[np.full(n, 1 / n), np.full(n, -1 / n)]
    losses = np.arange(12)
    drops = [np.r_[np.ones(k), np.zeros(2 * n - k)] for k in losses]
    p_values = [equivalence_p(over_seeds([drop], ways, weights, strata), margin) for drop in drops]
    claims = [p is not None and p < 0.05 for p in p_values]
    assert stats.binom.pmf(losses, n, margin) @ claims <= 0.05

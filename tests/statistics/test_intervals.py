"""Estimates against hand-worked cases, explicit loops and simulated coverage."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from forgetbench.statistics.intervals import (
    ClusteredScores,
    clustered_mean,
    contrast,
    difference_of_means,
    paired_difference,
)


def labels(prefix: str, codes: object) -> list[str]:
    return [f"{prefix}={code}" for code in np.asarray(codes)]


def double_sum(influences: np.ndarray, together: object) -> float:
    """Sum of e_i e_j over the pairs of items that `together` puts in one cluster."""
    n = len(influences)
    return sum(
        influences[i] * influences[j]
        for i, j in product(range(n), repeat=2)
        if together(i, j)  # type: ignore[operator]
    )


def test_a_clustered_mean_matches_the_hand_worked_case() -> None:
    # Mean 2; residual sums -1.5 + -0.5 = -2 and 0.5 + 1.5 = 2; SE = sqrt(2/1 * 8) / 4 = 1.
    estimate = clustered_mean([0.5, 1.5, 2.5, 3.5], [["a", "a", "b", "b"]], limits=None)
    assert (estimate.value, estimate.stderr) == pytest.approx((2, 1))
    assert (estimate.n, estimate.n_clusters) == (4, 2)
    half = 12.7062047  # t with 1 degree of freedom
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((2 - half, 2 + half))


def test_binary_unclustered_items_get_the_wilson_interval() -> None:
    # 8 of 10: the textbook interval is 0.490 to 0.943.
    estimate = clustered_mean([1] * 8 + [0] * 2, [labels("item", range(10))])
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((0.4901625, 0.9433178))
    assert estimate.stderr == pytest.approx(math.sqrt(0.8 * 0.2 / 9))


def test_all_right_still_has_an_interval_when_unclustered() -> None:
    estimate = clustered_mean([1] * 10, [labels("item", range(10))])
    assert estimate.ci_low == pytest.approx(0.7224672)
    assert estimate.ci_high == 1


def test_wilson_and_clustered_errors_agree_with_statsmodels() -> None:
    wilson = clustered_mean([1] * 13 + [0] * 24, [labels("item", range(37))])
    assert (wilson.ci_low, wilson.ci_high) == pytest.approx(proportion_confint(13, 37, method="wilson"))
    random = np.random.default_rng(6)
    image, fact = random.integers(0, 25, 200), random.integers(0, 14, 200)
    y = random.normal(size=200) + random.normal(size=25)[image] + random.normal(size=14)[fact]
    for groups, ways in (
        (image, [labels("image", image)]),
        (np.column_stack([image, fact]), [labels("image", image), labels("fact", fact)]),
    ):
        fitted = sm.OLS(y, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": groups})
        assert clustered_mean(y, ways).stderr == pytest.approx(float(fitted.bse[0]))


def test_clusters_that_are_all_right_still_have_an_interval() -> None:
    estimate = clustered_mean([1] * 40, [labels("image", np.arange(40) // 4)])
    # Were 26 % of clusters wrong, none of 10 would be in 5 % of cases.
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((0.05**0.1, 1))
    assert estimate.stderr == 0


def test_no_change_in_c_clusters_leaves_room_for_one() -> None:
    pair = paired_difference([1] * 40, [1] * 40, [labels("image", np.arange(40) // 4)])
    # Were 26 % of clusters to change, none of 10 would in 5 % of cases.
    assert (pair.difference.ci_low, pair.difference.ci_high) == pytest.approx((-(1 - 0.05**0.1), 1 - 0.05**0.1))
    assert (pair.difference.value, pair.mde) == (0, None)


def test_a_difference_never_gets_the_wilson_interval() -> None:
    change = paired_difference([1, 1, 1, 0], [1, 0, 1, 0], [labels("item", range(4))]).difference
    assert change.ci_low is not None
    assert change.ci_low < 0


def test_clustered_intervals_end_where_shares_end() -> None:
    nearly = clustered_mean([1] * 11 + [0], [labels("image", np.arange(12) // 4)])
    plain = clustered_mean([1] * 11 + [0], [labels("image", np.arange(12) // 4)], limits=None)
    assert plain.ci_high is not None
    assert plain.ci_high > 1
    assert (nearly.ci_low, nearly.ci_high) == (plain.ci_low, 1)
    few = paired_difference([0, 0, 0, 1], [1, 1, 1, 0], [["a", "a", "b", "b"]]).difference
    assert (few.ci_low, few.ci_high) == (-1, 1)
    cider = paired_difference([9.0, 1, 2, 3], [1.0, 2, 2, 1], [["a", "a", "b", "b"]], limits=None).difference
    assert cider.ci_high is not None
    assert cider.ci_high > 1


def test_sides_that_do_not_vary_have_a_difference_with_the_interval_of_newcombe() -> None:
    first = ClusteredScores([0.0] * 10, [labels("item", range(10))])
    second = ClusteredScores([0.0] * 20, [labels("item", range(100, 120))])
    difference = difference_of_means(first, second)
    expected = confint_proportions_2indep(0, 10, 0, 20, method="newcomb", compare="diff")
    assert (difference.ci_low, difference.ci_high) == pytest.approx(expected)
    assert difference.stderr == 0
    opposite = difference_of_means(replace(second, values=[1.0] * 20), first)
    assert (opposite.ci_low, opposite.ci_high) == pytest.approx(
        confint_proportions_2indep(20, 20, 0, 10, method="newcomb", compare="diff")
    )


def test_no_items_is_absent_and_one_cluster_has_no_error() -> None:
    nothing = clustered_mean([], [[]])
    assert (nothing.value, nothing.stderr, nothing.n) == (None, None, 0)
    single = clustered_mean([0, 1], [["a", "a"]])
    assert (single.value, single.stderr, single.ci_low) == (0.5, None, None)


def test_two_way_error_equals_the_explicit_double_sum() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 6, 60), random.integers(0, 5, 60)
    y = random.normal(size=60) + random.normal(size=6)[a] + random.normal(size=5)[b]
    residuals = (y - y.mean()) / 60
    pairs = len(set(zip(a, b, strict=True)))
    expected = (
        6 / 5 * double_sum(residuals, lambda i, j: a[i] == a[j])
        + 5 / 4 * double_sum(residuals, lambda i, j: b[i] == b[j])
        - pairs / (pairs - 1) * double_sum(residuals, lambda i, j: a[i] == a[j] and b[i] == b[j])
    )
    estimate = clustered_mean(y, [labels("image", a), labels("fact", b)], limits=None)
    assert estimate.stderr == pytest.approx(math.sqrt(expected))
    assert estimate.n_clusters == 5
    assert estimate.ci_high == pytest.approx(y.mean() + stats.t.ppf(0.975, 4) * math.sqrt(expected))


def test_a_negative_two_way_variance_falls_back_to_the_larger_one_way() -> None:
    # Residuals .45 -.55 -.55 .65 over a square: both ways sum to -.1 and .1, so that
    # V_a = V_b = 2 * .02 / 16, far below V_ab.
    rows, columns = ["a", "a", "b", "b"], ["x", "y", "x", "y"]
    estimate = clustered_mean([1, 0, 0, 1.2], [rows, columns])
    assert estimate.stderr == pytest.approx(0.2 / 4)


def test_a_way_given_twice_changes_nothing() -> None:
    way = labels("image", [0, 0, 1, 1, 2])
    y = [0.0, 1, 1, 1, 0]
    assert clustered_mean(y, [way, way]).stderr == pytest.approx(clustered_mean(y, [way]).stderr)


def test_a_mean_of_dataset_means_joins_the_images_they_share() -> None:
    y = np.array([1.0, 0, 1, 1, 0, 1])
    strata = ["p", "p", "q", "q", "q", "q"]
    weights = [1 / 4] * 2 + [1 / 8] * 4
    images = labels("image", [0, 1, 0, 1, 2, 2])
    estimate = clustered_mean(y, [images], weights, strata)
    assert estimate.value == pytest.approx((0.5 + 0.75) / 2)
    # Influences 1/8, -1/8 | 1/32, 1/32, -3/32, 1/32, times the root of C / (C - 1) = 2 | 3/2, summed by image.
    two, three = math.sqrt(2), math.sqrt(3 / 2)
    sums = [4 * two + three, -4 * two + three, -2 * three]
    assert estimate.stderr == pytest.approx(math.sqrt(sum(total * total for total in sums)) / 32)


def test_datasets_of_different_difficulty_add_no_error_of_their_own() -> None:
    strata = ["easy"] * 4 + ["hard"] * 4
    items = [labels("item", range(8))]
    estimate = clustered_mean([1.0] * 4 + [0.0] * 4, items, [1 / 8] * 8, strata)
    assert (estimate.value, estimate.stderr) == (0.5, 0)


def test_datasets_that_are_all_right_and_all_wrong_have_an_interval() -> None:
    strata, items = ["easy"] * 20 + ["hard"] * 20, [labels("item", range(40))]
    estimate = clustered_mean([1.0] * 20 + [0.0] * 20, items, [1 / 40] * 40, strata)
    # Both were of one kind with a probability of (1 - q)^20 each, of .05 together.
    half = 1 - 0.05 ** (1 / 40)
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((0.5 - half, 0.5 + half))
    graded = clustered_mean([0.6] * 20 + [0.3] * 20, items, [1 / 40] * 40, strata)
    assert (graded.ci_low, graded.ci_high) == (None, None)
    lost = paired_difference([0.0] * 20 + [1.0] * 20, [1.0] * 40, items, [1 / 40] * 40, strata).difference
    assert (lost.value, lost.ci_low, lost.ci_high) == (-0.5, None, None)


def test_weights_must_sum_to_one() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        clustered_mean([0, 1], [["a", "b"]], [1, 1])


def test_forgotten_and_gained_are_shares_of_all_items() -> None:
    pair = paired_difference([0, 0, 1, 1, 1], [1, 1, 0, 1, 1], [labels("item", range(5))])
    assert (pair.forgotten, pair.gained) == pytest.approx((0.4, 0.2))
    assert pair.difference.value == pytest.approx(-0.2)
    assert pair.difference.stderr is not None
    assert pair.mde == pytest.approx(2.801585 * pair.difference.stderr)  # 1.959964 + 0.841621


def test_graded_scores_have_a_difference_but_no_flows() -> None:
    pair = paired_difference([0.5, 1], [1, 1], [["a", "b"]])
    assert pair.difference.value == -0.25
    assert (pair.forgotten, pair.gained) == (None, None)


def test_items_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="do not pair"):
        paired_difference([0, 1], [1], [["a", "b"]])


def test_the_interaction_joins_clusters_by_label() -> None:
    random = np.random.default_rng(1)
    before, after = random.integers(0, 2, (2, 30)), random.integers(0, 2, (2, 30))
    images = np.array([random.integers(0, 10, 30), random.integers(5, 15, 30)])
    drops = before - after
    ways = [labels("image", images.ravel())]
    did = contrast(drops.ravel(), ways, [1 / 30] * 30 + [-1 / 30] * 30, ["ood"] * 30 + ["id"] * 30)
    assert did.value == pytest.approx(drops[0].mean() - drops[1].mean())
    sums: dict[int, float] = {}
    for sign, drop, image in zip((1, -1), drops, images, strict=True):
        n_images = len(set(image))  # C / (C - 1) of each set
        for d, c in zip(drop, image, strict=True):
            sums[c] = sums.get(c, 0) + sign * (d - drop.mean()) / 30 * math.sqrt(n_images / (n_images - 1))
    assert did.stderr == pytest.approx(math.sqrt(sum(s * s for s in sums.values())))
    assert did.n_clusters == len(sums)


def test_a_one_way_set_joins_a_two_way_set() -> None:
    first = ClusteredScores([0, 1, 1], [["image=1", "image=2", "image=3"]])
    second = ClusteredScores([1, 0], [["fact=a", "fact=b"], ["image=1", "image=2"]])
    estimate = difference_of_means(first, second)
    # Images join in the second way only; in the first and in both together all items are apart.
    e1, e2 = np.array([-2, 1, 1]) / 9, np.array([-1, 1]) / 4
    by_image = np.array([e1[0] + e2[0], e1[1] + e2[1], e1[2]])
    residuals = np.concatenate([e1, e2])
    expected = 5 / 4 * residuals @ residuals + 3 / 2 * by_image @ by_image - 5 / 4 * residuals @ residuals
    assert estimate.stderr == pytest.approx(math.sqrt(expected))


def test_an_empty_side_makes_the_difference_absent() -> None:
    assert difference_of_means(ClusteredScores([], [[]]), ClusteredScores([1], [["a"]])).value is None


@pytest.mark.parametrize("two_way", [False, True])
def test_intervals_cover_the_truth_about_95_percent_of_the_time(two_way: bool) -> None:
    random = np.random.default_rng(2)
    image, fact = np.divmod(np.arange(40 * 30), 30)
    ways = [labels("image", image)] + ([labels("fact", fact)] if two_way else [])
    covered = []
    for _ in range(400):
        y = random.normal(size=image.size) + random.normal(size=40)[image]
        y += random.normal(size=30)[fact] * two_way
        estimate = clustered_mean(y, ways, limits=None)
        assert estimate.ci_low is not None
        assert estimate.ci_high is not None
        covered.append(estimate.ci_low <= 0 <= estimate.ci_high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)

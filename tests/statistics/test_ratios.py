"""Ratios against hand-worked cases, a bootstrap, and the means that they generalise."""

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from forgetbench.statistics.intervals import clustered_mean, paired_difference
from forgetbench.statistics.ratios import RatioScores, clustered_ratio, ratio_difference


def labels(codes: object) -> list[str]:
    return [f"image={code}" for code in np.asarray(codes)]


def f1(hits: object, parts: object, codes: object) -> RatioScores:
    return RatioScores(np.asarray(hits, float), np.asarray(parts, float), [labels(codes)], hit_weight=2)


def answers(random: np.random.Generator, image: np.ndarray) -> RatioScores:
    """An F1 whose items cluster by image."""
    ease = random.normal(size=image.max() + 1)[image]
    hit, alarm = random.normal(size=image.size) + ease > 0, random.random(image.size) < 0.3
    return f1(hit, hit | alarm | (random.random(image.size) < 0.5), image)


def as_f1(rate: float) -> float:
    return 2 * rate / (1 + rate)


def test_a_ratio_matches_the_hand_worked_case() -> None:
    # F1 = 6 / 7. Residuals num - R den: 2/7, 2/7, 2/7, -6/7; by cluster 4/7, -4/7; over 7.
    estimate = clustered_ratio(f1([1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1]))
    assert estimate.value == pytest.approx(6 / 7)
    assert estimate.stderr == pytest.approx(math.sqrt(2 / 1 * 2 * (4 / 7) ** 2) / 7)
    # J = 3 / 4 with a standard error of 1 / 4; with 1 degree of freedom every share is within 12.7 of them.
    assert (estimate.ci_low, estimate.ci_high) == (0, 1)
    assert (estimate.n, estimate.n_clusters) == (4, 2)


def test_hits_that_count_once_give_the_clustered_mean() -> None:
    y, ways = [1, 0, 1, 1, 0], [labels([0, 0, 1, 2, 2])]
    assert clustered_ratio(RatioScores(y, [1] * 5, ways)) == clustered_mean(y, ways)


@pytest.mark.parametrize(("hits", "errors"), [(30, 0), (0, 30), (28, 2), (17, 13), (1, 0)])
def test_f1_of_single_items_has_the_interval_of_its_rate(hits: int, errors: int) -> None:
    n = hits + errors
    estimate = clustered_ratio(f1([1] * hits + [0] * errors + [0] * 5, [1] * n + [0] * 5, range(n + 5)))
    assert estimate.value == pytest.approx(2 * hits / (2 * hits + errors))
    if n > 1:
        ends = [as_f1(end) for end in proportion_confint(hits, n, method="wilson")]
        assert (estimate.ci_low, estimate.ci_high) == pytest.approx(ends, abs=1e-12)
    else:
        assert estimate.ci_low is None


def test_f1_of_clusters_without_an_error_has_the_bound_of_an_accuracy() -> None:
    perfect = clustered_ratio(f1([1] * 40, [1] * 40, np.arange(40) // 4))
    # Were 26 % of clusters wrong, none of 10 would be in 5 % of cases.
    assert (perfect.ci_low, perfect.ci_high) == pytest.approx((as_f1(0.05**0.1), 1))
    assert perfect.stderr == 0


def test_the_error_of_f1_is_that_of_its_rate_times_the_slope() -> None:
    random = np.random.default_rng(8)
    image = np.arange(120) // 4
    scores = answers(random, image)
    part = np.asarray(scores.included) == 1
    rate = clustered_mean(np.asarray(scores.hits)[part], [labels(image[part])])
    assert rate.value is not None
    assert rate.stderr is not None
    assert clustered_ratio(scores).stderr == pytest.approx(rate.stderr * 2 / (1 + rate.value) ** 2)


@pytest.mark.parametrize("images", [[0, 0, 1, 1, 2, 2, 3, 3], range(8)])
def test_precision_is_the_mean_over_what_was_called_positive(images: object) -> None:
    called = np.array([1, 1, 0, 1, 0, 0, 1, 1], dtype=bool)
    hit = np.array([1, 0, 0, 1, 0, 0, 0, 1])
    image = np.asarray(images)
    precision = clustered_ratio(RatioScores(hit, called, [labels(image)]))
    subset = clustered_mean(hit[called], [labels(image[called])])
    assert (precision.value, precision.stderr, precision.ci_low, precision.ci_high, precision.n_clusters) == (
        subset.value, subset.stderr, subset.ci_low, subset.ci_high, subset.n_clusters,
    )  # fmt: skip
    assert (precision.n, subset.n) == (8, 5)


def test_items_that_take_no_part_change_nothing_but_their_number() -> None:
    unpadded = clustered_ratio(f1([1, 0, 1], [1, 1, 1], [0, 1, 2]))
    padded = clustered_ratio(f1([1, 0, 1, 0, 0], [1, 1, 1, 0, 0], range(5)))
    assert (padded.value, padded.stderr, padded.ci_low) == (unpadded.value, unpadded.stderr, unpadded.ci_low)
    assert (padded.n, padded.n_clusters) == (5, 3)


def test_a_ratio_over_nothing_is_absent() -> None:
    some, none = (RatioScores([n, 0], [n, 0], [["a", "b"]]) for n in (1, 0))
    nothing = clustered_ratio(none)
    assert (nothing.value, nothing.stderr, nothing.ci_low, nothing.n) == (None, None, None, 2)
    assert clustered_ratio(RatioScores([], [], [[]])).value is None
    assert ratio_difference(some, none).value is None
    assert ratio_difference(none, some).value is None


def test_one_cluster_has_a_ratio_but_no_error() -> None:
    single = clustered_ratio(f1([1, 0], [1, 1], [0, 0]))
    assert (single.value, single.stderr, single.ci_low) == (2 / 3, None, None)
    same = ratio_difference(f1([1, 0], [1, 1], [0, 0]), f1([1, 0], [1, 1], [0, 0]))
    assert (same.value, same.ci_low) == (0, None)


def test_a_difference_matches_the_hand_worked_case() -> None:
    # R = 4 / 5 after, with influences (2 - 8/5, 2 - 8/5, -4/5) / 5 = (.08, .08, -.16); R = 2 / 3 before, whose first
    # and third item take part, with (2/9, 0, -2/9): subtracted -.1422, .08, .0622.
    change = ratio_difference(f1([1, 1, 0], [1, 1, 1], range(3)), f1([1, 0, 0], [1, 0, 1], range(3)))
    assert change.value == pytest.approx(4 / 5 - 2 / 3)
    squares = (0.08 - 2 / 9) ** 2 + 0.08**2 + (2 / 9 - 0.16) ** 2
    assert change.stderr == pytest.approx(math.sqrt(3 / 2 * squares))


def test_a_difference_of_means_is_the_paired_difference() -> None:
    after, before, ways = [1, 1, 0, 1], [0, 1, 0, 0], [labels([0, 0, 1, 2])]
    ones = [1] * 4
    change = ratio_difference(RatioScores(after, ones, ways), RatioScores(before, ones, ways))
    paired = paired_difference(after, before, ways).difference
    assert (change.value, change.stderr, change.ci_low) == pytest.approx((paired.value, paired.stderr, paired.ci_low))


@pytest.mark.parametrize("hit_weight", [1, 2])
def test_no_change_leaves_room_for_one(hit_weight: float) -> None:
    hits, parts = [1] * 24 + [0] * 24, [1] * 40 + [0] * 8
    same = RatioScores(hits, parts, [labels(np.arange(48) // 4)], hit_weight)
    change = ratio_difference(same, same)
    share = 1 - 0.05**0.1  # of the 10 clusters that take part
    half = share if hit_weight == 1 else as_f1(0.6) - as_f1(0.6 - share)
    assert (change.value, change.stderr, change.n) == (0, 0, 48)
    assert (change.ci_low, change.ci_high) == pytest.approx((-half, half))


def test_sides_without_an_error_that_differ_in_their_items_have_an_interval() -> None:
    after, before = f1([1] * 10, [1] * 10, range(10)), f1([1] * 5 + [0] * 5, [1] * 5 + [0] * 5, range(10))
    change = ratio_difference(after, before)
    low, high = (as_f1(proportion_confint(n, n, method="wilson")[0]) - 1 for n in (10, 5))
    assert (change.value, change.ci_low, change.ci_high) == pytest.approx((0, low, -high))
    lost = ratio_difference(
        RatioScores([0] * 10, [1] * 10, after.clusters), RatioScores([1] * 10, [1] * 10, after.clusters)
    )
    assert lost.value == lost.ci_low == -1
    assert lost.ci_high == pytest.approx(-1 + math.hypot(*[1 - proportion_confint(10, 10, method="wilson")[0]] * 2))


def test_a_difference_of_ratios_ends_where_differences_end() -> None:
    change = ratio_difference(f1([1, 1, 0, 0], [1] * 4, [0, 0, 1, 1]), f1([0, 0, 1, 1], [1] * 4, [0, 0, 1, 1]))
    assert (change.ci_low, change.ci_high) == (-1, 1)


def test_other_items_clusters_or_lengths_are_refused() -> None:
    short, long = RatioScores([1], [1], [["a"]]), RatioScores([1, 0], [1, 1], [["a", "b"]])
    with pytest.raises(ValueError, match="do not pair"):
        ratio_difference(short, long)
    with pytest.raises(ValueError, match="do not pair"):
        ratio_difference(long, RatioScores([1, 0], [1, 1], [["b", "a"]]))
    with pytest.raises(ValueError, match="not of the same items"):
        clustered_ratio(RatioScores([1, 0], [1], [["a", "b"]]))


def test_errors_agree_with_a_bootstrap_of_the_images() -> None:
    random = np.random.default_rng(3)
    image = np.repeat(np.arange(150), 4)
    after, before = answers(random, image), answers(random, image)
    ratio, change = clustered_ratio(after), ratio_difference(after, before)
    hits, included = (np.array([getattr(scores, name) for scores in (after, before)]) for name in ("hits", "included"))
    ratios, changes = [], []
    for _ in range(2000):
        drawn = (random.integers(0, 150, 150)[:, None] * 4 + np.arange(4)).ravel()
        after_ratio, before_ratio = 2 * hits[:, drawn].sum(1) / (included[:, drawn].sum(1) + hits[:, drawn].sum(1))
        ratios.append(after_ratio)
        changes.append(after_ratio - before_ratio)
    assert ratio.stderr == pytest.approx(np.std(ratios), rel=0.1)
    assert change.stderr == pytest.approx(np.std(changes), rel=0.1)

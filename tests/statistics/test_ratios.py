"""Ratios against hand-worked cases, a bootstrap, and the means that they generalise."""

import math

import numpy as np
import pytest

from forgetbench.statistics.intervals import clustered_mean, paired_difference
from forgetbench.statistics.ratios import RatioScores, clustered_ratio, ratio_difference

Arrays = tuple[np.ndarray, np.ndarray]


def labels(codes: object) -> list[str]:
    return [f"image={code}" for code in np.asarray(codes)]


def answers(random: np.random.Generator, image: np.ndarray) -> Arrays:
    """Numerators and denominators of an F1 whose items cluster by image."""
    ease = random.normal(size=image.max() + 1)[image]
    hit, alarm = random.normal(size=image.size) + ease > 0, random.random(image.size) < 0.3
    return 2.0 * hit, 2.0 * hit + alarm + (~hit & ~alarm & (random.random(image.size) < 0.5))


def test_a_ratio_matches_the_hand_worked_case() -> None:
    # R = 6 / 8. Residuals num - R den: -0.5, 1.25, -0.25, -0.5; by cluster 0.75, -0.75; over 8.
    estimate = clustered_ratio([1, 2, 2, 1], [2, 1, 3, 2], [["a", "a", "b", "b"]])
    assert estimate.value == pytest.approx(0.75)
    assert estimate.stderr == pytest.approx(math.sqrt(2 / 1 * 2 * 0.75**2) / 8)
    half = 12.7062047 * math.sqrt(2 / 1 * 2 * 0.75**2) / 8  # t with 1 degree of freedom
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((0.75 - half, 0.75 + half))
    assert (estimate.n, estimate.n_clusters) == (4, 2)


def test_denominators_of_one_give_the_clustered_mean() -> None:
    y, ways = [1, 0, 1, 1, 0], [labels([0, 0, 1, 2, 2])]
    assert clustered_ratio(y, [1] * 5, ways) == clustered_mean(y, ways)
    assert clustered_ratio(y, [2] * 5, ways).value == pytest.approx(0.3)
    assert clustered_ratio(y, [2] * 5, ways).stderr == pytest.approx(clustered_mean(y, ways).stderr / 2)


@pytest.mark.parametrize("images", [[0, 0, 1, 1, 2, 2, 3, 3], range(8)])
def test_precision_is_the_mean_over_what_was_called_positive(images: object) -> None:
    called = np.array([1, 1, 0, 1, 0, 0, 1, 1], dtype=bool)
    hit = np.array([1, 0, 0, 1, 0, 0, 0, 1])
    image = np.asarray(images)
    precision = clustered_ratio(hit, called, [labels(image)])
    subset = clustered_mean(hit[called], [labels(image[called])])
    assert (precision.value, precision.stderr, precision.ci_low, precision.ci_high, precision.n_clusters) == (
        subset.value, subset.stderr, subset.ci_low, subset.ci_high, subset.n_clusters,
    )  # fmt: skip
    assert (precision.n, subset.n) == (8, 5)


def test_items_that_take_no_part_change_nothing_but_their_number() -> None:
    num, den = [2.0, 0, 2], [2.0, 1, 2]
    alone = clustered_ratio(num, den, [labels([0, 1, 2])])
    padded = clustered_ratio([*num, 0, 0], [*den, 0, 0], [labels([0, 1, 2, 3, 4])])
    assert (padded.value, padded.stderr, padded.ci_low) == (alone.value, alone.stderr, alone.ci_low)
    assert (padded.n, padded.n_clusters) == (5, 3)


def test_a_ratio_over_nothing_is_absent() -> None:
    nothing = clustered_ratio([0, 0], [0, 0], [["a", "b"]])
    assert (nothing.value, nothing.stderr, nothing.ci_low, nothing.n) == (None, None, None, 2)
    assert clustered_ratio([], [], [[]]).value is None
    some, none = RatioScores([1, 0], [1, 0], [["a", "b"]]), RatioScores([0, 0], [0, 0], [["a", "b"]])
    assert ratio_difference(some, none).value is None
    assert ratio_difference(none, some).value is None


def test_one_cluster_has_a_ratio_but_no_error() -> None:
    single = clustered_ratio([1, 2], [2, 2], [["a", "a"]])
    assert (single.value, single.stderr) == (0.75, None)


def test_a_difference_matches_the_hand_worked_case() -> None:
    # Influences, times the denominators' sum of 4 on either side: with R = 3 / 4 after they are 0.25, -0.75, 0.5, with
    # R = 2 / 4 before -0.5, 0, 0.5; subtracted 0.75, -0.75, 0.
    ways = [["a", "b", "c"]]
    change = ratio_difference(RatioScores([1, 0, 2], [1, 1, 2], ways), RatioScores([0, 1, 1], [1, 2, 1], ways))
    assert change.value == pytest.approx(0.25)
    assert change.stderr == pytest.approx(math.sqrt(3 / 2 * 2 * 0.75**2) / 4)


def test_a_difference_of_means_is_the_paired_difference() -> None:
    after, before, ways = [1, 1, 0, 1], [0, 1, 0, 0], [labels([0, 0, 1, 2])]
    ones = [1] * 4
    change = ratio_difference(RatioScores(after, ones, ways), RatioScores(before, ones, ways))
    paired = paired_difference(after, before, ways).difference
    assert (change.value, change.stderr, change.ci_low) == pytest.approx((paired.value, paired.stderr, paired.ci_low))


def test_no_change_has_no_error() -> None:
    same = RatioScores([1, 0, 2], [1, 1, 2], [["a", "b", "c"]])
    change = ratio_difference(same, same)
    assert (change.value, change.stderr, change.n) == (0, 0, 3)


def test_other_items_clusters_or_lengths_are_refused() -> None:
    one, two = RatioScores([1], [1], [["a"]]), RatioScores([1, 0], [1, 1], [["a", "b"]])
    with pytest.raises(ValueError, match="do not pair"):
        ratio_difference(one, two)
    with pytest.raises(ValueError, match="do not pair"):
        ratio_difference(two, RatioScores([1, 0], [1, 1], [["b", "a"]]))
    with pytest.raises(ValueError, match="not of the same items"):
        clustered_ratio([1, 0], [1], [["a", "b"]])


def test_errors_agree_with_a_bootstrap_of_the_images() -> None:
    random = np.random.default_rng(3)
    image = np.repeat(np.arange(150), 4)
    after, before = answers(random, image), answers(random, image)
    ways = [labels(image)]
    ratio = clustered_ratio(*after, ways)
    change = ratio_difference(RatioScores(*after, ways), RatioScores(*before, ways))
    ratios, changes = [], []
    for _ in range(2000):
        drawn = (random.integers(0, 150, 150)[:, None] * 4 + np.arange(4)).ravel()
        one, other = (num[drawn].sum() / den[drawn].sum() for num, den in (after, before))
        ratios.append(one)
        changes.append(one - other)
    assert ratio.stderr == pytest.approx(np.std(ratios), rel=0.1)
    assert change.stderr == pytest.approx(np.std(changes), rel=0.1)

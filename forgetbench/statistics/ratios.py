"""Ratios of two sums over items, precision, recall and F1, with clustered standard errors.

Of the items that take part, a share J is right: the hits. Precision and recall are J itself; in F1 a hit counts w = 2
times an error, so that it is w J / (1 + (w - 1) J), which grows with J. An interval of J is therefore one of the ratio,
with the same coverage, and has the bounds of every accuracy (see `clustered_mean`).

By the delta method an item's influence on R = sum(num) / sum(den) is (num_i - R den_i) / sum(den), after which the
machinery of `statistics` applies (Särndal, Swensson & Wretman 1992, section 5.6). Items that take no part have no
influence, and a cluster of nothing else is not counted as one.

Legend: N items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.statistics.bounds import CHANGE, zero_change_bound
from forgetbench.statistics.intervals import Estimate, clip_to_limits, clustered_mean, linear_estimate, square_and_add
from forgetbench.statistics.strata import Floats, Ways


@dataclass(frozen=True)
class RatioScores:
    """Which of N items take part in a ratio, which of these are right, and how the items cluster."""

    hits: ArrayLike
    """1 where an item is right and takes part, else 0."""
    included: ArrayLike
    """1 where it takes part, else 0."""
    clusters: Ways
    hit_weight: float = 1.0
    """Weight of a hit relative to an error."""


def clustered_ratio(scores: RatioScores) -> Estimate:
    """The weighted hits as a share of weighted hits and errors.

    Returns:
        An estimate whose n is N, all items; its value is None where no item takes part.
    """
    ratio = _ratio_of(scores)
    if not ratio.included_N.any():
        return _undefined(ratio.included_N.size)
    rate = ratio.rate
    estimate = rate
    if ratio.weight != 1:
        linear = linear_estimate(ratio.value, ratio.influences_N[ratio.included_N], ratio.ways)
        low, high = (None if end is None else ratio.ratio_at(end) for end in (rate.ci_low, rate.ci_high))
        estimate = replace(linear, ci_low=low, ci_high=high)
    return replace(estimate, n=ratio.included_N.size)


def ratio_difference(after: RatioScores, before: RatioScores) -> Estimate:
    """The ratio after minus the ratio before, over the same items in the same order and clusters.

    The influences are subtracted item by item, so that what an item adds to both ratios cancels. Where no answer
    changed, the interval is what a change of as many of J's clusters as `zero_change_bound` leaves open would make of
    the ratio; where neither side varies but they differ, `square_and_add` builds it from the two sides.

    Returns:
        An estimate whose n is N; its value is None where no item takes part on one side.

    Raises:
        ValueError: the two sides are not of the same items.
    """
    after_ratio, before_ratio = _ratio_of(after), _ratio_of(before)
    n, n_before = after_ratio.included_N.size, before_ratio.included_N.size
    if n != n_before or list(map(list, after.clusters)) != list(map(list, before.clusters)):
        raise ValueError(f"{n} items after and {n_before} before do not pair, or their clusters differ")
    if not after_ratio.included_N.any() or not before_ratio.included_N.any():
        return _undefined(n)
    included_N = after_ratio.included_N | before_ratio.included_N
    influences_N = (after_ratio.influences_N - before_ratio.influences_N)[included_N]
    estimate = linear_estimate(
        after_ratio.value - before_ratio.value, influences_N, _included_labels(after.clusters, included_N)
    )
    if estimate.stderr == 0 and after_ratio.is_same(before_ratio):
        estimate = _with_zero_change_interval(estimate, after_ratio)
    elif estimate.stderr == 0:
        estimate = square_and_add(estimate, clustered_ratio(after), clustered_ratio(before))
    return replace(clip_to_limits(estimate, CHANGE), n=n)


@dataclass(frozen=True)
class _Ratio:
    """A ratio's numerator and denominator."""

    hit_N: Floats
    included_N: NDArray[np.bool_]
    ways: list[list[str]]
    """Of the items that take part."""
    weight: float

    @property
    def rate(self) -> Estimate:
        """J: the share of hits among the items that take part."""
        return clustered_mean(self.hit_N[self.included_N], self.ways)

    @property
    def value(self) -> float:
        return float(self.weight * self.hit_N.sum() / self._den_N.sum())

    @property
    def influences_N(self) -> Floats:
        influences_N: Floats = (self.weight * self.hit_N - self.value * self._den_N) / self._den_N.sum()
        return influences_N

    @property
    def _den_N(self) -> Floats:
        return self.included_N + (self.weight - 1) * self.hit_N

    def ratio_at(self, rate: float) -> float:
        """The ratio for a share of hits J."""
        return self.weight * rate / (1 + (self.weight - 1) * rate)

    def is_same(self, other: _Ratio) -> bool:
        """Whether every item counts the same in both."""
        return np.array_equal(self.hit_N, other.hit_N) and np.array_equal(self.included_N, other.included_N)


def _with_zero_change_interval(estimate: Estimate, ratio: _Ratio) -> Estimate:
    rate = ratio.rate
    assert rate.value is not None
    if min(stratum.n_clusters for stratum in rate.strata) < 2:
        return replace(estimate, ci_low=None, ci_high=None)
    share = zero_change_bound(rate.strata, shares_clusters=False)
    low, high = ratio.ratio_at(max(0.0, rate.value - share)), ratio.ratio_at(min(1.0, rate.value + share))
    half = max(ratio.value - low, high - ratio.value)
    return replace(estimate, ci_low=-half, ci_high=half)


def _ratio_of(scores: RatioScores) -> _Ratio:
    hit_N, included_N = (np.asarray(column, dtype=np.float64) for column in (scores.hits, scores.included))
    if hit_N.shape != included_N.shape:
        raise ValueError(f"{hit_N.size} hits and {included_N.size} parts are not of the same items")
    is_included_N = included_N != 0
    return _Ratio(hit_N, is_included_N, _included_labels(scores.clusters, is_included_N), scores.hit_weight)


def _included_labels(clusters: Ways, included_N: NDArray[np.bool_]) -> list[list[str]]:
    """The labels of the items that take part."""
    return [[label for label, is_included in zip(way, included_N, strict=True) if is_included] for way in clusters]


def _undefined(n: int) -> Estimate:
    return Estimate(None, None, None, None, n, 0)

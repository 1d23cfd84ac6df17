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

from forgetbench.statistics.bounds import CHANGE, unseen_change
from forgetbench.statistics.intervals import Estimate, bounded, clustered_mean, linear_estimate, square_and_add
from forgetbench.statistics.strata import Floats, Ways


@dataclass(frozen=True)
class RatioScores:
    """Which of N items take part in a ratio, which of these are right, and how the items cluster."""

    hits: ArrayLike
    """1 where an item is right and takes part, else 0."""
    parts: ArrayLike
    """1 where it takes part, else 0."""
    clusters: Ways
    hit_weight: float = 1.0
    """How many times a hit counts what an error counts."""


def clustered_ratio(scores: RatioScores) -> Estimate:
    """The weighted hits as a share of weighted hits and errors.

    Returns:
        An estimate whose n is N, all items; its value is None where no item takes part.
    """
    sides = _sides(scores)
    if not sides.part_N.any():
        return _absent(sides.part_N.size)
    rate = sides.rate
    estimate = rate
    if sides.weight != 1:
        linear = linear_estimate(sides.value, sides.influences_N[sides.part_N], sides.ways)
        low, high = (None if end is None else sides.weighed(end) for end in (rate.ci_low, rate.ci_high))
        estimate = replace(linear, ci_low=low, ci_high=high)
    return replace(estimate, n=sides.part_N.size)


def ratio_difference(after: RatioScores, before: RatioScores) -> Estimate:
    """The ratio after minus the ratio before, over the same items in the same order and clusters.

    The influences are subtracted item by item, so that what an item adds to both ratios cancels. Where no answer
    changed, the interval is what a change of as many of J's clusters as `unseen_change` leaves open would make of the
    ratio; where neither side varies but they differ, it is `square_and_add` of the sides' own.

    Returns:
        An estimate whose n is N; its value is None where no item takes part on one side.

    Raises:
        ValueError: the two sides are not of the same items.
    """
    now, then = _sides(after), _sides(before)
    n, n_before = now.part_N.size, then.part_N.size
    if n != n_before or list(map(list, after.clusters)) != list(map(list, before.clusters)):
        raise ValueError(f"{n} items after and {n_before} before do not pair, or their clusters differ")
    if not now.part_N.any() or not then.part_N.any():
        return _absent(n)
    part_N = now.part_N | then.part_N
    influences_N = (now.influences_N - then.influences_N)[part_N]
    estimate = linear_estimate(now.value - then.value, influences_N, _among(after.clusters, part_N))
    if estimate.stderr == 0 and now.is_same(then):
        estimate = _unchanged(estimate, now)
    elif estimate.stderr == 0:
        estimate = square_and_add(estimate, clustered_ratio(after), clustered_ratio(before))
    return replace(bounded(estimate, CHANGE), n=n)


@dataclass(frozen=True)
class _Sides:
    """A ratio's numerator and denominator."""

    hit_N: Floats
    part_N: NDArray[np.bool_]
    ways: list[list[str]]
    """Of the items that take part."""
    weight: float

    @property
    def rate(self) -> Estimate:
        """J: the share of hits among the items that take part."""
        return clustered_mean(self.hit_N[self.part_N], self.ways)

    @property
    def value(self) -> float:
        return float(self.weight * self.hit_N.sum() / self._den_N.sum())

    @property
    def influences_N(self) -> Floats:
        found: Floats = (self.weight * self.hit_N - self.value * self._den_N) / self._den_N.sum()
        return found

    @property
    def _den_N(self) -> Floats:
        return self.part_N + (self.weight - 1) * self.hit_N

    def weighed(self, rate: float) -> float:
        """The ratio where J is this."""
        return self.weight * rate / (1 + (self.weight - 1) * rate)

    def is_same(self, other: _Sides) -> bool:
        """Whether every item counts as it does there."""
        return np.array_equal(self.hit_N, other.hit_N) and np.array_equal(self.part_N, other.part_N)


def _unchanged(estimate: Estimate, sides: _Sides) -> Estimate:
    rate = sides.rate
    assert rate.value is not None
    if min(one.n_clusters for one in rate.strata) < 2:
        return replace(estimate, ci_low=None, ci_high=None)
    share = unseen_change(rate.strata, shares_clusters=False)
    low, high = sides.weighed(max(0.0, rate.value - share)), sides.weighed(min(1.0, rate.value + share))
    half = max(sides.value - low, high - sides.value)
    return replace(estimate, ci_low=-half, ci_high=half)


def _sides(scores: RatioScores) -> _Sides:
    hit_N, part_N = (np.asarray(side, dtype=np.float64) for side in (scores.hits, scores.parts))
    if hit_N.shape != part_N.shape:
        raise ValueError(f"{hit_N.size} hits and {part_N.size} parts are not of the same items")
    takes_part_N = part_N != 0
    return _Sides(hit_N, takes_part_N, _among(scores.clusters, takes_part_N), scores.hit_weight)


def _among(clusters: Ways, part_N: NDArray[np.bool_]) -> list[list[str]]:
    """The labels of the items that take part."""
    return [[label for label, takes_part in zip(way, part_N, strict=True) if takes_part] for way in clusters]


def _absent(n: int) -> Estimate:
    return Estimate(None, None, None, None, n, 0)

"""Ratios of two sums over items, such as precision and F1, with clustered standard errors.

By the delta method an item's influence on R = sum(num) / sum(den) is (num_i - R den_i) / sum(den), after which the
machinery of `statistics` applies (Särndal, Swensson & Wretman 1992, section 5.6). Items with num = den = 0 have no
part in a ratio: they have no influence, and a cluster of nothing else is not counted as one.

Legend: N items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.statistics.intervals import Estimate, clustered_mean, linear_estimate
from forgetbench.statistics.strata import Floats, Ways


@dataclass(frozen=True)
class RatioScores:
    """What each of N items adds to a ratio's numerator and denominator, and how the items cluster."""

    numerator: ArrayLike
    denominator: ArrayLike
    clusters: Ways


def clustered_ratio(numerator: ArrayLike, denominator: ArrayLike, clusters: Ways) -> Estimate:
    """Sum of the numerators over sum of the denominators.

    Where each item that takes part counts once, this is their mean and has the interval of `clustered_mean`.

    Args:
        numerator: N values.
        denominator: N values, none negative.
        clusters: one or two sequences of N labels.

    Returns:
        An estimate whose n is N, all items; its value is None where the denominators sum to 0.
    """
    num_N, den_N = _sides(RatioScores(numerator, denominator, clusters))
    if not den_N.sum():
        return _absent(num_N.size)
    part_N = _takes_part(num_N, den_N)
    ways = _among(clusters, part_N)
    if (den_N[part_N] == 1).all():
        estimate = clustered_mean(num_N[part_N], ways)
    else:
        value, influences_N = _linearised(num_N, den_N)
        estimate = linear_estimate(value, influences_N[part_N], ways)
    return replace(estimate, n=num_N.size)


def ratio_difference(after: RatioScores, before: RatioScores) -> Estimate:
    """The ratio after minus the ratio before, over the same items in the same order and clusters.

    The influences are subtracted item by item, so that what an item adds to both ratios cancels.

    Returns:
        An estimate whose n is N; its value is None where either side's denominators sum to 0.

    Raises:
        ValueError: the two sides are not of the same items.
    """
    (num_N, den_N), (num0_N, den0_N) = _sides(after), _sides(before)
    if num_N.size != num0_N.size or list(map(list, after.clusters)) != list(map(list, before.clusters)):
        raise ValueError(f"{num_N.size} items after and {num0_N.size} before do not pair, or their clusters differ")
    if not den_N.sum() or not den0_N.sum():
        return _absent(num_N.size)
    (value, influences_N), (value0, influences0_N) = _linearised(num_N, den_N), _linearised(num0_N, den0_N)
    part_N = _takes_part(num_N, den_N) | _takes_part(num0_N, den0_N)
    estimate = linear_estimate(value - value0, (influences_N - influences0_N)[part_N], _among(after.clusters, part_N))
    return replace(estimate, n=num_N.size)


def _sides(scores: RatioScores) -> tuple[Floats, Floats]:
    num_N, den_N = (np.asarray(side, dtype=np.float64) for side in (scores.numerator, scores.denominator))
    if num_N.shape != den_N.shape:
        raise ValueError(f"{num_N.size} numerators and {den_N.size} denominators are not of the same items")
    return num_N, den_N


def _linearised(num_N: Floats, den_N: Floats) -> tuple[float, Floats]:
    """The ratio and each item's influence on it."""
    ratio = float(num_N.sum() / den_N.sum())
    return ratio, (num_N - ratio * den_N) / den_N.sum()


def _takes_part(num_N: Floats, den_N: Floats) -> NDArray[np.bool_]:
    part_N: NDArray[np.bool_] = (num_N != 0) | (den_N != 0)
    return part_N


def _among(clusters: Ways, part_N: NDArray[np.bool_]) -> list[list[str]]:
    """The labels of the items that take part."""
    return [[label for label, takes_part in zip(way, part_N, strict=True) if takes_part] for way in clusters]


def _absent(n: int) -> Estimate:
    return Estimate(None, None, None, None, n, 0)

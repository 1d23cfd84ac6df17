"""Means and paired differences with standard errors clustered one or two ways.

Every estimate here is linear in the items: it is a value plus one influence per item (what the
item adds to the estimate's error), and its variance comes from influences summed by cluster.

Legend: N items; labels of clusters are compared as text, so "image=x" joins data sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import special  # type: ignore[import-untyped]  # scipy ships no type stubs; its stats takes a second to load

from forgetbench.core.confidence import ALPHA, POWER
from forgetbench.statistics.bounds import (
    SHARE,
    Limits,
    clip_interval,
    limits_of_difference,
    t_interval,
    wilson,
    zero_change_bound,
)
from forgetbench.statistics.strata import (
    Codes,
    Floats,
    Stratum,
    Ways,
    cluster_codes,
    codes,
    correct_for_few_clusters,
    degrees_of_freedom,
    join_ways,
    summarise_strata,
)


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval; None where it cannot be known."""

    value: float | None
    stderr: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    n_clusters: int
    """Clusters of the coarser way."""
    df: float | None = None
    """Degrees of freedom of the t interval."""
    strata: tuple[Stratum, ...] = ()
    """The datasets behind it."""


@dataclass(frozen=True)
class PairedDifference:
    """The change of the same items between two checkpoints."""

    difference: Estimate
    forgotten: float | None
    """Share of all items once right and now wrong; None unless scores are 0 or 1."""
    gained: float | None
    """Share of all items once wrong and now right; None unless scores are 0 or 1."""
    mde: float | None
    """Minimum detectable effect."""


@dataclass(frozen=True)
class ClusteredScores:
    """Scores of N items and how the items cluster."""

    values: ArrayLike
    clusters: Ways
    limits: Limits | None = SHARE
    """Range of a score; None for a metric that is no fraction of 1."""


def clustered_mean(
    values: ArrayLike,
    clusters: Ways,
    weights: ArrayLike | None = None,
    strata: Sequence[str] | None = None,
    limits: Limits | None = SHARE,
) -> Estimate:
    """(Weighted) mean with a clustered standard error and a t interval with C - 1 df, clipped to `limits`.

    Binary, unweighted items that are each their own cluster get the Wilson interval instead. Where all items (of each
    stratum) score alike, the estimated error of 0 says nothing: answers that are all right or all wrong get the
    interval that `zero_change_bound` leaves, other scores none.

    Args:
        values: N scores.
        clusters: one or two sequences of N labels.
        weights: N weights that sum to 1; equal ones by default.
        strata: N labels of fixed groups (the data sets of a quadrant). Residuals are then taken
            from the group's mean: that data sets differ in difficulty is no sampling error.
        limits: range of a score; with `SHARE`, scores of 0 and 1 are wrong and right.
    """
    y_N = _floats(values)
    estimate = clip_to_limits(_mean(y_N, clusters, _weights(weights, y_N.size), strata), limits)
    if estimate.value is None or estimate.stderr is None:
        return estimate
    is_right_or_wrong = limits == SHARE and _is_binary(y_N)
    if is_right_or_wrong and weights is None and estimate.n_clusters == estimate.n:
        return _with_interval(estimate, *wilson(estimate.value, estimate.n))
    if _varies(y_N, strata):
        return estimate
    open_share = _zero_change_bound(estimate, clusters) if is_right_or_wrong else None
    if open_share is None:
        return _with_interval(estimate, None, None)
    return clip_to_limits(_with_interval(estimate, estimate.value - open_share, estimate.value + open_share), SHARE)


def paired_difference(
    after: ArrayLike,
    before: ArrayLike,
    clusters: Ways,
    weights: ArrayLike | None = None,
    strata: Sequence[str] | None = None,
    limits: Limits | None = SHARE,
) -> PairedDifference:
    """Mean of after - before over the same items; the arguments are as in `clustered_mean`.

    Where scores are right or wrong and no answer changed, the interval is what `zero_change_bound` leaves.
    """
    after_N, before_N = _floats(after), _floats(before)
    if after_N.shape != before_N.shape:
        raise ValueError(f"{after_N.size} items after and {before_N.size} before do not pair")
    change_N = after_N - before_N
    estimate = _mean(change_N, clusters, _weights(weights, change_N.size), strata)
    estimate = clip_to_limits(estimate, limits_of_difference(limits, limits))
    flows = after_N.size > 0 and _is_binary(after_N) and _is_binary(before_N)
    if estimate.stderr is not None and not _varies(change_N, strata):
        estimate = zero_variance_change(estimate, clusters, flows and not change_N.any())
    w_N = np.full(after_N.size, 1 / max(after_N.size, 1)) if weights is None else _floats(weights)
    return PairedDifference(
        difference=estimate,
        forgotten=float(w_N @ (change_N < 0)) if flows else None,
        gained=float(w_N @ (change_N > 0)) if flows else None,
        mde=minimum_detectable_effect(estimate),
    )


def difference_of_means(first: ClusteredScores, second: ClusteredScores) -> Estimate:
    """Mean of `first` minus mean of `second`, which may share clusters or even items.

    Where neither side varies, the error of 0 says nothing, and `square_and_add` builds the interval from the two sides.
    """
    a_N, b_N = _floats(first.values), _floats(second.values)
    n = a_N.size + b_N.size
    if not a_N.size or not b_N.size:
        return Estimate(None, None, None, None, n, 0)
    influences = np.concatenate([(a_N - a_N.mean()) / a_N.size, (b_N.mean() - b_N) / b_N.size])
    ways = join_ways(first.clusters, second.clusters)
    estimate = linear_estimate(float(a_N.mean() - b_N.mean()), influences, ways)
    limits = limits_of_difference(first.limits, second.limits)
    if estimate.stderr == 0:
        sides = [clustered_mean(scores.values, scores.clusters, limits=scores.limits) for scores in (first, second)]
        estimate = square_and_add(estimate, *sides)
    return clip_to_limits(estimate, limits)


def square_and_add(difference: Estimate, first: Estimate, second: Estimate) -> Estimate:
    """A difference with an interval built from those of its two sides (Newcombe 1998, method 10), else none."""
    sides = [(estimate.value, estimate.ci_low, estimate.ci_high) for estimate in (first, second)]
    if difference.value is None or any(number is None for side in sides for number in side):
        return _with_interval(difference, None, None)
    (a, a_low, a_high), (b, b_low, b_high) = np.array(sides, dtype=np.float64).tolist()
    low, high = math.hypot(a - a_low, b_high - b), math.hypot(a_high - a, b - b_low)
    return _with_interval(difference, difference.value - low, difference.value + high)


def contrast(values: ArrayLike, clusters: Ways, weights: ArrayLike, strata: Sequence[str]) -> Estimate:
    """Weighted sum of N values, such as one item set's mean minus another's; weights may be negative.

    Args:
        values: N values.
        clusters: one or two sequences of N labels.
        weights: N weights, of one sign within a stratum.
        strata: N labels of fixed groups, as in `clustered_mean`.
    """
    return _mean(_floats(values), clusters, _floats(weights), strata)


def linear_estimate(value: float, influences_N: Floats, clusters: Ways) -> Estimate:
    """A value with the error that its N influences give, summed by cluster, and a t interval with C - 1 df."""
    n, ways = influences_N.size, cluster_codes(clusters, influences_N.size)
    n_clusters = min(int(way.max()) + 1 for way in ways)
    if n_clusters < 2:
        return Estimate(value, None, None, None, n, n_clusters)
    stderr = math.sqrt(_variance(influences_N, ways, np.zeros(n, dtype=np.int64)))
    df = n_clusters - 1.0
    return Estimate(value, stderr, *t_interval(value, stderr, df), n, n_clusters, df)


def zero_variance_change(estimate: Estimate, clusters: Ways, is_right_or_wrong: bool) -> Estimate:
    """A change without variance: right and wrong answers get the `zero_change_bound` interval, other scores none."""
    open_share = _zero_change_bound(estimate, clusters) if is_right_or_wrong else None
    return _with_interval(estimate, None if open_share is None else -open_share, open_share)


def detectable_stderrs(power: float = POWER, alpha: float = ALPHA) -> float:
    """Standard errors that a true change needs to be found with this power by a two-sided test at this level."""
    return float(special.ndtri(1 - alpha / 2) + special.ndtri(power))


def minimum_detectable_effect(estimate: Estimate) -> float | None:
    """Smallest true effect this estimate's standard error would find; unknown where nothing varied."""
    return detectable_stderrs() * estimate.stderr if estimate.stderr else None


def _mean(y_N: Floats, clusters: Ways, weights: Floats | None, strata: Sequence[str] | None) -> Estimate:
    if not y_N.size:
        return Estimate(None, None, None, None, 0, 0)
    w_N = np.full(y_N.size, 1 / y_N.size) if weights is None else weights
    group_N = codes(strata) if strata is not None else np.zeros(y_N.size, dtype=np.int64)
    center_G = np.bincount(group_N, w_N * y_N) / np.bincount(group_N, w_N)
    value = float(y_N.mean() if weights is None else w_N @ y_N)  # a mean of shares is exact, a weighted sum is not
    residuals_N, ways = w_N * (y_N - center_G[group_N]), cluster_codes(clusters, y_N.size)
    coarser_N = min(ways, key=np.max)
    stratum_stats = summarise_strata(residuals_N, w_N, coarser_N, group_N)
    n_clusters = int(coarser_N.max()) + 1
    if min(stratum.n_clusters for stratum in stratum_stats) < 2:
        return Estimate(value, None, None, None, y_N.size, n_clusters, None, tuple(stratum_stats))
    stderr = math.sqrt(_variance(residuals_N, ways, group_N))
    df = degrees_of_freedom(stratum_stats)
    return Estimate(value, stderr, *t_interval(value, stderr, df), y_N.size, n_clusters, df, tuple(stratum_stats))


def _zero_change_bound(estimate: Estimate, clusters: Ways) -> float | None:
    """The bound; None where a stratum has a single cluster."""
    if not estimate.strata or min(stratum.n_clusters for stratum in estimate.strata) < 2:
        return None
    return zero_change_bound(
        estimate.strata, sum(stratum.n_clusters for stratum in estimate.strata) > estimate.n_clusters
    )


def _variance(influences_N: Floats, ways: Sequence[Codes], group_N: Codes) -> float:
    """V_a + V_b - V_ab (Cameron, Gelbach & Miller 2011); not positive: the larger one-way."""
    one_way = [_one_way_variance(influences_N, code_N, group_N) for code_N in ways]
    if len(ways) == 1:
        return one_way[0]
    a_N, b_N = ways
    both_N = np.unique(a_N * (b_N.max() + 1) + b_N, return_inverse=True)[1].astype(np.int64)
    total = sum(one_way) - _one_way_variance(influences_N, both_N, group_N)
    return total if total > 0 else max(one_way)


def _one_way_variance(influences_N: Floats, code_N: Codes, group_N: Codes) -> float:
    """Sum of squared cluster sums, times C / (C - 1) in each stratum."""
    sums_C = np.bincount(code_N, correct_for_few_clusters(influences_N, code_N, group_N))
    return float(sums_C @ sums_C)


def clip_to_limits(estimate: Estimate, limits: Limits | None) -> Estimate:
    """The estimate with its interval clipped to the limits."""
    return _with_interval(estimate, *clip_interval(estimate.ci_low, estimate.ci_high, limits))


def _with_interval(estimate: Estimate, low: float | None, high: float | None) -> Estimate:
    return replace(estimate, ci_low=low, ci_high=high)


def _weights(weights: ArrayLike | None, n: int) -> Floats | None:
    if weights is None:
        return None
    w_N = _floats(weights)
    if w_N.size != n or not np.isclose(w_N.sum(), 1):
        raise ValueError(f"expected {n} weights that sum to 1, got {w_N.size} of {w_N.sum():g}")
    return w_N


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _varies(y_N: Floats, strata: Sequence[str] | None) -> bool:
    """Whether items of one stratum score differently."""
    if strata is None:
        return bool(np.ptp(y_N))
    group_N = codes(strata)
    return any(np.ptp(y_N[group_N == group]) for group in range(int(group_N.max()) + 1))


def _is_binary(y_N: Floats) -> bool:
    return bool(np.isin(y_N, (0.0, 1.0)).all())

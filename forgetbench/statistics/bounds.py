"""Ends of intervals: by a standard error, and where one says nothing: shares of single items, answers all alike.

Legend: G strata, C clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special  # type: ignore[import-untyped]  # scipy ships no type stubs

from forgetbench.core.confidence import ALPHA
from forgetbench.statistics.strata import Stratum

Limits = tuple[float, float]
"""What a figure can be at least and at most."""
SHARE: Limits = (0.0, 1.0)
CHANGE: Limits = (-1.0, 1.0)
"""Of one share less another."""


def kept_within(low: float | None, high: float | None, limits: Limits | None) -> tuple[float | None, float | None]:
    """The part of an interval that a figure can take; the truth is never beyond, so that no coverage is lost."""
    if low is None or high is None or limits is None:
        return low, high
    least, most = limits
    return min(max(low, least), most), max(min(high, most), least)


def limits_of_difference(first: Limits | None, second: Limits | None) -> Limits | None:
    """What one figure less another can be; None where one of them has no limits."""
    if first is None or second is None:
        return None
    return first[0] - second[1], first[1] - second[0]


def t_interval(value: float, stderr: float, df: float) -> tuple[float, float]:
    """Low and high end of the t interval."""
    half = float(special.stdtrit(df, 1 - ALPHA / 2)) * stderr
    return value - half, value + half


def wilson(share: float, n: int) -> tuple[float, float]:
    """Low and high end of the score interval (Wilson 1927)."""
    z2 = float(special.ndtri(1 - ALPHA / 2)) ** 2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, float(center - half)), min(1.0, float(center + half))


def unseen_change(strata: Sequence[Stratum], shares_clusters: bool, alpha: float = ALPHA) -> float:
    """The largest mean change that strata in which no right or wrong answer changed leave open.

    A mean change of q_g needs at least that share of clusters to change, and that none of C_g does then has a
    probability of at most (1 - q_g)^C_g. The bound is the largest sum of w_g q_g at which the product of these is
    `alpha`; where strata share clusters, so that they are no independent witnesses, at which each of them is.
    """
    budget = -math.log(alpha)
    if shares_clusters:
        return sum(one.weight * -math.expm1(-budget / one.effective_clusters) for one in strata)
    # Lagrange: exp(-t_g) = level C_g / w_g for those that get a share t_g = -log(1 - q_g) of the budget.
    rates = [math.log(one.weight / one.effective_clusters) for one in strata]
    low, high = min(rates) - budget - 1, max(rates)
    for _ in range(100):
        level = (low + high) / 2
        spent = sum(one.effective_clusters * max(0.0, rate - level) for one, rate in zip(strata, rates, strict=True))
        low, high = (level, high) if spent > budget else (low, level)
    return sum(one.weight * -math.expm1(-max(0.0, rate - high)) for one, rate in zip(strata, rates, strict=True))

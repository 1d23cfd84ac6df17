"""Interval ends: from a standard error, or by other bounds where it says nothing: single items, identical answers.

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
"""Lowest and highest value that a figure can take."""
SHARE: Limits = (0.0, 1.0)
CHANGE: Limits = (-1.0, 1.0)
"""Limits of one share minus another."""


def clip_interval(low: float | None, high: float | None, limits: Limits | None) -> tuple[float | None, float | None]:
    """Clip an interval to the values a figure can take. The true value is among them, so no coverage is lost."""
    if low is None or high is None or limits is None:
        return low, high
    least, most = limits
    return min(max(low, least), most), max(min(high, most), least)


def limits_of_difference(first: Limits | None, second: Limits | None) -> Limits | None:
    """Limits of one figure minus another; None where either has no limits."""
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


def zero_change_bound(strata: Sequence[Stratum], shares_clusters: bool, alpha: float = ALPHA) -> float:
    """Upper bound of a mean change where no right or wrong answer changed in any stratum.

    A mean change of q_g means that at least that share of clusters changes; the probability that none of C_g clusters
    does is then at most (1 - q_g)^C_g. The bound is the largest sum of w_g q_g at which the product of these
    probabilities is `alpha`. Strata that share clusters are not independent: there each probability is `alpha`.
    """
    budget = -math.log(alpha)
    if shares_clusters:
        return sum(stratum.weight * -math.expm1(-budget / stratum.effective_clusters) for stratum in strata)
    # Lagrange: exp(-t_g) = level C_g / w_g for those that get a share t_g = -log(1 - q_g) of the budget.
    rates = [math.log(stratum.weight / stratum.effective_clusters) for stratum in strata]
    low, high = min(rates) - budget - 1, max(rates)
    for _ in range(100):
        level = (low + high) / 2
        spent = sum(
            stratum.effective_clusters * max(0.0, rate - level) for stratum, rate in zip(strata, rates, strict=True)
        )
        low, high = (level, high) if spent > budget else (low, level)
    return sum(
        stratum.weight * -math.expm1(-max(0.0, rate - high)) for stratum, rate in zip(strata, rates, strict=True)
    )

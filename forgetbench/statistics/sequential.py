"""Sequential test of a loss budget while a model trains, with one error rate over all looks.

A look compares the same items, paired, at another checkpoint with the untouched base. The error rate is spent
evenly: of L looks at G groups of items each bound has the level ALPHA / (L G), so that by Bonferroni's inequality all
lower bounds of a run hold together with a probability of 1 - ALPHA at least, however looks and groups depend on each
other; so do all upper bounds. Where the number of looks is not known, look k gets 6 / (pi k)^2 of ALPHA, which sums to
it over any number.

The null hypothesis is that the true loss, over the population that the items were drawn from, is at most the budget in
every group at every look. To stop although it holds is a *false stop*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import special  # type: ignore[import-untyped]  # scipy ships no type stubs

from forgetbench.core.confidence import ALPHA, POWER
from forgetbench.statistics.bounds import CHANGE, clip_interval, zero_change_bound
from forgetbench.statistics.intervals import Estimate


@dataclass(frozen=True)
class Verdict:
    """What a look says of one group of items."""

    loss: Estimate
    """Mean of (base - now) over the group's items; its interval is that of a single look."""
    low: float | None
    """Lower and upper bound that hold over all looks; None where the items say nothing of their error."""
    high: float | None
    level: float
    """The part of ALPHA that each of the two bounds spends."""
    max_loss: float

    @property
    def is_over(self) -> bool:
        """The estimate exceeds the budget."""
        return self.loss.value is not None and self.loss.value > self.max_loss

    @property
    def is_broken(self) -> bool:
        """The lower bound exceeds the budget: the excess is shown."""
        return self.low is not None and self.low > self.max_loss

    @property
    def is_within_budget(self) -> bool:
        """The upper bound is within the budget: the loss is shown to be, too."""
        return self.high is not None and self.high <= self.max_loss


@dataclass(frozen=True)
class Budget:
    """A loss that must not be exceeded in any group of items, at any look; knows nothing of models or of files."""

    max_loss: float
    """As a fraction of 1."""
    groups: int = 1
    looks: int | None = None
    """How many are planned; None for as many as will come."""
    alpha: float = ALPHA
    """Largest share of false stops among runs that stay within the budget."""

    def level(self, look: int) -> float:
        """The part of `alpha` that each bound of a look spends.

        Args:
            look: its number, counted from 1.

        Raises:
            ValueError: no such look was planned.
        """
        if look < 1 or (self.looks is not None and look > self.looks):
            raise ValueError(f"look {look} of {self.looks} planned ones")
        share = 6 / (math.pi * look) ** 2 if self.looks is None else 1 / self.looks
        return self.alpha * share / self.groups

    def verdicts(self, look: int, losses: Mapping[str, Estimate]) -> dict[str, Verdict]:
        """Judge one look; a run is to stop if any verdict `is_broken`.

        Args:
            look: its number, counted from 1.
            losses: mean of (base - now), paired by item and clustered (`paired_difference`), by group.

        Raises:
            ValueError: no such look was planned, or there are other groups than planned.
        """
        if len(losses) != self.groups:
            raise ValueError(f"{len(losses)} groups instead of {self.groups}")
        level = self.level(look)
        return {
            group: Verdict(loss, *one_sided_bounds(loss, level), level, self.max_loss) for group, loss in losses.items()
        }


def one_sided_bounds(change: Estimate, level: float) -> tuple[float | None, float | None]:
    """Lower and upper bound of a mean change, each missing the truth with a probability of `level`.

    Bounds of the t distribution, careful with few and uneven clusters. Where the items of each dataset all changed
    alike, the error of 0 says nothing: what `zero_change_bound` leaves open may lie at the other end of the range.

    Args:
        change: of shares.
        level: of each bound alone.
    """
    if change.value is None or change.stderr is None or change.df is None:
        return None, None
    if change.stderr:
        df, inflation = _df_and_inflation(change)
        half = float(special.stdtrit(df, 1 - level)) * change.stderr * math.sqrt(inflation)
    else:
        shares_clusters = sum(stratum.n_clusters for stratum in change.strata) > change.n_clusters
        half = zero_change_bound(change.strata, shares_clusters, level) * (2 if change.value else 1)
    return clip_interval(change.value - half, change.value + half, CHANGE)


def _df_and_inflation(change: Estimate) -> tuple[float, float]:
    """Degrees of freedom, and what the variance is multiplied by, where only K effective clusters of C count.

    Where clusters are uneven, a few large ones carry the error, and their residuals are too small by most. (K / (K -
    1))^2 in place of C / (C - 1) is the jackknife's correction if clusters are alike.
    """
    varied = [stratum for stratum in change.strata if stratum.variance]
    total = sum(stratum.variance for stratum in varied)
    df, inflation = 0.0, 0.0
    for stratum in varied:
        k, c = stratum.effective_clusters, stratum.n_clusters
        df += (stratum.variance / total) ** 2 / (k - 1)
        inflation += stratum.variance / total * (k / (k - 1)) ** 2 * (c - 1) / c
    return 1 / df, inflation


def smallest_detectable_loss(max_loss: float, items: float, level: float, power: float = POWER) -> float:
    """The smallest true loss that breaks a budget at one look with this power, if answers are lost and none gained.

    With z of level and power, the error of a loss p of n independent items is sqrt(p (1 - p) / n), and p is the larger
    root of (p - max_loss)^2 = z^2 p (1 - p) / n. At best: gains, and items that share clusters, add to the error.

    Args:
        max_loss: the budget, as a fraction of 1.
        items: of the smallest group.
        level: of the bound.
        power: the probability to find it.
    """
    z2 = float(special.ndtri(1 - level) + special.ndtri(power)) ** 2 / items
    middle, outer = (2 * max_loss + z2) / (2 * (1 + z2)), max_loss**2 / (1 + z2)
    return middle + math.sqrt(middle**2 - outer)


def items_to_detect(loss: float, level: float, power: float = POWER) -> int:
    """Independent items in a group that tell a loss from none at one look, as `smallest_detectable_loss` counts."""
    z = float(special.ndtri(1 - level) + special.ndtri(power))
    return math.ceil(z**2 * (1 - loss) / loss)

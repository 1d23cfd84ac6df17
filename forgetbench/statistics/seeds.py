"""Seeds as a second level of error: several runs of one recipe, asked the same items.

Error between items says how a recipe's changes would differ on other items, error between seeds how they would differ
in another training. The two are kept apart, and put together only in the interval.

Legend: S seeds, N items, B resamples, C clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from forgetbench.statistics.bounds import Limits, clip_interval, t_interval
from forgetbench.statistics.intervals import Estimate, clip_to_limits, contrast, zero_variance_change
from forgetbench.statistics.strata import Floats, Stratum, Ways, codes

RESAMPLES = 2_000


@dataclass(frozen=True)
class SeedEstimate:
    """The mean over seeds of a mean over items."""

    value: float | None
    n_seeds: int
    item_stderr: float | None
    """Of the mean over seeds, these seeds held fixed: other items."""
    seed_sd: float | None
    """Between the seeds' means, these items held fixed; None for a single seed."""
    stderr: float | None
    """Of both, by the hierarchical bootstrap; of items alone for a single seed."""
    ci_low: float | None
    ci_high: float | None
    df: float | None
    """Degrees of freedom of the interval (Satterthwaite)."""
    strata: tuple[Stratum, ...] = ()
    """The datasets behind it; none unless what changes is right or wrong."""


def over_seeds(
    values: Sequence[Floats], clusters: Ways, weights: Floats, strata: Sequence[str], limits: Limits | None = None
) -> SeedEstimate:
    """The mean over seeds, with the errors of both levels.

    A resample draws seeds with replacement and, for all of them together, since all saw the same items, clusters of the
    coarser way. Seeds' deviations from their mean are widened by sqrt(S / (S - 1)), as few resampled seeds vary too
    little (Rao & Wu 1988), and what the clusters move is scaled to the clustered standard error, which knows the other
    way too. The standard deviation over resamples is the standard error of both levels. Three seeds are too few for
    percentiles, so the interval is a t interval, with degrees of freedom that weigh those of seeds (S - 1) and clusters
    (C - 1) by their parts of the variance (Satterthwaite 1946).

    Args:
        values: for each of S seeds N values of the same items in the same order.
        clusters: one or two sequences of N labels.
        weights: N weights, as in `contrast`: they sum to 1 for a mean, and to 0 for a difference of means.
        strata: N labels of fixed groups (datasets).
        limits: range of the weighted sum; None for a metric that is no fraction of 1.
    """
    if not len(values) or not len(values[0]):
        return SeedEstimate(None, len(values), None, None, None, None, None, None)
    values_SN = np.stack([np.asarray(seed_values, dtype=np.float64) for seed_values in values])
    items = clip_to_limits(contrast(values_SN.mean(0), clusters, weights, strata), limits)
    is_right_or_wrong = bool(np.isin(values_SN, (-1.0, 0.0, 1.0)).all())
    if not items.stderr:  # nothing varied between items
        items = clip_to_limits(zero_variance_change(items, clusters, is_right_or_wrong and not values_SN.any()), limits)
    known = items.strata if is_right_or_wrong else ()
    if len(values) == 1 or items.stderr is None or items.value is None:
        error = (items.stderr, items.ci_low, items.ci_high, items.df)
        return SeedEstimate(items.value, len(values), items.stderr, None, *error, known)
    n, seed_sd = len(values_SN), float((values_SN @ weights).std(ddof=1))
    stderr = float(_bootstrap_deviations(values_SN, clusters, weights, strata, items.stderr).std(ddof=1))
    df = _satterthwaite(items, seed_sd**2 / n, n - 1)
    bounds = t_interval(items.value, stderr, df) if stderr else (items.ci_low, items.ci_high)
    return SeedEstimate(items.value, n, items.stderr, seed_sd, stderr, *clip_interval(*bounds, limits), df, known)


def _satterthwaite(items: Estimate, seed_variance: float, seed_df: int) -> float:
    item_variance = (items.stderr or 0.0) ** 2
    total = item_variance + seed_variance
    item_df = items.df or 1.0
    if not total:
        return item_df
    parts = item_variance**2 / item_df + seed_variance**2 / seed_df
    return total**2 / parts


def _bootstrap_deviations(
    values_SN: Floats, clusters: Ways, w_N: Floats, strata: Sequence[str], item_stderr: float
) -> Floats:
    """The deviation from the mean in each of B resamples."""
    n_seeds = len(values_SN)
    code_N = min((codes(way) for way in clusters), key=np.max)
    group_N = codes(strata)
    n_clusters, n_groups = int(code_N.max()) + 1, int(group_N.max()) + 1
    place_N = code_N * n_groups + group_N

    def sums_CG(weights_N: Floats) -> Floats:
        sums = np.bincount(place_N, weights_N, n_clusters * n_groups).astype(np.float64)
        return sums.reshape(n_clusters, n_groups)

    weights_CG = sums_CG(w_N)
    share_G = weights_CG.sum(0)
    sums_SCG = np.stack([sums_CG(w_N * seed_N) for seed_N in values_SN])
    mean_SG = sums_SCG.sum(1) / share_G
    seed_S = (mean_SG - mean_SG.mean(0)) @ share_G * np.sqrt(n_seeds / (n_seeds - 1))

    seeds_BS, counts_BC = _bootstrap_draws(n_seeds, n_clusters)
    drawn_BG = counts_BC @ weights_CG
    sums_BSG = np.einsum("bc,scg->bsg", counts_BC, sums_SCG, optimize=True)
    # A resample without any item of a dataset leaves that dataset's mean as it is.
    means_BSG = np.where(drawn_BG[:, None] != 0, sums_BSG / np.where(drawn_BG != 0, drawn_BG, 1)[:, None], mean_SG)
    moved_BS = (means_BSG - mean_SG) @ share_G
    items_B = moved_BS.mean(1)
    interaction_B = ((seeds_BS - 1 / n_seeds) * moved_BS).sum(1)
    spread = float(items_B.std(ddof=1))
    out: Floats = seeds_BS @ seed_S + items_B * (item_stderr / spread if spread else 0.0) + interaction_B
    return out


@lru_cache(maxsize=2)
def _bootstrap_draws(n_seeds: int, n_clusters: int) -> tuple[Floats, Floats]:
    """How often each seed is drawn, as a share, and each cluster; the same for all that have as many."""
    draw = np.random.default_rng(0)
    seeds_BS = draw.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), RESAMPLES) / n_seeds
    counts_BC = draw.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), RESAMPLES).astype(np.float64)
    return seeds_BS, counts_BC

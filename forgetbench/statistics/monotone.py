"""How well one figure orders another over many checkpoints: rank correlation, and what a monotone fit explains.

Checkpoints of one run depend on each other, so resamples draw whole runs.

Legend: N points, G runs, B resamples; U distinct values of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from forgetbench.statistics.bounds import clip_interval, t_interval
from forgetbench.statistics.strata import Codes, Floats, codes

RESAMPLES = 2_000
MIN_RUNS = 5
"""Fewer runs get no interval. With strata, one more than the fewest degrees of freedom."""
_MIN_POINTS = 3
_DIGITS = 12
"""Decimals that are compared: equal means may differ in the last bit by the order of their sums."""
_MAX_RHO = 1 - 1e-4
"""A correlation of 1 is at infinity on Fisher's scale; resamples of few runs may have one."""


@dataclass(frozen=True)
class MonotoneFit:
    """How N points of G runs go together; None where it cannot be known."""

    n: int
    n_runs: int
    rho: float | None
    """Spearman's rank correlation; with strata, within them."""
    rho_low: float | None
    rho_high: float | None
    explained: float | None
    """Share of the variance of y that the best never-falling function of x explains, in these very points."""


def monotone_fit(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    runs: Sequence[str],
    strata: Sequence[str] | None = None,
) -> MonotoneFit:
    """Rank correlation of x and y with an interval clustered by run, and what a monotone fit explains.

    With strata (such as learning rates), ranks are taken within each, as shares of it, so that what differs between
    strata counts for nothing; each weighs as its number of points. A point that is alone in its stratum adds nothing.

    The interval is a t interval on Fisher's scale, atanh(rho), around the correlation of the data, its error the
    standard deviation over resamples of whole runs (the same ones at every call). It has G - 1 degrees of freedom; with
    strata G - C, where runs of different ones of the C groups share no stratum. There is none with fewer than
    `MIN_RUNS` - 1 of them.

    `explained` is 1 - SSE / SST of the isotonic fit that goes up (Barlow et al. 1972), with strata after their means
    were taken off both. The fit was chosen on the points it is judged by, so it is above 0 also where x says nothing.
    """
    points = _finite_points([x, y], runs, strata)
    (x_N, y_N), n = points.values, points.run_N.size
    rho = points.correlation(x_N)
    if rho is None:
        return MonotoneFit(n, points.n_runs, None, None, None, None)
    ends: tuple[float | None, float | None] = (None, None)
    if points.df >= MIN_RUNS - 1:
        error = _resample_sd(np.arctanh(np.clip(points.resampled_correlations(x_N), -_MAX_RHO, _MAX_RHO)))
        ends = _interval_ends(float(np.arctanh(np.clip(rho, -_MAX_RHO, _MAX_RHO))), error, points.df)
    low, high = (
        None if end is None else near(rho, float(np.tanh(end))) for near, end in zip((min, max), ends, strict=True)
    )
    centred = [_centre_by_stratum(values_N, points.stratum_N) for values_N in (x_N, y_N)]
    return MonotoneFit(n, points.n_runs, rho, low, high, _isotonic_r2(*centred))


@dataclass(frozen=True)
class RankDifference:
    """How much higher one figure's rank correlation with y is than another's; None where it cannot be known."""

    value: float | None
    low: float | None
    high: float | None


def rank_difference(
    first: Sequence[float] | Floats,
    second: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    runs: Sequence[str],
    strata: Sequence[str] | None = None,
) -> RankDifference:
    """Rank correlation of `first` and y less that of `second` and y, over the points that have all three.

    Both correlations are of the same resamples of whole runs, so that what they share cancels; see `monotone_fit`.
    """
    points = _finite_points([first, second, y], runs, strata)
    first_N, second_N, _ = points.values
    first_rho, second_rho = points.correlation(first_N), points.correlation(second_N)
    if first_rho is None or second_rho is None:
        return RankDifference(None, None, None)
    value = first_rho - second_rho
    if points.df < MIN_RUNS - 1:
        return RankDifference(value, None, None)
    error = _resample_sd(points.resampled_correlations(first_N) - points.resampled_correlations(second_N))
    return RankDifference(value, *clip_interval(*_interval_ends(value, error, points.df), (-2.0, 2.0)))


@dataclass(frozen=True)
class _Points:
    """N points of which every value is known; the last of `values` is y."""

    values: Sequence[Floats]
    run_N: Codes
    stratum_N: Codes

    @property
    def n_runs(self) -> int:
        return int(self.run_N.max(initial=-1)) + 1

    @cached_property
    def df(self) -> int:
        """Runs less the groups of them that strata do not connect."""
        from scipy.sparse import coo_array  # type: ignore[import-untyped]  # as above
        from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

        size = self.n_runs + int(self.stratum_N.max(initial=-1)) + 1
        edges = (np.ones(self.run_N.size), (self.run_N, self.n_runs + self.stratum_N))
        return self.n_runs - int(connected_components(coo_array(edges, shape=(size, size)), directed=False)[0])

    def correlation(self, x_N: Floats) -> float | None:
        """Correlation of x and y; None with too few points, or where x or y is constant."""
        if x_N.size < _MIN_POINTS:
            return None
        rho = float(_correlations(x_N, self.values[-1], self.stratum_N, np.ones((1, x_N.size)))[0])
        return None if np.isnan(rho) else rho

    def resampled_correlations(self, x_N: Floats) -> Floats:
        """The correlation in each of B resamples of whole runs, drawn from a fixed seed."""
        draw = np.random.default_rng(0)
        chances_G = np.full(self.n_runs, 1 / self.n_runs)
        drawn_BG = draw.multinomial(self.n_runs, chances_G, RESAMPLES).astype(np.float64)
        return _correlations(x_N, self.values[-1], self.stratum_N, drawn_BG[:, self.run_N])


def _finite_points(
    columns: Sequence[Sequence[float] | Floats], runs: Sequence[str], strata: Sequence[str] | None
) -> _Points:
    values: list[Floats] = [np.asarray(column, dtype=np.float64).round(_DIGITS) for column in columns]
    known_N = np.logical_and.reduce([np.isfinite(values_N) for values_N in values])
    label_columns = (runs, [""] * len(runs) if strata is None else strata)
    run_N, stratum_N = (
        codes([label for label, is_known in zip(labels, known_N, strict=True) if is_known]) for labels in label_columns
    )
    return _Points([values_N[known_N] for values_N in values], run_N, stratum_N)


def _resample_sd(figures_B: Floats) -> float | None:
    """Standard deviation over resamples; None where most of them have no correlation."""
    known_B = figures_B[~np.isnan(figures_B)]
    return float(known_B.std(ddof=1)) if known_B.size > figures_B.size / 2 else None


def _interval_ends(value: float, error: float | None, df: int) -> tuple[float | None, float | None]:
    return (None, None) if error is None else t_interval(value, error, df)


def _correlations(x_N: Floats, y_N: Floats, stratum_N: Codes, weights_BN: Floats) -> Floats:
    """Pearson's correlation of the ranks for each row of weights, which are how often a point counts; NaN of none."""
    x_BN, y_BN = (_ranks(values_N, stratum_N, weights_BN) for values_N in (x_N, y_N))
    products = [(weights_BN * a_BN * b_BN).sum(1) for a_BN, b_BN in ((x_BN, y_BN), (x_BN, x_BN), (y_BN, y_BN))]
    both_B, spread_B = products[0], np.sqrt(products[1] * products[2])
    # What is left of equal values is rounding.
    out: Floats = np.where(spread_B > 1e-12, both_B / np.where(spread_B > 1e-12, spread_B, 1), np.nan)
    return np.clip(out, -1, 1)


def _ranks(values_N: Floats, stratum_N: Codes, weights_BN: Floats) -> Floats:
    """Mean ranks of weighted points as shares of their stratum, centred: from -1/2 to 1/2."""
    out_BN = np.zeros_like(weights_BN)
    for stratum in range(int(stratum_N.max()) + 1):
        places = np.flatnonzero(stratum_N == stratum)
        places = places[np.argsort(values_N[places], kind="stable")]
        _, starts_U, repeats_U = np.unique(values_N[places], return_index=True, return_counts=True)
        counts_BU = np.add.reduceat(weights_BN[:, places], starts_U, axis=1)
        middle_BU = counts_BU.cumsum(1) - counts_BU / 2
        total_B = np.maximum(counts_BU.sum(1), 1)
        out_BN[:, places] = np.repeat(middle_BU / total_B[:, None] - 0.5, repeats_U, axis=1)
    return out_BN


def _centre_by_stratum(values_N: Floats, stratum_N: Codes) -> Floats:
    means = np.bincount(stratum_N, values_N) / np.bincount(stratum_N)
    out: Floats = values_N - means[stratum_N]
    return out


def _isotonic_r2(x_N: Floats, y_N: Floats) -> float | None:
    """R2 of the isotonic fit; equal values of x have one fitted value."""
    from scipy.optimize import isotonic_regression  # type: ignore[import-untyped]  # takes a third of a second to load

    total = float(((y_N - y_N.mean()) ** 2).sum())
    if not total:
        return None
    _, code, counts_U = np.unique(x_N, return_inverse=True, return_counts=True)
    means_U = np.bincount(code, y_N) / counts_U
    fitted_U = isotonic_regression(means_U, weights=counts_U).x
    return 1 - float(((y_N - fitted_U[code]) ** 2).sum()) / total

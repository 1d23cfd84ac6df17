"""How well one figure orders another over many checkpoints: rank correlation, and what a monotone fit explains.

Checkpoints of one run are no independent witnesses: each follows from the one before. So resamples draw whole runs.

Legend: N points, G runs, B resamples; U distinct values of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forgetbench.statistics.bounds import t_interval
from forgetbench.statistics.strata import Codes, Floats, codes

RESAMPLES = 2_000
LEAST_RUNS = 5
"""Fewer runs say too little of how runs differ: no interval."""
_LEAST_POINTS = 3
_CLOSEST = 1 - 1e-9
"""A correlation of 1 is at infinity on Fisher's scale."""


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

    The interval is a t interval with G - 1 degrees of freedom on Fisher's scale, atanh(rho), around the correlation of
    the data, its error the standard deviation over resamples of whole runs (the same ones at every call). There is none
    of fewer than `LEAST_RUNS` runs.

    `explained` is 1 - SSE / SST of the isotonic fit that goes up (Barlow et al. 1972), with strata after their means
    were taken off both. The fit was chosen on the points it is judged by, so it is above 0 also where x says nothing.
    """
    x_N, y_N = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    known_N = np.isfinite(x_N) & np.isfinite(y_N)
    x_N, y_N = x_N[known_N], y_N[known_N]
    run_N = codes([one for one, known in zip(runs, known_N, strict=True) if known])
    names = ["" for _ in runs] if strata is None else list(strata)
    stratum_N = codes([one for one, known in zip(names, known_N, strict=True) if known])
    n_runs = int(run_N.max(initial=-1)) + 1
    n = x_N.size
    if n < _LEAST_POINTS:
        return MonotoneFit(n, n_runs, None, None, None, None)
    rho = float(_correlations(x_N, y_N, stratum_N, np.ones((1, n)))[0])
    if np.isnan(rho):
        return MonotoneFit(n, n_runs, None, None, None, None)
    ends = _interval(rho, _resampled(x_N, y_N, run_N, stratum_N), n_runs) if n_runs >= LEAST_RUNS else (None, None)
    return MonotoneFit(
        n, n_runs, rho, *ends, _explained(_without_means(x_N, stratum_N), _without_means(y_N, stratum_N))
    )


def _interval(rho: float, rhos_B: Floats, n_runs: int) -> tuple[float | None, float | None]:
    """None where a resample has no correlation, as where one run alone holds all that varies."""
    known_B = rhos_B[~np.isnan(rhos_B)]
    if known_B.size < RESAMPLES / 2:
        return None, None
    error = float(np.arctanh(np.clip(known_B, -_CLOSEST, _CLOSEST)).std(ddof=1))
    low, high = t_interval(float(np.arctanh(np.clip(rho, -_CLOSEST, _CLOSEST))), error, n_runs - 1.0)
    return float(np.tanh(low)), float(np.tanh(high))


def _resampled(x_N: Floats, y_N: Floats, run_N: Codes, stratum_N: Codes) -> Floats:
    """The correlation in each of B resamples of whole runs, drawn from a fixed seed."""
    n_runs = int(run_N.max()) + 1
    draw = np.random.default_rng(0)
    drawn_BG = draw.multinomial(n_runs, np.full(n_runs, 1 / n_runs), RESAMPLES).astype(np.float64)
    return _correlations(x_N, y_N, stratum_N, drawn_BG[:, run_N])


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


def _without_means(values_N: Floats, stratum_N: Codes) -> Floats:
    means = np.bincount(stratum_N, values_N) / np.bincount(stratum_N)
    out: Floats = values_N - means[stratum_N]
    return out


def _explained(x_N: Floats, y_N: Floats) -> float | None:
    """R2 of the isotonic fit; equal values of x have one fitted value."""
    from scipy.optimize import isotonic_regression  # type: ignore[import-untyped]  # takes a third of a second to load

    total = float(((y_N - y_N.mean()) ** 2).sum())
    if not total:
        return None
    _, code, counts_U = np.unique(x_N, return_inverse=True, return_counts=True)
    means_U = np.bincount(code, y_N) / counts_U
    fitted_U = isotonic_regression(means_U, weights=counts_U).x
    return 1 - float(((y_N - fitted_U[code]) ** 2).sum()) / total

"""Tests on changes of the same items: cluster sign flips, Holm's correction, equivalence.

Legend: N items, A and B clusters of the first and second way, F flips of every cluster's sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # type: ignore[import-untyped]  # as in `statistics`

from forgetbench.statistics.intervals import Estimate
from forgetbench.statistics.seeds import SeedEstimate
from forgetbench.statistics.strata import Floats, Ways, codes

FLIPS = 9_999
"""Random flips where all of them are too many; the smallest p-value is then 1 / 10,000."""
_ENUMERATED = 13
"""Up to so many clusters all 2^C flips are made."""
_EXACT_COST = 50_000_000
_CHUNK = 2_000
_ROUNDING = 1e-9
"""Relative to the largest value a statistic can have: what differs by less is equal."""


def sign_flip_p(changes: ArrayLike, clusters: Ways, weights: ArrayLike | None = None) -> float | None:
    """Two-sided p-value of "each cluster's change is as likely as its negative", so that the mean change is 0.

    One way of clustering: the share of the 2^C sign flips of whole clusters whose absolute (weighted) sum is at least
    the observed one. It is exact where cluster sums are whole numbers of a unit, as right and wrong answers are; for
    items that are each their own cluster that is McNemar's exact test. Otherwise flips are enumerated or, for more
    than a few clusters, drawn 9,999 times from a fixed seed, the observed one counted too (Phipson & Smyth 2010).

    Two ways: the clusters of the coarser one are flipped, and the sum is divided by its two-way standard error under
    the null hypothesis, which each flip changes through the other way's sums: the wild cluster bootstrap of
    MacKinnon, Nielsen & Webb (2021) in its score form.

    Args:
        changes: N values, after minus before.
        clusters: one or two sequences of N labels.
        weights: N weights; equal ones by default.

    Returns:
        None without items.
    """
    change_N = np.asarray(changes, dtype=np.float64)
    if not change_N.size:
        return None
    ways = sorted((codes(way) for way in clusters), key=np.max)
    w_N = np.ones(change_N.size) if weights is None else np.asarray(weights, dtype=np.float64)
    # In units of the smallest weight a quadrant's sums are often whole numbers.
    parts_N = change_N * (w_N / w_N[w_N > 0].min())
    if len(ways) == 1:
        return _one_way_p_value(np.bincount(ways[0], parts_N).astype(np.float64))
    return _two_way_p_value(parts_N, ways[0], ways[1])


def holm(p_values: Sequence[float | None], family: int | None = None) -> list[float | None]:
    """P-values adjusted for their number (Holm 1979); absent ones stay absent and do not count.

    Args:
        p_values: some p-values.
        family: how many there are with those that are not given, which count as larger; all are given by default.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    size = len(known) if family is None else max(family, len(known))
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (size - rank) * p))
        adjusted[place] = largest
    return adjusted


def equivalence_p(change: SeedEstimate, margin: float) -> float | None:
    """P-value of "the change is at least the margin, up or down": two one-sided t tests (TOST, Schuirmann 1987).

    A small one says that the true change lies within the margin; a large one says nothing. None without an error.

    Few changed answers make a small change and a small error together, so that plain t tests claim too much. Where
    answers are right or wrong, a true change of the margin m may all come from one dataset of weight w, of whose n
    effective items a share of at least q = m / w then changes: with a variance of at least q (1 - q) / n, and so rarely
    as was seen only with a binomial probability. So the standard error is at least the largest of these, and so is the
    p-value. (Our own, conservative; docs/results/coverage.md has what it claims.)

    Raises:
        ValueError: the margin is not positive.
    """
    if margin <= 0:
        raise ValueError(f"an equivalence margin is positive, not {margin}")
    if change.value is None or change.stderr is None or change.df is None:
        return None
    stderr, exact = change.stderr, 0.0
    for stratum in change.strata:
        share, n = margin / stratum.weight, stratum.effective_items
        if share < 1:
            stderr = max(stderr, stratum.weight * math.sqrt(share * (1 - share) / n))
            changed = min(abs(change.value) / stratum.weight, 1 - _ROUNDING) * n
            exact = max(exact, float(special.betainc(n - changed, changed + 1, 1 - share)))
    if not stderr:
        return None  # scores on a scale of their own that did not vary
    nearest = (margin - abs(change.value)) / stderr
    return max(exact, float(special.stdtr(change.df, -nearest)))


def t_test_p(change: Estimate | SeedEstimate) -> float | None:
    """Two-sided p-value of "the change is 0" from its standard error; None where a change has no variance to go by."""
    if change.value is None or change.stderr is None or change.df is None:
        return None
    if not change.stderr:
        return None if change.value else 1.0
    return float(2 * special.stdtr(change.df, -abs(change.value) / change.stderr))


def _one_way_p_value(sums_A: Floats) -> float:
    total, sizes_A = abs(float(sums_A.sum())), np.abs(sums_A[sums_A != 0])
    whole_A = np.rint(sizes_A)
    is_whole = np.allclose(sizes_A, whole_A, rtol=0, atol=_ROUNDING * max(1.0, sizes_A.max(initial=0)))
    if is_whole and whole_A.sum() * sizes_A.size <= _EXACT_COST:
        return _exact_p_value(whole_A.astype(np.int64), round(total))
    return _flip_p_value(sizes_A.size, total, lambda flips_FA: np.abs(flips_FA @ sizes_A), sizes_A.sum())


def _exact_p_value(sizes_A: NDArray[np.int64], total: int) -> float:
    """P(|sum of +-size| >= total) from the distribution of the sum of those that stay positive, size by size."""
    probabilities = np.ones(1)
    for size in sizes_A:
        grown = np.zeros(probabilities.size + size)
        grown[: probabilities.size] = probabilities / 2
        grown[size:] += probabilities / 2
        probabilities = grown
    sums = 2 * np.arange(probabilities.size) - int(sizes_A.sum())
    return min(1.0, float(probabilities[np.abs(sums) >= total].sum()))


def _two_way_p_value(parts_N: Floats, a_N: NDArray[Any], b_N: NDArray[Any]) -> float:
    from scipy import sparse

    table_AB = sparse.csr_array((parts_N, (a_N, b_N)))
    table_AB.sum_duplicates()
    sums_A = np.asarray(table_AB.sum(axis=1)).ravel()
    table_AB, sums_A = table_AB[np.diff(table_AB.indptr) > 0], sums_A[np.diff(table_AB.indptr) > 0]
    sizes = np.array([a_N.max() + 1, b_N.max() + 1, np.unique(a_N * (b_N.max() + 1) + b_N).size], dtype=np.float64)
    factor_a, factor_b, factor_ab = sizes / np.maximum(sizes - 1, 1)
    fixed_a = factor_a * float(sums_A @ sums_A)
    fixed_ab = factor_ab * float(table_AB.data @ table_AB.data)

    def statistic(flips_FA: Floats) -> Floats:
        v_b = factor_b * np.square(flips_FA @ table_AB).sum(axis=1)
        variance = fixed_a + v_b - fixed_ab
        variance = np.where(variance > 0, variance, np.maximum(fixed_a, v_b))
        out: Floats = np.abs(flips_FA @ sums_A) / np.sqrt(np.where(variance > 0, variance, 1.0))
        return out

    observed = float(statistic(np.ones((1, sums_A.size)))[0])
    return _flip_p_value(sums_A.size, observed, statistic, observed)


def _flip_p_value(n: int, observed: float, statistic: Callable[[Floats], Floats], scale: float) -> float:
    """Share of flips whose statistic is at least the observed one: of all of them, or of those drawn."""
    least = observed - _ROUNDING * scale
    if n <= _ENUMERATED:
        bits_FA = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float((statistic(_signs(bits_FA)) >= least).mean())
    draw, reached = np.random.default_rng(0), 0
    for start in range(0, FLIPS, _CHUNK):
        bits_FA = draw.integers(0, 2, (min(_CHUNK, FLIPS - start), n), dtype=np.int8)
        reached += int((statistic(_signs(bits_FA)) >= least).sum())
    return (1 + reached) / (1 + FLIPS)


def _signs(bits: NDArray[Any]) -> Floats:
    return 1.0 - 2.0 * bits.astype(np.float64)

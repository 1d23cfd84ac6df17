"""Fixed groups of items, such as the datasets of a quadrant: what each adds to an error.

Legend: N items, G strata, C clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Ways = Sequence[Sequence[str]]
"""One or two sequences of N cluster labels."""


@dataclass(frozen=True)
class Stratum:
    """One dataset of an estimate."""

    weight: float
    """How much its mean counts, without the sign."""
    n_clusters: int
    effective_clusters: float
    """Number of equal-sized clusters with the same information: Kish's (sum of w)^2 / sum of w^2 over clusters."""
    effective_items: float
    """Number of independent items with the same error; the effective clusters where nothing varied."""
    variance: float
    """What it adds to the variance of the estimate."""


def correct_for_few_clusters(influences_N: Floats, code_N: Codes, group_N: Codes) -> Floats:
    """Influences times sqrt(C_g / (C_g - 1)), which corrects the variance of each stratum for its few clusters."""
    counts_G = cluster_counts(code_N, group_N)
    return influences_N * np.sqrt(counts_G / np.maximum(counts_G - 1, 1))[group_N]


def cluster_counts(code_N: Codes, group_N: Codes) -> Codes:
    """How many clusters each of G strata has."""
    n_codes = int(code_N.max()) + 1
    return np.bincount(np.unique(group_N * n_codes + code_N) // n_codes).astype(np.int64)


def summarise_strata(influences_N: Floats, weights_N: Floats, code_N: Codes, group_N: Codes) -> list[Stratum]:
    """The strata of an estimate whose items have these influences and weights, by one way of clustering."""
    corrected_N = correct_for_few_clusters(influences_N, code_N, group_N)
    strata = []
    for group in range(int(group_N.max()) + 1):
        in_group = group_N == group
        w, group_codes = np.abs(weights_N[in_group]), np.unique(code_N[in_group], return_inverse=True)[1]
        sizes_C, sums_C = np.bincount(group_codes, w), np.bincount(group_codes, corrected_N[in_group])
        kish = float(sizes_C.sum() ** 2 / (sizes_C @ sizes_C))
        items = float(w.sum() ** 2 / (w @ w))
        variance, independent = float(sums_C @ sums_C), float(np.square(influences_N[in_group]).sum())
        effective = items * min(1.0, independent / variance) if variance else min(items, kish)
        strata.append(Stratum(float(w.sum()), sizes_C.size, kish, effective, variance))
    return strata


def degrees_of_freedom(strata: Sequence[Stratum]) -> float:
    """C - 1 of one stratum; of several, those of each by its part of the variance (Satterthwaite 1946)."""
    total = sum(stratum.variance for stratum in strata)
    if not total:
        return min(stratum.n_clusters for stratum in strata) - 1.0
    return float(
        total**2 / sum(stratum.variance**2 / (stratum.n_clusters - 1) for stratum in strata if stratum.variance)
    )


def codes(labels: Sequence[Any]) -> Codes:
    """Numbers from 0 for labels, which are compared as text."""
    texts = list(map(str, labels))
    place = {text: code for code, text in enumerate(sorted(set(texts)))}  # faster than sorting all of them in NumPy
    return np.array([place[text] for text in texts], dtype=np.int64)


def cluster_codes(clusters: Ways, n: int) -> list[Codes]:
    """Numbers for the labels of every way.

    Raises:
        ValueError: they are not one or two ways of N labels.
    """
    ways = [codes(labels) for labels in clusters]
    if len(ways) not in {1, 2} or any(way.size != n for way in ways):
        raise ValueError(f"expected 1 or 2 ways of {n} cluster labels each")
    return ways


def join_ways(*item_sets: Ways) -> list[list[str]]:
    """The ways of several item sets end to end.

    A set with one way repeats it beside sets with two: V_a + V_b - V_ab is then its one-way V.
    """
    n_ways = max(len(ways) for ways in item_sets)
    return [[label for ways in item_sets for label in ways[min(way, len(ways) - 1)]] for way in range(n_ways)]

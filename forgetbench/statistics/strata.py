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
    """Clusters of equal size that would know as much: Kish's (sum of w)^2 / sum of w^2 over clusters."""
    effective_items: float
    """Independent items that would have its error; its effective clusters where nothing varied."""
    variance: float
    """What it adds to the variance of the estimate."""


def scaled(influences_N: Floats, code_N: Codes, group_N: Codes) -> Floats:
    """Influences times sqrt(C_g / (C_g - 1)), which corrects the variance of each stratum for its few clusters."""
    counts_G = cluster_counts(code_N, group_N)
    return influences_N * np.sqrt(counts_G / np.maximum(counts_G - 1, 1))[group_N]


def cluster_counts(code_N: Codes, group_N: Codes) -> Codes:
    """How many clusters each of G strata has."""
    n_codes = int(code_N.max()) + 1
    return np.bincount(np.unique(group_N * n_codes + code_N) // n_codes).astype(np.int64)


def strata_of(influences_N: Floats, weights_N: Floats, code_N: Codes, group_N: Codes) -> list[Stratum]:
    """The strata of an estimate whose items have these influences and weights, by one way of clustering."""
    corrected_N = scaled(influences_N, code_N, group_N)
    found = []
    for group in range(int(group_N.max()) + 1):
        mine = group_N == group
        w, codes = np.abs(weights_N[mine]), np.unique(code_N[mine], return_inverse=True)[1]
        sizes_C, sums_C = np.bincount(codes, w), np.bincount(codes, corrected_N[mine])
        kish = float(sizes_C.sum() ** 2 / (sizes_C @ sizes_C))
        items = float(w.sum() ** 2 / (w @ w))
        variance, independent = float(sums_C @ sums_C), float(np.square(influences_N[mine]).sum())
        effective = items * min(1.0, independent / variance) if variance else min(items, kish)
        found.append(Stratum(float(w.sum()), sizes_C.size, kish, effective, variance))
    return found


def degrees_of_freedom(strata: Sequence[Stratum]) -> float:
    """C - 1 of one stratum; of several, those of each by its part of the variance (Satterthwaite 1946)."""
    total = sum(one.variance for one in strata)
    if not total:
        return min(one.n_clusters for one in strata) - 1.0
    return float(total**2 / sum(one.variance**2 / (one.n_clusters - 1) for one in strata if one.variance))


def codes(labels: Sequence[Any]) -> Codes:
    """Numbers from 0 for labels, which are compared as text."""
    texts = list(map(str, labels))
    place = {text: code for code, text in enumerate(sorted(set(texts)))}  # faster than sorting all of them in NumPy
    return np.array([place[text] for text in texts], dtype=np.int64)


def codes_of(clusters: Ways, n: int) -> list[Codes]:
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

"""How far two distributions over a few outcomes are apart, item by item: KL divergence and total variation.

Legend: N items, K outcomes; an item with fewer outcomes has -inf in the places that it lacks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special  # type: ignore[import-untyped]  # scipy ships no type stubs

from forgetbench.statistics.strata import Floats

MIN_REMAINDER = 1e-6
"""Lowest probability of everything besides the outcomes; smaller values are rounding of fp32 log-probabilities."""
_SUM_TOLERANCE = 0.01
"""How far rounding in bf16 may lift a sum of probabilities above 1."""


def logprob_matrix(rows: Sequence[Sequence[float]]) -> Floats:
    """Log-probabilities of N items as an N x K array."""
    out_NK = np.full((len(rows), max(map(len, rows), default=0)), -math.inf)
    for place, row in enumerate(rows):
        out_NK[place, : len(row)] = row
    return out_NK


def normalise_outcomes(logprobs_NK: Floats) -> Floats:
    """Log-probabilities renormalised over the outcomes: the probabilities of each item sum to 1."""
    with np.errstate(invalid="ignore"):
        out: Floats = logprobs_NK - special.logsumexp(logprobs_NK, axis=1, keepdims=True)
    return out


def with_remainder(logprobs_NK: Floats) -> Floats | None:
    """Append everything that is none of the outcomes as a last outcome.

    Returns:
        N x (K + 1) log-probabilities; the probabilities of each item sum to 1, and the remainder has at least
        `MIN_REMAINDER`. None if the outcomes of an item sum to more than 1: they are then not mutually exclusive.
    """
    totals_N = np.exp(special.logsumexp(logprobs_NK, axis=1)) if logprobs_NK.size else np.zeros(len(logprobs_NK))
    if not (totals_N <= 1 + _SUM_TOLERANCE).all():
        return None
    rest_N = np.log(np.maximum(1 - totals_N, MIN_REMAINDER))
    return normalise_outcomes(np.column_stack([logprobs_NK, rest_N]))


def kl_divergence(first_NK: Floats, second_NK: Floats) -> Floats:
    """KL(first || second) of each item in nats: the sum over outcomes of p (log p - log q), infinite where q is 0.

    Args:
        first_NK: log-probabilities that sum to 1.
        second_NK: of the same outcomes.
    """
    p_NK = np.exp(first_NK)
    with np.errstate(invalid="ignore"):
        terms_NK = np.where(p_NK > 0, p_NK * (first_NK - second_NK), 0.0)
    out: Floats = np.maximum(terms_NK.sum(1), 0.0)  # never negative but by rounding
    return out


def total_variation(first_NK: Floats, second_NK: Floats) -> Floats:
    """Half the sum of |p - q| of each item: the most by which the probability of any set of outcomes differs."""
    out: Floats = np.minimum(np.abs(np.exp(first_NK) - np.exp(second_NK)).sum(1) / 2, 1.0)
    return out

"""Precision, recall and F1 of yes/no questions, such as POPE's on hallucinated objects (Li et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forgetbench.statistics.ratios import RatioScores
from forgetbench.statistics.strata import Floats, Ways


@dataclass(frozen=True)
class YesNoCounts:
    """For each of N items 1 where it is a hit, a false alarm or a miss, else 0."""

    tp_N: Floats
    fp_N: Floats
    fn_N: Floats

    def precision(self, clusters: Ways) -> RatioScores:
        """TP / (TP + FP)."""
        return RatioScores(self.tp_N, self.tp_N + self.fp_N, clusters)

    def recall(self, clusters: Ways) -> RatioScores:
        """TP / (TP + FN)."""
        return RatioScores(self.tp_N, self.tp_N + self.fn_N, clusters)

    def f1(self, clusters: Ways) -> RatioScores:
        """2 TP / (2 TP + FP + FN)."""
        return RatioScores(self.tp_N, self.tp_N + self.fp_N + self.fn_N, clusters, hit_weight=2)


def yes_no_counts(parsed: Sequence[str | None], targets: Sequence[str], positive: str) -> YesNoCounts:
    """Compare answers with the truth; every answer but the positive one is negative.

    An unparsed answer (None) is thus a miss where the truth is positive and no false alarm where it is not. Public
    evaluations disagree on it: POPE's script takes every reply without "no" or "not" for a yes, lmms-eval counts only
    a bare "yes" as one and leaves other replies out of the recall.
    """
    pairs = [(answer == positive, target == positive) for answer, target in zip(parsed, targets, strict=True)]
    predicted_N, true_N = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return YesNoCounts(predicted_N * true_N, predicted_N * (1 - true_N), (1 - predicted_N) * true_N)

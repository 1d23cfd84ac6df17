"""The items of several datasets in one pool: datasets have equal weight, items are paired with another checkpoint.

Legend: N items of all the datasets together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from forgetbench.statistics.bounds import SHARE, Limits
from forgetbench.statistics.intervals import Estimate, PairedDifference, clustered_mean, paired_difference
from forgetbench.statistics.significance import sign_flip_p
from forgetbench.statistics.strata import Floats, Ways, join_ways
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.metrics import item_scores

ABSENT = Estimate(None, None, None, None, 0, 0)


@dataclass(frozen=True)
class Pool:
    """Scores of N items after and before."""

    after_N: Floats
    before_N: Floats | None
    """None if a dataset was not scored before."""
    clusters: Ways
    weights_N: Floats | None
    """None for a single dataset, which has a plain mean."""
    strata: Sequence[str]
    """The dataset of every item."""
    limits: Limits | None = SHARE
    """Range of a score; None for a metric that is no fraction of 1."""

    @cached_property
    def score(self) -> Estimate:
        """The mean after."""
        return clustered_mean(self.after_N, self.clusters, self.weights_N, self.strata, self.limits)

    @cached_property
    def score_before(self) -> Estimate:
        """The mean before."""
        if self.before_N is None:
            return ABSENT
        return clustered_mean(self.before_N, self.clusters, self.weights_N, self.strata, self.limits)

    @cached_property
    def change(self) -> PairedDifference:
        """The change, item by item."""
        if self.before_N is None:
            return PairedDifference(ABSENT, None, None, None)
        return paired_difference(self.after_N, self.before_N, self.clusters, self.weights_N, self.strata, self.limits)

    @property
    def change_p_value(self) -> float | None:
        """P-value of no change (see `sign_flip_p`)."""
        if self.before_N is None:
            return None
        return sign_flip_p(self.after_N - self.before_N, self.clusters, self.weights_N)

    @property
    def retention(self) -> Estimate:
        """The score over the one before: R plus the mean of (after - R before) / before, which is 0 with R's error."""
        score, before = self.score.value, self.score_before.value
        if self.before_N is None or score is None or not before:
            return ABSENT
        ratio = score / before
        values_N = ratio + (self.after_N - ratio * self.before_N) / before
        return clustered_mean(values_N, self.clusters, self.weights_N, self.strata, (0.0, math.inf))

    @property
    def all_weights_N(self) -> Floats:
        """Weight of every item."""
        return np.full(self.after_N.size, 1 / max(1, self.after_N.size)) if self.weights_N is None else self.weights_N


def pool(pairs: Sequence[tuple[CellView, CellView | None]]) -> Pool:
    """Cells of different datasets, each with the same items before, in the same order (see `aligned`)."""
    if not pairs:
        return Pool(np.array([]), None, [[]], None, [])
    cells = [cell for cell, _ in pairs]
    base_cells = [before for _, before in pairs if before is not None]
    sizes = [len(cell.frame) for cell in cells]
    return Pool(
        after_N=_scores(cells),
        before_N=_scores(base_cells) if len(base_cells) == len(cells) else None,
        clusters=join_ways(*(cell.ways for cell in cells)),
        weights_N=None if len(cells) == 1 else np.repeat([1 / (len(cells) * n) for n in sizes], sizes),
        strata=np.repeat([cell.context.dataset for cell in cells], sizes).tolist(),
        limits=SHARE if cells[0].context.metric.is_fraction else None,
    )


def _scores(cells: Sequence[CellView]) -> Floats:
    return np.concatenate([np.asarray(item_scores(cell).values) for cell in cells])

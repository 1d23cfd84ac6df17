"""drift.csv: drift of the answers on the target's items, beside the gain there and the loss elsewhere.

A row is a checkpoint. Drift is computed from the options' log-probabilities, so only the decoding `choice` has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from forgetbench.core.records import QUADRANTS, Decoding
from forgetbench.statistics.intervals import Estimate, clustered_mean
from forgetbench.statistics.strata import join_ways
from forgetbench.tables.answer_drift import DRIFT, drift_scores
from forgetbench.tables.cell_view import CellView, aligned
from forgetbench.tables.metrics import Cells
from forgetbench.tables.scores import RUN_COLUMNS
from forgetbench.tables.summary import is_source, pool_cells, target_cells

ELSEWHERE = "loss_elsewhere"
LEARNT = "target_delta"
LOSSES = {quadrant: f"loss_{quadrant}" for quadrant in QUADRANTS}
"""Quadrant -> its column."""


def with_error(name: str) -> tuple[str, str, str, str]:
    """The columns of an estimate."""
    return name, f"{name}_stderr", f"{name}_ci_low", f"{name}_ci_high"


ESTIMATES = tuple(column for name in (*DRIFT, LEARNT, ELSEWHERE, *LOSSES.values()) for column in with_error(name))
DRIFT_COLUMNS = (*RUN_COLUMNS, "decoding", "n", "n_clusters", *ESTIMATES, "n_sources")
_TYPES = dict.fromkeys(("seed", "stage", "step", "n", "n_clusters", "n_sources"), "Int64") | dict.fromkeys(
    ("mix_ratio", *ESTIMATES), "Float64"
)
_ORDER = ["run", "stage", "step", "variant"]


def drift_rows(cells: Sequence[CellView]) -> pd.DataFrame:
    """drift.csv: one row per checkpoint and variant whose target was scored by likelihood beside its base.

    Drift is the mean over the target's items; of sets that are trained jointly each counts once. `target_delta` is
    what the target gained. `loss_elsewhere` is what the source sets of summary.csv lost, each counted once, and
    `loss_<quadrant>` the same of one quadrant: minus the change from the base, as a fraction of 1. The class-label
    probe, sets seen in the mix and metrics that are no fraction of 1 are in no loss.

    Returns:
        Rows without the base, which has no drift; none where the target has no options.

    Raises:
        UserError: a cell and its base hold different items.
    """
    index = Cells(cells)
    groups: dict[tuple[object, ...], list[CellView]] = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: cell.context.dataset):
        context = cell.context
        if context.decoding == Decoding.choice and not context.is_base:
            groups[tuple(getattr(context, name) for name in RUN_COLUMNS)].append(cell)
    rows = [row for group in groups.values() if (row := _row(group, index))]
    frame = pd.DataFrame(rows, columns=list(DRIFT_COLUMNS)).astype(_TYPES)
    return frame.sort_values(_ORDER, kind="stable", ignore_index=True)


def joined_drift(paths: Iterable[Path]) -> pd.DataFrame:
    """The tables of several runs, end to end; whole numbers stay whole where others are absent."""
    return pd.concat([pd.read_csv(path, dtype=_TYPES) for path in paths], ignore_index=True)


def _row(group: Sequence[CellView], index: Cells) -> dict[str, object] | None:
    """A row, or None where the target has no drift."""
    target = target_cells(group)
    drifts = {name: estimate for name in DRIFT if (estimate := _drift(name, target, index))}
    if not drifts:
        return None
    any_drift, context = next(iter(drifts.values())), group[0].context
    row: dict[str, object] = {name: getattr(context, name) for name in RUN_COLUMNS}
    row |= {"decoding": context.decoding, "n": any_drift.n, "n_clusters": any_drift.n_clusters}
    for name, drift in drifts.items():
        row |= _columns(name, drift)
    row |= _columns(LEARNT, pool_cells(target, index).change.difference)
    sources = [cell for cell in group if is_source(cell)]
    row |= _loss(ELSEWHERE, sources, index) | {"n_sources": len(sources)}
    for quadrant, name in LOSSES.items():
        row |= _loss(name, [cell for cell in group if _is_in_quadrant(cell, quadrant)], index)
    return row


def _is_in_quadrant(cell: CellView, quadrant: str) -> bool:
    if quadrant != QUADRANTS[0]:
        return cell.context.placement.quadrant == quadrant and is_source(cell)
    context = cell.context
    in_quadrant = context.placement.quadrant == quadrant and not context.placement.seen_in_mix
    return in_quadrant and not context.probe and context.metric.is_fraction and len(cell.frame) > 0


def _drift(name: str, cells: Sequence[CellView], index: Cells) -> Estimate | None:
    """The mean over some datasets, each with equal weight; None unless it is known of all."""
    pairs = [(cell, base) for cell in cells if (base := index.base(cell)) is not None]
    scores = [drift_scores(name, cell, aligned(base, cell)) for cell, base in pairs]
    known = [cell_scores for cell_scores in scores if cell_scores is not None]
    if not known or len(known) < len(cells):
        return None
    values = [np.asarray(cell_scores.values) for cell_scores in known]
    sizes = [cell_values.size for cell_values in values]
    return clustered_mean(
        np.concatenate(values),
        join_ways(*(cell_scores.clusters for cell_scores in known)),
        None if len(known) == 1 else np.repeat([1 / (len(known) * n) for n in sizes], sizes),
        np.repeat([cell.context.dataset for cell in cells], sizes).tolist() if len(known) > 1 else None,
        known[0].limits,
    )


def _loss(name: str, cells: Sequence[CellView], index: Cells) -> dict[str, object]:
    delta = pool_cells(cells, index).change.difference
    return _columns(name, delta, sign=-1)


def _columns(name: str, estimate: Estimate, sign: int = 1) -> dict[str, object]:
    ends = [estimate.ci_low, estimate.ci_high][::sign]
    value, *bounds = (None if number is None else sign * number + 0.0 for number in (estimate.value, *ends))
    return dict(zip(with_error(name), (value, estimate.stderr, *bounds), strict=True))

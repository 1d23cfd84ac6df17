"""Scored cells in, scores.csv and matrix.csv out; no model and no torch needed.

A cell is one checkpoint x dataset x decoding. Forgetting is its difference, item by item, from
the cell of the same run's untouched base (step 0).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from forgetbench.analysis.cell_view import ACCURACY, MISCHOICE_OF_WRONG, PROBE_METRICS, CellView, aligned, item_scores
from forgetbench.analysis.statistics import (
    ClusteredScores,
    Estimate,
    PairedDifference,
    clustered_mean,
    difference_of_means,
    join_ways,
    minimum_detectable,
    paired_difference,
)
from forgetbench.files import write_text

RUN_COLUMNS = (
    "run", "model", "target", "checkpoint", "variant", "method", "parts", "lr", "mix", "mix_ratio",
    "seed", "stage", "step",
)  # fmt: skip
_VALUE = ("value", "stderr", "ci_low", "ci_high")
_DELTA = ("delta", "delta_stderr", "delta_ci_low", "delta_ci_high")
SCORE_COLUMNS = (
    *RUN_COLUMNS, "dataset", "image_domain", "text_task", "text_axis", "image_axis", "quadrant",
    "seen_in_mix", "decoding", "metric", "n", "n_clusters", *_VALUE, "chance", "base_value",
    *_DELTA, "forgotten", "gained", "p_value", "p_holm", "mde", "unparsed", "label_bias",
    "seconds", "cell",
)  # fmt: skip
MATRIX_COLUMNS = (
    *RUN_COLUMNS, "quadrant", "decoding", "metric", "seen_in_mix", "n_datasets", "n", *_VALUE,
    "base_value", *_DELTA, "p_value", "p_holm",
)  # fmt: skip
_INTEGERS = {"seed", "stage", "step", "n", "n_clusters", "n_datasets"}
_FLOATS = {
    "mix_ratio", *_VALUE, "chance", "base_value", *_DELTA, "forgotten", "gained", "p_value",
    "p_holm", "mde", "unparsed", "label_bias", "seconds",
}  # fmt: skip
_ORDER = ("run", "stage", "step", "variant", "quadrant", "dataset", "decoding", "metric")


def score_rows(cells: Sequence[CellView]) -> pd.DataFrame:
    """scores.csv: one row per cell and metric, beside the base where the run has scored it.

    Raises:
        UserError: a cell and its base hold different items.
    """
    bases = {cell.context.base_key: cell for cell in cells if cell.context.is_base}
    rows = [
        _score_row(cell, bases.get(cell.context.base_key), metric)
        for cell in cells
        for metric in (PROBE_METRICS if cell.context.probe else (ACCURACY,))
    ]
    return _table(rows, SCORE_COLUMNS)


def matrix_rows(cells: Sequence[CellView]) -> pd.DataFrame:
    """matrix.csv: accuracy per quadrant, the mean of its datasets' means.

    Datasets whose task the mix has trained on have rows of their own; a delta needs every
    dataset's base. Raises as `score_rows`.
    """
    bases = {cell.context.base_key: cell for cell in cells if cell.context.is_base}
    groups: dict[tuple[object, ...], list[CellView]] = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: cell.context.dataset):
        context = cell.context
        if context.placement.quadrant and not context.probe and len(cell.frame):
            run = _fields(context, RUN_COLUMNS).values()
            groups[(*run, context.placement, context.decoding)].append(cell)
    return _table([_matrix_row(group, bases) for group in groups.values()], MATRIX_COLUMNS)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table whole or not at all: shortest exact floats, empty where absent."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def _score_row(cell: CellView, base: CellView | None, metric: str) -> dict[str, object]:
    context, own = cell.context, item_scores(cell, metric)
    row: dict[str, object] = {
        **_fields(context, (*RUN_COLUMNS, "dataset", "image_domain", "text_task")),
        **asdict(context.placement),
        **_fields(context, ("decoding", "seconds", "cell")),
        "metric": metric,
        "chance": context.chance if metric == ACCURACY else None,
        "unparsed": float(cell.frame["parsed"].isna().mean()) if len(cell.frame) else None,
    }
    estimate = clustered_mean(own.values, own.clusters)
    row |= {"n": estimate.n, "n_clusters": estimate.n_clusters, **_columns(_VALUE, estimate)}
    if base is None:
        return row
    before = item_scores(aligned(base, cell), metric)
    row["base_value"] = clustered_mean(before.values, before.clusters).value
    if not context.is_base:
        change = _change(own, before, metric)
        row |= _columns(_DELTA, change.difference)
        row |= {"forgotten": change.forgotten, "gained": change.gained, "mde": change.mde}
    return row


def _change(after: ClusteredScores, before: ClusteredScores, metric: str) -> PairedDifference:
    """Item by item, save for a share of wrong answers: those are other items at each checkpoint."""
    if metric == MISCHOICE_OF_WRONG:
        difference = difference_of_means(after, before)
        return PairedDifference(difference, None, None, minimum_detectable(difference))
    change = paired_difference(after.values, before.values, after.clusters)
    # Forgotten and gained mean right and wrong, which only accuracy tells.
    return change if metric == ACCURACY else replace(change, forgotten=None, gained=None)


def _matrix_row(group: Sequence[CellView], bases: Mapping[tuple[str, str, str], CellView]) -> dict[str, object]:
    context, sizes = group[0].context, [len(cell.frame) for cell in group]
    own = _joined(group)
    strata = [cell.context.dataset for cell in group for _ in range(len(cell.frame))]
    # A single dataset is a plain mean, so that its interval is the one in scores.csv.
    weights = None if len(group) == 1 else np.repeat([1 / (len(group) * n) for n in sizes], sizes)
    estimate = clustered_mean(own.values, own.clusters, weights, strata)
    row: dict[str, object] = {
        **_fields(context, RUN_COLUMNS),
        **_fields(context.placement, ("quadrant", "seen_in_mix")),
        "decoding": context.decoding,
        "metric": ACCURACY,
        "n_datasets": len(group),
        "n": estimate.n,
        **_columns(_VALUE, estimate),
    }
    pairs = [(bases.get(cell.context.base_key), cell) for cell in group]
    befores = [aligned(base, cell) for base, cell in pairs if base is not None]
    if len(befores) < len(group):
        return row
    before = _joined(befores)
    row["base_value"] = clustered_mean(before.values, own.clusters, weights, strata).value
    if not context.is_base:
        change = paired_difference(own.values, before.values, own.clusters, weights, strata)
        row |= _columns(_DELTA, change.difference)
    return row


def _joined(group: Sequence[CellView]) -> ClusteredScores:
    scores = [item_scores(cell, ACCURACY) for cell in group]
    values = np.concatenate([np.asarray(score.values) for score in scores])
    return ClusteredScores(values, join_ways(*(score.clusters for score in scores)))


def _fields(record: object, names: Iterable[str]) -> dict[str, object]:
    return {name: getattr(record, name) for name in names}


def _columns(names: Sequence[str], estimate: Estimate) -> dict[str, object]:
    values = (estimate.value, estimate.stderr, estimate.ci_low, estimate.ci_high)
    return dict(zip(names, values, strict=True))


def _table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(columns))
    frame = frame.astype({column: "Float64" for column in columns if column in _FLOATS})
    frame = frame.astype({column: "Int64" for column in columns if column in _INTEGERS})
    order = [column for column in (*_ORDER, "seen_in_mix") if column in columns]
    return frame.sort_values(order, kind="stable", ignore_index=True)

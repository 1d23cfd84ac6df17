"""Scored cells in, scores.csv and matrix.csv out; no model and no torch needed.

A cell is one checkpoint x dataset x decoding. Forgetting is its difference, item by item, from
the cell of the same run's untouched base (step 0).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from forgetbench.core.files import write_text
from forgetbench.core.records import QUADRANTS, Metric
from forgetbench.statistics.intervals import ClusteredScores, Estimate, minimum_detectable_effect, paired_difference
from forgetbench.statistics.significance import holm, sign_flip_p, t_test_p
from forgetbench.tables.cell_view import CellView, aligned
from forgetbench.tables.last import last_checkpoints
from forgetbench.tables.metrics import (
    Cells,
    Measure,
    Scores,
    change,
    estimate,
    item_scores,
    label_bias,
    measures,
)
from forgetbench.tables.pool import pool

RUN_COLUMNS = (
    "run", "model", "target", "checkpoint", "variant", "method", "parts", "lr", "mix", "mix_ratio",
    "seed", "stage", "step",
)  # fmt: skip
_VALUE = ("value", "stderr", "ci_low", "ci_high")
_DELTA = ("delta", "delta_stderr", "delta_ci_low", "delta_ci_high")
SCORE_COLUMNS = (
    *RUN_COLUMNS, "dataset", "image_domain", "text_task", "text_axis", "image_axis", "quadrant",
    "seen_in_mix", "decoding", "metric", "n", "n_clusters", *_VALUE, "chance", "base_value",
    *_DELTA, "forgotten", "gained", "p_value", "p_holm", "mde", "unparsed", "cut_off", "label_bias",
    "seconds", "cell", "settings",
)  # fmt: skip
MATRIX_COLUMNS = (
    *RUN_COLUMNS, "quadrant", "decoding", "metric", "seen_in_mix", "n_datasets", "n", *_VALUE,
    "base_value", *_DELTA, "p_value", "p_holm",
)  # fmt: skip
_INTEGERS = {"seed", "stage", "step", "n", "n_clusters", "n_datasets", "cut_off"}
_FLOATS = {
    "mix_ratio", *_VALUE, "chance", "base_value", *_DELTA, "forgotten", "gained", "p_value",
    "p_holm", "mde", "unparsed", "label_bias", "seconds",
}  # fmt: skip
_ORDER = ("run", "stage", "step", "variant", "quadrant", "dataset", "decoding", "metric")


def score_rows(cells: Sequence[CellView]) -> pd.DataFrame:
    """scores.csv: one row per cell and metric, beside the base where the run has scored it.

    `p_value` is of the change: a sign-flip test over clusters, or a t test for metrics whose items do not pair.
    `p_holm` adjusts it for the family of one run's last checkpoint, or of one variant of it: the metric of every
    dataset outside the target's quadrant, in every decoding.

    Raises:
        UserError: a cell and its base hold different items.
    """
    index = Cells(cells)
    rows = [(cell, row) for cell in cells for row in _score_rows(cell, index)]
    _add_p_holm(
        [(cell, row) for cell, row in rows if row["metric"] == cell.context.metric],
        last_checkpoints(cell.context for cell in cells),
    )
    return _table([row for _, row in rows], SCORE_COLUMNS)


def matrix_rows(cells: Sequence[CellView]) -> pd.DataFrame:
    """matrix.csv: accuracy per quadrant, the mean of its datasets' means.

    `accuracy` is each dataset's metric, if that is a fraction of 1; a metric on another scale has separate rows. So
    have datasets whose task the mix has trained on. A delta needs every dataset's base. The family of `p_holm` is the
    off-target rows of a run's last checkpoint, or of a variant of it. Raises as `score_rows`.
    """
    index = Cells(cells)
    groups: dict[tuple[object, ...], list[CellView]] = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: cell.context.dataset):
        context = cell.context
        if context.placement.quadrant and not context.probe and len(cell.frame):
            run = _fields(context, RUN_COLUMNS).values()
            groups[(*run, context.placement, context.decoding, _scale(cell))].append(cell)
    rows = [(group[0], _matrix_row(group, index)) for group in groups.values()]
    _add_p_holm(rows, last_checkpoints(cell.context for cell in cells))
    return _table([row for _, row in rows], MATRIX_COLUMNS)


def _add_p_holm(rows: Sequence[tuple[CellView, dict[str, object]]], last: Mapping[str, tuple[int, int]]) -> None:
    """Fill `p_holm` of off-target rows at each run's last checkpoint, a family per run and variant."""
    families: dict[tuple[str, str], list[dict[str, object]]] = defaultdict(list)
    for context, row in ((cell.context, row) for cell, row in rows):
        is_last = (context.stage, context.step) == last[context.run]
        if is_last and context.placement.quadrant != QUADRANTS[0]:
            families[context.run, context.variant].append(row)
    for family in families.values():
        adjusted = holm([row.get("p_value") for row in family])  # type: ignore[misc]
        for row, p_holm in zip(family, adjusted, strict=True):
            row["p_holm"] = p_holm


def _scale(cell: CellView) -> str:
    metric = cell.context.metric
    return Metric.accuracy if metric.is_fraction else metric


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table atomically: shortest exact floats, empty where absent."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def _score_rows(cell: CellView, index: Cells) -> Iterator[dict[str, object]]:
    """A row for each metric that the cell has."""
    context, frame, base = cell.context, cell.frame, index.base(cell)
    before = None if base is None else aligned(base, cell)
    shared: dict[str, object] = {
        **_fields(context, (*RUN_COLUMNS, "dataset", "image_domain", "text_task")),
        **asdict(context.placement),
        **_fields(context, ("decoding", "seconds", "cell", "settings")),
        "unparsed": float(frame["parsed"].isna().mean()) if len(frame) else None,
        "cut_off": _cut_off(frame),
        "label_bias": label_bias(cell),
    }
    for measure in measures(cell):
        scores = measure.compute(cell, index)
        if scores is not None or measure.name == context.metric:
            yield shared | _metric_columns(measure, scores, cell, before, index)


def _cut_off(frame: pd.DataFrame) -> int | None:
    """Number of replies whose thought has no end; None where no text was written."""
    known = frame["cut_off"].dropna() if "cut_off" in frame else ()
    return int(sum(known)) if len(known) else None


def _metric_columns(
    measure: Measure, scores: Scores | None, cell: CellView, before: CellView | None, index: Cells
) -> dict[str, object]:
    context = cell.context
    result, primary = estimate(scores), measure.name == context.metric
    row: dict[str, object] = {
        "metric": measure.name,
        "chance": context.chance if primary else None,
        "n": len(cell.frame) if isinstance(scores, float) else result.n,
        "n_clusters": None if isinstance(scores, float) else result.n_clusters,
        **_columns(_VALUE, result),
    }
    if before is None:
        return row
    base_scores = measure.compute(before, index)
    row["base_value"] = estimate(base_scores).value
    if not context.is_base:
        difference = change(scores, base_scores, measure.paired)
        row |= _columns(_DELTA, difference) | {"mde": minimum_detectable_effect(difference)}
        if measure.paired and isinstance(scores, ClusteredScores) and isinstance(base_scores, ClusteredScores):
            row["p_value"] = sign_flip_p(np.subtract(scores.values, base_scores.values), scores.clusters)
        else:
            row["p_value"] = t_test_p(difference)
        if primary and context.metric.is_fraction:  # forgotten and gained mean right and wrong
            base_items, items = item_scores(before), item_scores(cell)
            flows = paired_difference(items.values, base_items.values, items.clusters)
            row |= {"forgotten": flows.forgotten, "gained": flows.gained}
    return row


def _matrix_row(group: Sequence[CellView], index: Cells) -> dict[str, object]:
    context, before = group[0].context, [index.base(cell) for cell in group]
    pooled = pool([(cell, base and aligned(base, cell)) for cell, base in zip(group, before, strict=True)])
    row: dict[str, object] = {
        **_fields(context, RUN_COLUMNS),
        **_fields(context.placement, ("quadrant", "seen_in_mix")),
        "decoding": context.decoding,
        "metric": _scale(group[0]),
        "n_datasets": len(group),
        "n": pooled.score.n,
        **_columns(_VALUE, pooled.score),
        "base_value": pooled.score_before.value,
    }
    if not context.is_base:
        row |= _columns(_DELTA, pooled.change.difference) | {"p_value": pooled.change_p_value}
    return row


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

"""The figures of a report, drawn with Altair: interactive on the page, and files beside it from the same charts."""

from __future__ import annotations

from altair.utils.schemapi import debug_mode

from forgetbench.reporting.charts import (
    answer_drift,
    continual,
    guard,
    mixing,
    pareto,
    probe,
    representation,
    seeds,
    tradeoff,
    training,
    weights,
)
from forgetbench.reporting.charts.figure import Chart, Figure, Theme, vega_spec
from forgetbench.reporting.charts.groups import Groups, groups_of
from forgetbench.reporting.charts.rows import primary_decoding
from forgetbench.reporting.contents import ReportTables

__all__ = ["NAMES", "Chart", "Figure", "Theme", "figures", "primary_decoding", "vega_spec"]

NAMES = (
    "continual_matrix", "forgetting_curves", "guard", "tradeoff", "probe", "class_name_effect", "mixing", "pareto",
    "seeds", "answer_drift", "effective_rank", "visual_drift", "weight_distance", "training",
)  # fmt: skip
"""Of every figure that there may be, in the order of the page."""


def figures(tables: ReportTables) -> list[Figure]:
    """Every figure that the tables can draw, in the order of the page."""
    groups = groups_of(tables)
    # Altair checks every mark and channel as it is made, which takes longer than all else; Vega-Lite checks the whole.
    with debug_mode(False):
        return [figure for figure in _drawn(tables, groups) if figure is not None]


def _drawn(tables: ReportTables, groups: Groups) -> tuple[Figure | None, ...]:
    return (
        continual.heat_map(tables),
        continual.curves(tables),
        guard.figure(tables, groups),
        tradeoff.figure(tables, groups),
        probe.shares(tables, groups),
        probe.effect(tables, groups),
        mixing.figure(tables),
        pareto.figure(tables, groups),
        seeds.figure(tables, groups),
        answer_drift.figure(tables, groups),
        representation.effective_rank(tables, groups),
        representation.drift(tables, groups),
        weights.figure(tables, groups),
        training.figure(tables, groups),
    )

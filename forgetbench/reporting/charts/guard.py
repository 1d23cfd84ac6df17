"""Looks of guarded runs: the loss of each quadrant over the steps, beside the budget."""

from __future__ import annotations

import altair as alt
import pandas as pd

from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.reporting.charts.figure import GUIDE, Figure, layered, panels
from forgetbench.reporting.charts.groups import Groups, highlight_opacity, legend_selection
from forgetbench.reporting.charts.rows import inline
from forgetbench.reporting.contents import ReportTables
from forgetbench.terminal.guard import group_name

_COLUMNS = ["group", "run", "step", "loss", "low", "high", "decision"]
_BANDS_UP_TO = 3
"""Runs; the bands of more would hide each other."""


def figure(tables: ReportTables, groups: Groups) -> Figure | None:
    """A panel per group of datasets, a line per run; None if no run was held to a budget."""
    if tables.guard.empty:
        return None
    rows = tables.guard.rename(columns={"group": "quadrant"}).assign(variant="")
    for name in ("loss", "low", "high", "budget"):
        rows[name] = 100 * rows[name].astype(float)
    start = rows.drop_duplicates(["run", "quadrant"]).assign(step=0, loss=0.0, low=0.0, high=0.0, decision="")
    rows = groups.with_columns(pd.concat([start, rows], ignore_index=True))
    n_runs, present = rows["run"].nunique(), set(rows["group"])
    with_bands = n_runs <= _BANDS_UP_TO
    shown = sorted(set(rows["quadrant"]))
    charts = [
        _panel(rows[rows["quadrant"] == quadrant], quadrant, groups, present, with_bands, place)
        for place, quadrant in enumerate(shown)
    ]
    bands = f" Bands hold over all looks and quadrants together, each side with {CONFIDENCE_TEXT} confidence."
    return Figure(
        "guard",
        "Forgetting while training",
        "Points of accuracy lost since the base at each look of a guarded run, and its budget (dashed); a run stops "
        "where the lower bound exceeds the budget, and ends on the last look within it (guard.csv)."
        f"{bands * with_bands}",
        f"Lines: the loss in {len(shown)} groups of datasets over the steps of {n_runs} guarded runs, with the budget.",
        panels(charts, columns=3, beside=62, legend=groups.legend_width(present)),
    )


def _panel(
    rows: pd.DataFrame, quadrant: str, groups: Groups, present: set[str], with_bands: bool, place: int
) -> alt.LayerChart:
    x, colour = alt.X("step:Q", title="Step"), groups.colour(present)
    y = alt.Y("loss:Q", title="Lost since the base (points)")
    tooltip = [
        alt.Tooltip("run:N"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("loss:Q", title="lost (points)", format=".1f"),
        alt.Tooltip("low:Q", title="at least", format=".1f"),
        alt.Tooltip("high:Q", title="at most", format=".1f"),
        alt.Tooltip("decision:N", title="then"),
    ]
    looks = alt.Chart(inline(rows, _COLUMNS))
    lines = alt.Chart(inline(rows, _COLUMNS), name=f"looks_{place}")
    layers = [lines.mark_line(strokeWidth=1.2).encode(x, y, colour, detail="run:N", opacity=highlight_opacity(0.6))]
    if with_bands:
        layers.append(looks.mark_area(opacity=0.15).encode(x, colour, y="low:Q", y2="high:Q", detail="run:N"))
    layers += [
        looks.mark_point(filled=True, size=46).encode(
            x, y, colour, groups.shape(present), opacity=highlight_opacity(0.85), tooltip=tooltip
        ),
        alt.Chart(inline(rows[["budget"]].drop_duplicates(), ["budget"])).mark_rule(style=GUIDE).encode(y="budget:Q"),
    ]
    if place == 0:
        layers[0] = layers[0].add_params(legend_selection())
    return layered(*layers, title=group_name(quadrant), height=220)

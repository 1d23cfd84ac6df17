"""Changes per recipe with both errors: the interval, and the spread between seeds."""

from __future__ import annotations

import altair as alt
import pandas as pd

from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.core.records import QUADRANTS, Metric
from forgetbench.reporting.charts.figure import GUIDE, Figure, layered, panels
from forgetbench.reporting.charts.groups import Groups, highlight_opacity, legend_selection
from forgetbench.reporting.charts.rows import (
    decoding_words,
    extent,
    in_primary_decoding,
    inline,
    percentages,
    primary_decoding,
)
from forgetbench.reporting.contents import ReportTables
from forgetbench.terminal.wording import QUADRANT_NAMES

_ROW = 17
"""Pixels of a recipe's line."""
_COLUMNS = ["label", "group", "n_seeds", "delta", "low", "high", "sd_low", "sd_high", "sd", "seen"]


def figure(tables: ReportTables, groups: Groups) -> Figure | None:
    """Change of every recipe with several seeds in every quadrant; None without such a recipe."""
    rows = in_primary_decoding(tables.seeds, "quadrant", "metric", "seen_in_mix", "n_seeds", "delta", "seed_sd")
    if len(rows):
        is_shown = rows["quadrant"].isin(QUADRANTS) & (rows["metric"] == Metric.accuracy) & rows["delta"].notna()
        rows = rows[is_shown & (rows["n_seeds"] > 1)]
    if rows.empty:
        return None
    rows = groups.with_columns(
        percentages(rows, {"delta": "delta", "low": "ci_low", "high": "ci_high", "sd": "seed_sd"})
    )
    rows = rows.assign(
        sd_low=rows["delta"] - rows["sd"],
        sd_high=rows["delta"] + rows["sd"],
        seen=rows["seen_in_mix"].map({True: "yes", False: "no"}),
    )
    order = sorted(set(rows["label"]))
    domain = extent(rows, ["delta", "low", "high", "sd_low", "sd_high"], 0.0)
    shown = [name for name in QUADRANTS if name in set(rows["quadrant"])]
    charts = [
        _panel(rows[rows["quadrant"] == name], name, order, domain, groups, set(rows["group"]), name == shown[0])
        for name in shown
    ]
    max_seeds = int(rows["n_seeds"].max())
    caption = (
        f"Change of accuracy from the base to the last checkpoint, mean over seeds (up to {max_seeds}; recipes "
        "with a single one are left out), "
        f"{decoding_words(primary_decoding(tables.seeds))}. Bars are {CONFIDENCE_TEXT} intervals over items and seeds, "
        "thin lines below them reach one standard deviation between seeds to either side; unfilled points were seen in "
        "the mix (seeds.csv)."
    )
    return Figure(
        "seeds",
        "Changes over seeds",
        caption,
        f"Dots with intervals: the change of {len(order)} recipes in {len(shown)} quadrants.",
        panels(charts, 2, beside=44 + int(6.4 * max(map(len, order))), legend=groups.legend_width(rows["group"])),
    )


def _panel(
    rows: pd.DataFrame,
    quadrant: str,
    order: list[str],
    domain: list[float],
    groups: Groups,
    present: set[str],
    is_first: bool,
) -> alt.LayerChart:
    y = alt.Y(
        "label:N",
        title=None,
        sort=order,
        scale=alt.Scale(domain=order),
        axis=alt.Axis(ticks=False, domain=False, labelPadding=6, grid=True),
    )
    x = alt.X(
        "delta:Q",
        title="Change from the base (points)",
        scale=alt.Scale(domain=domain, nice=True),
        axis=alt.Axis(tickCount=5),
    )
    # Rows name the recipe; a legend says more only where colours are methods.
    colour = groups.colour(present, with_legend=groups.methods is not None)
    tooltip = [
        alt.Tooltip("label:N", title="recipe"),
        alt.Tooltip("n_seeds:Q", title="seeds"),
        alt.Tooltip("delta:Q", title="change (points)", format="+.1f"),
        alt.Tooltip("low:Q", title=f"{CONFIDENCE_TEXT} from", format="+.1f"),
        alt.Tooltip("high:Q", title=f"{CONFIDENCE_TEXT} to", format="+.1f"),
        alt.Tooltip("sd:Q", title="SD between seeds (points)", format=".1f"),
        alt.Tooltip("seen:N", title="seen in mix"),
    ]
    marks = alt.Chart(inline(rows, _COLUMNS), name=f"seeds_{quadrant}".replace("-", "_"))
    zero = alt.Chart(alt.InlineData(values=[{"x": 0}])).mark_rule(style=GUIDE).encode(x=alt.X("x:Q"))
    bars = marks.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour)
    layers = [bars.encode(opacity=highlight_opacity(0.9))]
    if is_first:
        layers[0] = layers[0].add_params(legend_selection())
    spread = alt.Chart(inline(rows[rows["sd"].notna()], _COLUMNS))
    layers.append(
        spread.mark_rule(strokeWidth=1, yOffset=6, y2Offset=6).encode(x="sd_low:Q", x2="sd_high:Q", y=y, color=colour)
    )
    for seen, filled in (("no", True), ("yes", False)):
        subset = rows[rows["seen"] == seen]
        if len(subset):
            layers.append(
                alt.Chart(inline(subset, _COLUMNS))
                .mark_point(filled=filled, size=48, opacity=1)
                .encode(x, y, colour, tooltip=tooltip)
            )
    return layered(zero, *layers, title=QUADRANT_NAMES[quadrant], height=_ROW * len(order))

"""How far training moved the weights of each part of the model."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from forgetbench.core.records import PARTS
from forgetbench.reporting.charts.figure import INK, Figure, layered, panels
from forgetbench.reporting.charts.groups import PALETTE, SHAPES, Groups
from forgetbench.reporting.charts.representation import checkpoint_rows, recipe_means
from forgetbench.reporting.charts.rows import inline, over_seeds, percentages
from forgetbench.reporting.contents import ReportTables


def figure(tables: ReportTables, groups: Groups) -> Figure | None:
    """How far each part's weights moved; None if nothing was measured after training."""
    rows = checkpoint_rows(tables.representation, groups, "relative_distance", "part")
    rows = rows[rows["step"] > 0] if len(rows) else rows
    if rows.empty:
        return None
    rows = percentages(rows, {"distance": "relative_distance"})
    still = [part for part in _parts(rows) if not rows.loc[rows["part"] == part, "distance"].any()]
    parts = [part for part in _parts(rows) if part not in still]
    if not parts:
        return None
    rows = rows[rows["part"].isin(parts)]
    if rows["run"].nunique() == 1:
        chart = _distance_by_step(rows, parts)
        description = "over training"
    else:
        chart = _distance_by_recipe(rows, parts)
        description = "at each recipe's last checkpoint" + over_seeds(
            recipe_means(rows, ["part"], "distance")["n_seeds"]
        )
    return Figure(
        "weight_distance",
        "How far the weights moved",
        f"Distance of each part's weights from the base's, in percent of the base's norm, {description}; without "
        f"intervals (relative_distance in representation.csv).{f' Not moved: {_listed(still)}.' if still else ''}",
        f"The relative distance of {_listed(parts)} from the base, for {rows['run'].nunique()} runs.",
        panels([chart], 1, legend=100),
    )


def _parts(rows: pd.DataFrame) -> list[str]:
    known = [part for part in PARTS if part in set(rows["part"])]
    return known + sorted(set(rows["part"]) - set(known))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _part_channels(parts: list[str]) -> tuple[alt.Color, alt.Shape]:
    colours = [PALETTE[place % len(PALETTE)] for place in range(len(parts))]
    shapes = [SHAPES[place % len(SHAPES)] for place in range(len(parts))]
    return (
        alt.Color("part:N", title="Part", scale=alt.Scale(domain=parts, range=colours)),
        alt.Shape("part:N", title="Part", scale=alt.Scale(domain=parts, range=shapes)),
    )


def _distance_by_step(rows: pd.DataFrame, parts: list[str]) -> alt.LayerChart:
    colour, shape = _part_channels(parts)
    data = inline(rows, ["part", "step", "distance"])
    x = alt.X("step:Q", title="Step", scale=alt.Scale(zero=True))
    y = alt.Y("distance:Q", title="Distance from the base (% of its norm)")
    tooltip = ["part:N", "step:Q", alt.Tooltip("distance:Q", title="distance (%)", format=".3f")]
    return layered(
        alt.Chart(data).mark_line(strokeWidth=1.4).encode(x, y, colour),
        alt.Chart(data).mark_point(filled=True, size=30, opacity=1).encode(x, y, colour, shape, tooltip=tooltip),
        height=240,
    )


def _distance_by_recipe(rows: pd.DataFrame, parts: list[str]) -> alt.LayerChart:
    means = recipe_means(rows, ["part"], "distance")
    furthest = means.groupby("label")["distance"].max().sort_values(kind="stable")
    order = [str(label) for label in furthest.index]
    colour, shape = _part_channels(parts)
    y = alt.Y("label:N", title=None, sort=order, axis=alt.Axis(ticks=False, domain=False, labelPadding=6, grid=True))
    x = alt.X("distance:Q", title="Distance from the base (% of its norm)", scale=alt.Scale(zero=True))
    tooltip = [
        alt.Tooltip("label:N", title="recipe"),
        "part:N",
        alt.Tooltip("distance:Q", title="distance (%)", format=".3f"),
        alt.Tooltip("n_seeds:Q", title="seeds"),
    ]
    ends = means.groupby("label", sort=False)["distance"].agg(["min", "max"]).reset_index()
    return layered(
        alt.Chart(inline(ends, ["label", "min", "max"]))
        .mark_rule(style=INK, opacity=0.3)
        .encode(alt.X("min:Q"), y, x2="max:Q"),
        alt.Chart(inline(means, ["label", "part", "distance", "n_seeds"]))
        .mark_point(filled=True, size=60, opacity=0.9)
        .encode(x, y, colour, shape, tooltip=tooltip),
        height=17 * len(order),
    )

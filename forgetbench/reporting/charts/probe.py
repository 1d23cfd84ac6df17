"""The class-label probe: how often the pictured object's name is chosen, and the accuracy that its presence costs."""

from __future__ import annotations

import altair as alt
import pandas as pd

from forgetbench.core.records import PROBE_SUFFIX, Metric
from forgetbench.reporting.charts.figure import INK, Figure, layered, panels
from forgetbench.reporting.charts.groups import PALETTE, Groups
from forgetbench.reporting.charts.rows import (
    base_rows,
    decoding_words,
    in_primary_decoding,
    inline,
    last_steps,
    over_seeds,
    percentages,
    primary_decoding,
    seed_means,
    with_base,
)
from forgetbench.reporting.contents import ReportTables

_BASE = "base"
_ANSWERS = ("right", "class name", "other wrong")
_COLOURS = (PALETTE[0], PALETTE[4], "#6b7280")
_ROW = 17
"""Pixels of a recipe's line."""
_LABELLED = 7.0
"""Percent; a narrower part of a bar has no room for its number."""


def shares(tables: ReportTables, groups: Groups) -> Figure | None:
    """Figure 3 of the 2x2 paper: shares of answers before and after; None if no probe was scored."""
    rows = _probe_rows(tables, groups)
    metrics = {Metric.accuracy.value: "right", "mischoice": "class name"}
    rows = rows[rows["metric"].isin(metrics) & rows["value"].notna()] if len(rows) else rows
    if "mischoice" not in set(rows.get("metric", ())):
        return None
    means = seed_means(rows, ["dataset", "label", "is_base", "metric"], ["value"])
    wide = means.pivot(index=["dataset", "label", "is_base", "n_seeds"], columns="metric", values="value").dropna()
    wide = wide.reindex(columns=list(metrics)).rename(columns=metrics).reset_index()
    wide["other wrong"] = (1 - wide["right"] - wide["class name"]).clip(lower=0)
    wide = percentages(wide, {name: name for name in _ANSWERS})
    if wide.empty:
        return None
    bars = wide.melt(["dataset", "label", "n_seeds"], list(_ANSWERS), "answer", "share")
    bars = bars.sort_values("answer", key=lambda answers: answers.map(_ANSWERS.index), kind="stable")
    bars["end"] = bars.groupby(["dataset", "label"])["share"].cumsum()
    bars["start"] = bars["end"] - bars["share"]
    caption = (
        f"What is answered on the class-label probe {_when(wide)}{over_seeds(wide['n_seeds'])}, "
        f"{decoding_words(primary_decoding(tables.scores))}: shares of all items that are right, name the pictured "
        "object's class, or are wrong otherwise. Intervals are in scores.csv."
    )
    charts = [_bars(bars[bars["dataset"] == name], _order(wide[wide["dataset"] == name])) for name in _names(wide)]
    return Figure(
        "probe",
        "The class-label probe",
        caption,
        f"Stacked bars of right answers, class names and other wrong answers for {wide['label'].nunique()} rows.",
        panels(charts, 2 if len(charts) > 1 else 1, beside=_label_width(wide), legend=120),
    )


def effect(tables: ReportTables, groups: Groups) -> Figure | None:
    """Accuracy with and without the class name among the options; None if no set was asked both ways."""
    rows = _probe_rows(tables, groups)
    rows = rows[rows["dataset"].str.endswith(PROBE_SUFFIX) & rows["value"].notna()] if len(rows) else rows
    if "class_name_effect" not in set(rows.get("metric", ())):
        return None
    means = seed_means(rows, ["dataset", "label", "is_base", "metric"], ["value"])
    wide = means.pivot(index=["dataset", "label", "is_base", "n_seeds"], columns="metric", values="value")
    wide = wide[[Metric.accuracy.value, "class_name_effect"]].dropna().reset_index()
    wide["without"] = wide["accuracy"] - wide["class_name_effect"]
    wide = percentages(wide, {"with": "accuracy", "without": "without", "effect": "class_name_effect"})
    if wide.empty:
        return None
    wide["dataset"] = wide["dataset"].str.removesuffix(PROBE_SUFFIX)
    caption = (
        "Accuracy on the same items without the class name among the options and with it"
        f"{over_seeds(wide['n_seeds'])}, {decoding_words(primary_decoding(tables.scores))}, {_when(wide)}. "
        "The difference is class_name_effect, whose intervals are in scores.csv."
    )
    charts = [_dumbbells(wide[wide["dataset"] == name]) for name in _names(wide)]
    return Figure(
        "class_name_effect",
        "With and without the class name",
        caption,
        f"Pairs of points, accuracy without and with the class name, for {wide['label'].nunique()} rows.",
        panels(charts, 2 if len(charts) > 1 else 1, beside=_label_width(wide), legend=150),
    )


def _probe_rows(tables: ReportTables, groups: Groups) -> pd.DataFrame:
    """Rows of probes, of the base (once where all runs share it) and of every recipe's last checkpoint."""
    rows = in_primary_decoding(tables.scores, "dataset", "metric", "value")
    probes = set(rows.loc[rows["metric"] == "mischoice", "dataset"]) if len(rows) else set()
    rows = with_base(rows[rows["dataset"].isin(probes)], "dataset", "metric") if probes else rows.iloc[:0]
    if rows.empty:
        return rows
    base, last = groups.with_columns(base_rows(rows)), groups.with_columns(last_steps(rows))
    is_shared = bool((base["value"].round(9).groupby([base["dataset"], base["metric"]]).nunique() <= 1).all())
    base = base.assign(label=_BASE if is_shared else base["label"] + f" ({_BASE})", is_base=True)
    if is_shared:
        base = base.drop_duplicates(["dataset", "metric"])
    return pd.concat([base, last.assign(is_base=False)], ignore_index=True)


def _when(wide: pd.DataFrame) -> str:
    return "before any training" if wide["is_base"].all() else "before training and after it"


def _names(wide: pd.DataFrame) -> list[str]:
    return sorted(set(wide["dataset"]))


def _order(wide: pd.DataFrame) -> list[str]:
    """Bases first, then by how often the class name is chosen."""
    return list(wide.sort_values(["is_base", "class name", "right"], ascending=[False, True, False])["label"])


def _label_width(wide: pd.DataFrame) -> int:
    return 40 + int(6.4 * wide["label"].str.len().max())


def _rows_axis(order: list[str]) -> alt.Y:
    return alt.Y("label:N", title=None, sort=order, axis=alt.Axis(ticks=False, domain=False, labelPadding=6))


def _bars(bars: pd.DataFrame, order: list[str]) -> alt.LayerChart:
    columns = ["label", "answer", "share", "start", "end", "n_seeds"]
    y = _rows_axis(order)
    x = alt.X("start:Q", title="Share of all items (%)", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))
    colour = alt.Color(
        "answer:N", title="Answer", sort=list(_ANSWERS), scale=alt.Scale(domain=list(_ANSWERS), range=list(_COLOURS))
    )
    drawn = alt.Chart(inline(bars[bars["share"] > 0], columns)).mark_bar(height={"band": 0.82})
    tooltip = [
        alt.Tooltip("label:N", title="recipe"),
        alt.Tooltip("answer:N"),
        alt.Tooltip("share:Q", title="share (%)", format=".1f"),
        alt.Tooltip("n_seeds:Q", title="seeds"),
    ]
    wide = bars[bars["share"] >= _LABELLED].assign(middle=lambda rows: (rows["start"] + rows["end"]) / 2)
    numbers = alt.Chart(inline(wide, ["label", "middle", "share"]))
    return layered(
        drawn.encode(x, y, colour, x2="end:Q", tooltip=tooltip),
        numbers.mark_text(color="white", fontSize=10).encode(x="middle:Q", y=y, text=alt.Text("share:Q", format=".1f")),
        title=str(bars["dataset"].iloc[0]),
        height=_ROW * len(order),
    )


def _dumbbells(wide: pd.DataFrame) -> alt.LayerChart:
    order = list(wide.sort_values(["is_base", "effect"], ascending=[False, False])["label"])
    y = _rows_axis(order)
    scale = alt.Scale(zero=False, padding=10)
    x = alt.X("without:Q", title="Accuracy (%)", scale=scale, axis=alt.Axis(tickCount=6))
    pairs = alt.Chart(inline(wide, ["label", "with", "without", "effect"]))
    asked = {"without": "without the class name", "with": "with the class name"}
    points = wide.melt(["label", "effect", "n_seeds"], list(asked), "asked", "score").replace({"asked": asked})
    colours = alt.Scale(domain=list(asked.values()), range=[PALETTE[0], PALETTE[1]])
    tooltip = [
        alt.Tooltip("label:N", title="recipe"),
        alt.Tooltip("asked:N", title="asked"),
        alt.Tooltip("score:Q", title="accuracy (%)", format=".1f"),
        alt.Tooltip("effect:Q", title="class_name_effect (points)", format="+.1f"),
        alt.Tooltip("n_seeds:Q", title="seeds"),
    ]
    dots = alt.Chart(inline(points, ["label", "effect", "n_seeds", "asked", "score"]))
    return layered(
        pairs.mark_rule(style=INK, opacity=0.4, strokeWidth=1.5).encode(x, y, x2="with:Q"),
        dots.mark_point(filled=True, size=70, opacity=1).encode(
            x="score:Q",
            y=y,
            color=alt.Color("asked:N", title="Asked", scale=colours),
            shape=alt.Shape(
                "asked:N", title="Asked", scale=alt.Scale(domain=list(asked.values()), range=["circle", "diamond"])
            ),
            tooltip=tooltip,
        ),
        title=str(wide["dataset"].iloc[0]),
        height=_ROW * len(order),
    )

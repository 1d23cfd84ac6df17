"""Effect of mixing in other data: the change of every quadrant over the share of the mix, or per kind of mix."""

from __future__ import annotations

import altair as alt
import pandas as pd

from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.core.records import QUADRANTS, Metric
from forgetbench.reporting.charts.figure import GUIDE, Figure, layered, panels
from forgetbench.reporting.charts.groups import PALETTE, SHAPES
from forgetbench.reporting.charts.rows import (
    decoding_words,
    extent,
    in_primary_decoding,
    inline,
    last_steps,
    percentages,
    primary_decoding,
)
from forgetbench.reporting.contents import ReportTables
from forgetbench.tables.last import last_stage
from forgetbench.terminal.wording import QUADRANT_NAMES

_ALIKE = ["target", "method", "parts", "lr"]
"""Columns that a run without a mix must share with a mixed run to be its ratio 0."""
_NO_MIX = "none"
_COLUMNS = ["mix", "ratio", "series", "recipe", "run", "delta", "low", "high", "seen"]
_ROW = 22
"""Pixels of a mix's line."""


def figure(tables: ReportTables) -> Figure | None:
    """Figure 4 of the 2x2 paper; None unless runs differ in what, or how much, was mixed in."""
    rows, source = _deltas(tables)
    rows = _rows_to_compare(rows) if len(rows) else rows
    if rows.empty or rows[["mix", "ratio"]].drop_duplicates().shape[0] < 2:
        return None
    shown = [name for name in QUADRANTS if name in set(rows["quadrant"])]
    by_ratio = rows.loc[rows["mix"] != _NO_MIX, "ratio"].nunique() > 1
    series = sorted(set(rows["series"]) - {_NO_MIX}) + [_NO_MIX] * (_NO_MIX in set(rows["series"]))
    domain = extent(rows, ["delta", "low", "high"], 0.0)
    draw = _lines if by_ratio else _dots
    charts = [draw(rows[rows["quadrant"] == name], name, series, domain) for name in shown]
    comparison = "against the share of training examples from the mix" if by_ratio else "per mix"
    bars = f"{CONFIDENCE_TEXT} intervals over items{' and seeds' * (source == 'seeds.csv')}"
    caption = (
        f"Change of accuracy from the base to the last checkpoint {comparison}, "
        f"{decoding_words(primary_decoding(tables.matrix))}; runs without a mix count where target, method, parts and "
        f"lr are the same. Bars are {bars}, unfilled points sets whose task the mix shows ({source})."
    )
    widest = max(map(len, series))
    return Figure(
        "mixing",
        "Mixing in other data",
        caption,
        f"The change in {len(shown)} quadrants for {len(series)} kinds of mix.",
        panels(charts, 2, beside=72 if by_ratio else 40 + 6 * widest, legend=44 + 6 * widest),
    )


def _deltas(tables: ReportTables) -> tuple[pd.DataFrame, str]:
    """Changes of recipes over seeds if there are several, else of runs; and the file they are in."""
    names = {"delta": "delta", "low": "ci_low", "high": "ci_high"}
    columns = ("quadrant", "metric", "seen_in_mix", "mix", "mix_ratio", *_ALIKE[1:])
    rows, source = in_primary_decoding(tables.seeds, *columns, *names.values()), "seeds.csv"
    if rows.empty:
        names |= {"low": "delta_ci_low", "high": "delta_ci_high"}
        rows, source = in_primary_decoding(tables.matrix, *columns, *names.values()), "matrix.csv"
        rows = last_steps(last_stage(rows))
    if rows.empty:
        return rows, source
    targets = _targets(tables.matrix)
    rows = rows.assign(target=[targets.get(str(recipe), "") for recipe in rows["recipe"]])
    if "replay" in rows:  # neither a mix nor without one
        rows = rows[rows["replay"] == 0]
    is_shown = rows["quadrant"].isin(QUADRANTS) & (rows["metric"] == Metric.accuracy) & (rows["variant"] == "")
    rows = percentages(rows[is_shown & rows["delta"].notna()], names)
    ratio = 100 * pd.to_numeric(rows["mix_ratio"], errors="coerce").fillna(0.0)
    seen = rows["seen_in_mix"].map({True: "yes", False: "no"})
    return rows.assign(ratio=ratio, seen=seen, run=rows.get("run", rows["recipe"])), source


def _targets(matrix: pd.DataFrame) -> dict[str, str]:
    """Every recipe's last target."""
    if not {"recipe", "stage", "target"} <= set(matrix):
        return {}
    last = matrix.sort_values("stage", kind="stable").drop_duplicates("recipe", keep="last")
    return dict(zip(last["recipe"], last["target"].fillna("").astype(str), strict=True))


def _rows_to_compare(rows: pd.DataFrame) -> pd.DataFrame:
    """Mixed runs, and runs without a mix that differ from a mixed run in nothing else."""
    mixed, plain = rows[rows["mix"] != ""], rows[rows["mix"] == ""]
    if mixed.empty:
        return mixed
    keys = mixed[_ALIKE].astype(str).agg(" ".join, axis=1)
    varied = [name for name in _ALIKE if mixed[name].astype(str).nunique() > 1]
    mixed = mixed.assign(series=_series(mixed["mix"], mixed, varied))
    by_ratio = mixed["ratio"].nunique() > 1
    parts = [mixed]
    for key, mixed_rows in mixed.groupby(keys):
        plain_rows = plain[plain[_ALIKE].astype(str).agg(" ".join, axis=1) == key] if len(plain) else plain
        plain_rows = plain_rows.assign(ratio=0.0)
        if by_ratio:
            parts += [
                plain_rows.assign(mix=mix, series=series)
                for mix, series in set(zip(mixed_rows["mix"], mixed_rows["series"], strict=True))
            ]
        else:
            parts.append(
                plain_rows.assign(mix=_NO_MIX, series=_series(pd.Series(_NO_MIX, plain_rows.index), plain_rows, varied))
            )
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _series(mix: pd.Series, rows: pd.DataFrame, varied: list[str]) -> pd.Series:
    """Name of a line or dot: its mix, and the other columns that vary."""
    named = mix.astype(str)
    for name in varied:
        named = named + ", " + (f"{name} " if name == "lr" else "") + rows[name].astype(str)
    return named


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("run:N"),
        alt.Tooltip("mix:N"),
        alt.Tooltip("ratio:Q", title="share of the mix (%)"),
        alt.Tooltip("delta:Q", title="change (points)", format="+.1f"),
        alt.Tooltip("low:Q", title=f"{CONFIDENCE_TEXT} from", format="+.1f"),
        alt.Tooltip("high:Q", title=f"{CONFIDENCE_TEXT} to", format="+.1f"),
        alt.Tooltip("seen:N", title="seen in mix"),
    ]


def _lines(rows: pd.DataFrame, quadrant: str, series: list[str], domain: list[float]) -> alt.LayerChart:
    scales = [alt.Scale(domain=series, range=[of[i % len(of)] for i in range(len(series))]) for of in (PALETTE, SHAPES)]
    legend = alt.Legend(title="Mix") if len(series) > 1 else None
    colour = alt.Color("series:N", scale=scales[0], legend=legend)
    shape = alt.Shape("series:N", scale=scales[1], legend=legend)
    x = alt.X("ratio:Q", title="Share of the mix (% of examples)", scale=alt.Scale(zero=False, padding=12, nice=False))
    y = alt.Y("delta:Q", title="Change (points)", scale=alt.Scale(domain=domain, nice=True))
    data = alt.Chart(inline(rows, _COLUMNS))
    unseen = alt.Chart(inline(rows[rows["seen"] == "no"], _COLUMNS))
    layers = [
        alt.Chart(alt.InlineData(values=[{"y": 0}])).mark_rule(style=GUIDE).encode(y="y:Q"),
        unseen.mark_line(strokeWidth=1.5, opacity=0.7).encode(x, y=alt.Y("mean(delta):Q"), color=colour),
        data.mark_rule(strokeWidth=1, opacity=0.6).encode(x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        unseen.mark_point(filled=True, size=56, opacity=1).encode(x, y, colour, shape, tooltip=_tooltip()),
    ]
    seen = rows[rows["seen"] == "yes"]
    if len(seen):
        marks = alt.Chart(inline(seen, _COLUMNS)).mark_point(filled=False, size=56, opacity=1)
        layers.append(marks.encode(x, y, colour, shape, tooltip=_tooltip()))
    return layered(*layers, title=QUADRANT_NAMES[quadrant], height=220)


def _dots(rows: pd.DataFrame, quadrant: str, series: list[str], domain: list[float]) -> alt.LayerChart:
    mixes = [*sorted(set(rows["mix"]) - {_NO_MIX}), _NO_MIX]
    colours = [PALETTE[place % len(PALETTE)] for place in range(len(mixes))]
    colour = alt.Color("mix:N", scale=alt.Scale(domain=mixes, range=colours), legend=None)
    scale = alt.Scale(domain=domain, nice=True)
    x = alt.X("delta:Q", title="Change (points)", scale=scale, axis=alt.Axis(tickCount=5))
    y = alt.Y(
        "series:N",
        title=None,
        scale=alt.Scale(domain=series),
        axis=alt.Axis(ticks=False, domain=False, labelPadding=6, grid=True),
    )
    bars = alt.Chart(inline(rows, _COLUMNS)).mark_rule(strokeWidth=1.5, opacity=0.8)
    layers = [
        alt.Chart(alt.InlineData(values=[{"x": 0}])).mark_rule(style=GUIDE).encode(x="x:Q"),
        bars.encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour),
    ]
    for seen, filled in (("no", True), ("yes", False)):
        subset = rows[rows["seen"] == seen]
        if len(subset):
            marks = alt.Chart(inline(subset, _COLUMNS)).mark_point(filled=filled, size=56, opacity=1)
            layers.append(marks.encode(x, y, colour, tooltip=_tooltip()))
    return layered(*layers, title=QUADRANT_NAMES[quadrant], height=_ROW * len(series))

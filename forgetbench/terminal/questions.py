"""The answers of `forgetbench compare` and `forgetbench power` as tables that fit 80 columns."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forgetbench.core.confidence import ALPHA_TEXT, CONFIDENCE_TEXT
from forgetbench.core.records import Metric
from forgetbench.terminal.wording import is_fraction, units

_DASH = "-"
_COLOURS = {"lower": "red", "higher": "green"}
_TITLES = {"quadrant": "quadrants", "interaction": "drop on OOD text minus drop on ID text", "dataset": "datasets"}


def comparison_table(rows: pd.DataFrame, first: str, second: str) -> RenderableType:
    """Rows of `compare`: quadrants, interactions, datasets; fractions in percent and points."""
    decodings = sorted(set(rows["decoding"]))
    unit = units(rows["metric"], "% right")
    change = "in points" if all(map(is_fraction, rows["metric"])) else "likewise"
    head = f"from {first}\nto   {second}\n{unit}, change {change} [{CONFIDENCE_TEXT} interval]"
    parts: list[RenderableType] = [Text(head)]
    seeds = int(rows["n_seeds"].max())
    for level, title in _TITLES.items():
        level_rows = rows[rows["level"] == level]
        if level_rows.empty:
            continue
        table = _table(title)
        table.add_column("", overflow="fold", ratio=1)
        for name in ("n", "from", "to") if level != "interaction" else ("n",):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("change", no_wrap=True)
        table.add_column("p Holm", justify="right", no_wrap=True)
        table.add_column("says", min_width=10)
        for row in level_rows.itertuples():
            metric = str(row.metric)
            name = (
                f"{row.name}{f' {metric}' * (metric != Metric.accuracy)}{f' ({row.decoding})' * (len(decodings) > 1)}"
                f"{', seen in mix' * (row.seen_in_mix is True)}"
            )
            scale, digits = (100, 1) if is_fraction(metric) else (1, 2)
            ends = [_number(end, scale, digits) for end in (row.first, row.second)] if level != "interaction" else []
            verdict = str(row.verdict)
            word = Text(verdict or _DASH, _COLOURS.get(verdict.partition(",")[0], "dim"))
            table.add_row(name, str(row.n), *ends, _interval(row, scale, digits), _p(row.p_holm), word)
        parts.append(table)
    parts.append(
        Text(
            f"higher, lower: where p Holm, which is adjusted over the rows of each table, is below {ALPHA_TEXT}",
            "dim",
        )
    )
    margin = rows["margin"].dropna()
    if len(margin):
        parts.append(
            Text(
                "equivalent, within the margin: two one-sided tests (TOST) reject a change of "
                f"{100 * margin.iloc[0]:g} points or more, p < {ALPHA_TEXT}",
                "dim",
            )
        )
    if seeds > 1:
        parts.append(Text(f"over {seeds} seeds; intervals hold the error between items and between seeds", "dim"))
    return Group(*parts)


def power_table(rows: pd.DataFrame, power: float, alpha: float) -> RenderableType:
    """Rows of `power`: what each cell has and what it needs."""
    table = _table(f"items to find a change with {power:.0%} power at the {alpha:.3g} level")
    table.add_column("", overflow="fold", ratio=1)
    for name in ("n", "clusters", "design\neffect", "finds\npoints"):
        table.add_column(name, justify="right", no_wrap=True)
    for difference in dict.fromkeys(rows["difference"]):
        table.add_column(f"for {100 * difference:g}", justify="right", no_wrap=True)
    is_one = rows["decoding"].nunique() == 1
    for (dataset, decoding), cells in rows.groupby(["dataset", "decoding"], sort=False):
        row = cells.iloc[0]
        table.add_row(
            f"{dataset}" if is_one else f"{dataset} ({decoding})",
            str(row["n"]),
            str(row["n_clusters"]),
            _number(row["design_effect"], 1),
            _number(row["mde"], 100),
            *(_needed(items, enough) for items, enough in zip(cells["items_needed"], cells["enough"], strict=True)),
        )
    notes = (
        "for 2: items needed to find a change of 2 points, clustered as now (a large design effect: only new clusters "
        f"help); {_DASH} where no answer changed, which says nothing of the variance"
    )
    return Group(table, Text(notes, "dim"))


def _needed(items: Any, enough: Any) -> Text:
    return Text(_DASH, "dim") if pd.isna(items) else Text(str(items), "green" if enough is True else "")


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, expand=False
    )


def _interval(row: object, scale: float, digits: int) -> str:
    value, low, high = (getattr(row, name) for name in ("difference", "ci_low", "ci_high"))
    if pd.isna(value):
        return _DASH
    text = f"{scale * value:+.{digits}f}"
    return text if pd.isna(low) else f"{text} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def _number(value: object, scale: float, digits: int = 1) -> str:
    return _DASH if pd.isna(value) else f"{scale * float(value):.{digits}f}"  # type: ignore[call-overload,arg-type]


def _p(value: object) -> str:
    text = _number(value, 1)
    if text == _DASH:
        return _DASH
    p = float(value)  # type: ignore[arg-type]
    return "<.001" if p < 0.001 else f"{p:.3f}"

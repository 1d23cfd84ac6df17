"""Continual learning in a terminal of 80 columns or more: one run through its tasks, and strategies side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forgetbench.terminal.cells import DASH
from forgetbench.terminal.wording import first_decoding, is_fraction, number

_FINAL = "MFN"


def strategy_table(strategies: pd.DataFrame) -> RenderableType:
    """One row per strategy, the best final scores first: each measure and half its interval, in one decoding.

    Args:
        strategies: strategies.csv.
    """
    if strategies.empty:
        return Text("no scored run of several tasks")
    decoding = first_decoding(strategies["decoding"])
    rows = strategies[strategies["decoding"] == decoding]
    final = rows[rows["measure"] == _FINAL].sort_values("value", ascending=False, kind="stable")
    names = list(dict.fromkeys([*final["strategy"], *rows["strategy"]]))
    measures = list(dict.fromkeys(strategies["measure"]))
    title = f"mean over tasks, % and points ({decoding})"
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("strategy", overflow="fold")
    for name in (*measures, "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in names:
        by_measure = {str(row["measure"]): row for row in rows[rows["strategy"] == name].to_dict("records")}
        table.add_row(name, *(_cell(by_measure.get(measure)) for measure in measures), _runs(list(by_measure.values())))
    return table


def course_table(continual: pd.DataFrame) -> RenderableType:
    """One row per stage of a run: the score of every task after it; then the measures with half their intervals.

    Args:
        continual: continual.csv of one run.
    """
    decoding = first_decoding(continual["decoding"])
    rows = continual[continual["decoding"] == decoding]
    scores, measures = rows[rows["measure"] == "score"], rows[rows["measure"] != "score"]
    tasks = list(dict.fromkeys(scores.sort_values("position", kind="stable")["task"]))
    table = Table(
        title=f"tasks after each stage, % ({decoding})",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("after", overflow="fold")
    for task in tasks:
        table.add_column(task, justify="right", overflow="fold")
    for _, stage in scores.groupby("stage", sort=True):
        by_task = {str(row["task"]): row for row in stage.to_dict("records")}
        trained = next(iter(by_task.values()))["trained"]
        table.add_row(str(trained or "base"), *(_score(by_task.get(task)) for task in tasks))
    line = "  ".join(f"{row['measure']} {_cell(row)}" for row in measures.to_dict("records"))
    return Group(table, line) if line else table


def _score(row: Mapping[Any, Any] | None) -> Text:
    """A task's score; bold where it was just trained."""
    if row is None:
        return Text(DASH, "dim")
    value = number(row["value"])
    factor = 100 if is_fraction(str(row["metric"])) else 1
    text = DASH if value is None else f"{factor * value:.1f}"
    return Text(text, "bold" if row["relation"] in ("current", "joint") else "")


def _cell(row: Mapping[Any, Any] | None) -> str:
    value, low, high = (None if row is None else number(row[name]) for name in ("value", "ci_low", "ci_high"))
    if row is None or value is None:
        return DASH
    factor = 100 if is_fraction(str(row["metric"])) else 1
    half = "" if low is None or high is None else f"±{factor * (high - low) / 2:.1f}"
    return f"{round(factor * value, 1) + 0.0:.1f}{half}"


def _runs(rows: Sequence[Mapping[Any, Any]]) -> str:
    return f"{max(number(row['n_runs']) or 0 for row in rows):.0f}"

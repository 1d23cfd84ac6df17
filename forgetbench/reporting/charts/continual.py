"""Continual learning: the score on every task after every stage, as heat maps and as forgetting curves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.reporting.charts.figure import INK, Chart, Figure, layered, panels
from forgetbench.reporting.charts.groups import PALETTE
from forgetbench.reporting.charts.rows import decoding_words, inline, percentages, primary_decoding
from forgetbench.reporting.contents import ReportTables
from forgetbench.terminal.wording import is_fraction

_SCORE = "score"
_JOINED = ">"
_ROW = 24
"""Pixels of a stage's line."""
_LIGHT, _DARK = "#e9f0fa", "#174a8c"
"""Cells of the lowest and of the highest score, on a light page as on a dark one."""
_BASE = "datum.value == 0 ? 'base' : "
_KEYS = ["strategy", "order", "stage", "task", "position"]
_COLUMNS = [*_KEYS, "percent", "low", "high", "relation", "n_runs"]


@dataclass(frozen=True)
class _TaskScores:
    """The scores of all tasks after all stages, in percent: a row per strategy, order, stage and task."""

    rows: pd.DataFrame
    orders: Sequence[Sequence[str]]
    strategies: Sequence[str]
    decoding: str
    left_out: Sequence[str]
    """Tasks that are on another scale."""

    @property
    def n_stages(self) -> int:
        return max(map(len, self.orders))

    @property
    def has_order_choice(self) -> bool:
        """Whether a single order is shown at a time: panels per strategy leave no room for all orders."""
        return len(self.strategies) > 1 and len(self.orders) > 1

    def panels(self, draw: Callable[[pd.DataFrame, Sequence[Sequence[str]], str], Chart]) -> list[Chart]:
        """A panel per strategy, with the order that is chosen; of a single strategy a panel per order."""
        if len(self.strategies) > 1:
            return [draw(self.rows[self.rows["strategy"] == name], self.orders, name) for name in self.strategies]
        return [
            draw(
                self.rows[self.rows["order"] == place].assign(order=0),
                [order],
                f"order {place + 1}" * self._has_several_orders,
            )
            for place, order in enumerate(self.orders)
        ]

    @property
    def _has_several_orders(self) -> bool:
        return len(self.orders) > 1

    def with_choice(self, chart: Chart) -> Chart:
        """The chart with a list of orders to choose from, if there are several to choose from."""
        if not self.has_order_choice:
            return chart
        words = [f"{place}: {', '.join(order)}" for place, order in enumerate(self.orders, 1)]
        bind = alt.binding_select(options=list(range(len(words))), labels=words, name="Order of the tasks ")
        return chart.add_params(alt.param(name="task_order", value=0, bind=bind))

    def caption_end(self) -> str:
        """End of a caption: decoding, seeds, orders and the tasks left out."""
        max_seeds = int(self.rows["n_runs"].max())
        text = f", {decoding_words(self.decoding)}{f', mean over up to {max_seeds} seeds' * (max_seeds > 1)}"
        text += ", for the order of tasks that the list names (in the file: the first)" * self.has_order_choice
        text += " (continual.csv)."
        return text + (f" On another scale: {', '.join(self.left_out)}." if self.left_out else "")


def heat_map(tables: ReportTables) -> Figure | None:
    """a[t][i]: a line per stage, a column per task; None if no run went through several stages."""
    task_scores = _task_scores(tables)
    if task_scores is None:
        return None
    low, high = float(task_scores.rows["percent"].min()), float(task_scores.rows["percent"].max())
    charts = task_scores.panels(lambda rows, orders, title: _matrix(rows, orders, title, task_scores, (low, high)))
    return Figure(
        "continual_matrix",
        "Every task after every stage",
        "Percent right on each task (columns, in the order of training) by the base and after each stage (lines); "
        f"outlined is the stage's own task, left of it stand the tasks learnt before{task_scores.caption_end()}",
        f"Heat maps: the score on {task_scores.n_stages} tasks after each stage, "
        f"for {_listed(task_scores.strategies)}.",
        task_scores.with_choice(panels(charts, 3, beside=72, below=104)),
    )


def curves(tables: ReportTables) -> Figure | None:
    """The score on each task over the stages; None if no run went through several stages."""
    task_scores = _task_scores(tables)
    if task_scores is None:
        return None
    tasks = list(dict.fromkeys(task for order in task_scores.orders for task in order))
    colour = alt.Color(
        "task:N",
        title="Task",
        scale=alt.Scale(domain=tasks, range=[PALETTE[place % len(PALETTE)] for place in range(len(tasks))]),
    )
    charts = task_scores.panels(lambda rows, orders, title: _lines(rows, title, task_scores, colour))
    band = f"; bands are {CONFIDENCE_TEXT} intervals of single runs" * bool((task_scores.rows["n_runs"] == 1).any())
    return Figure(
        "forgetting_curves",
        "Forgetting curves",
        f"Percent right on each task over the stages, dashed before the task is trained{band}"
        f"{task_scores.caption_end()}",
        f"Lines: the score on {len(tasks)} tasks over the stages, for {_listed(task_scores.strategies)}.",
        task_scores.with_choice(panels(charts, 3, beside=64, legend=44 + 6 * max(map(len, tasks)))),
    )


def _task_scores(tables: ReportTables) -> _TaskScores | None:
    """Means over seeds; joint and untrained runs have no stages to show."""
    rows = tables.continual
    if rows.empty or not {"recipe", "measure", "stage", "relation", "tasks"} <= set(rows):
        return None
    rows = rows[(rows["measure"] == _SCORE) & rows["value"].notna()]
    decoding = primary_decoding(rows)
    rows = rows[rows["decoding"] == decoding]
    rows = rows[rows["run"].isin(rows.loc[rows["relation"] == "current", "run"])]
    fractions = rows["metric"].map(lambda metric: is_fraction(str(metric)))
    left_out = sorted(set(rows.loc[~fractions.astype(bool), "task"]))
    rows = rows[fractions.astype(bool)]
    if rows.empty:
        return None
    orders = sorted(set(rows["tasks"]), key=list(rows["tasks"]).index)
    rows = percentages(rows, {"percent": "value", "low": "ci_low", "high": "ci_high"})
    rows = rows.assign(order=rows["tasks"].map({tasks: place for place, tasks in enumerate(orders)}))
    grouped = rows.groupby(_KEYS, sort=True)
    means = grouped.agg(
        percent=("percent", "mean"),
        low=("low", "mean"),
        high=("high", "mean"),
        relation=("relation", "first"),
        n_runs=("run", "nunique"),
    ).reset_index()
    single = means["n_runs"] == 1  # the mean of several intervals is none
    means = means.assign(low=means["low"].where(single), high=means["high"].where(single))
    return _TaskScores(
        means, [tasks.split(_JOINED) for tasks in orders], _strategies_by_score(tables, means), decoding, left_out
    )


def _strategies_by_score(tables: ReportTables, rows: pd.DataFrame) -> list[str]:
    """Strategies by their final scores, the best first."""
    final = rows[rows["stage"] == rows.groupby(["strategy", "order"])["stage"].transform("max")]
    means = final.groupby("strategy")["percent"].mean().sort_values(ascending=False, kind="stable")
    return [str(name) for name in means.index]


def _chart_of_order(rows: pd.DataFrame, task_scores: _TaskScores) -> alt.Chart:
    chart = alt.Chart(inline(rows, _COLUMNS))
    return chart.transform_filter("datum.order == task_order") if task_scores.has_order_choice else chart


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("strategy:N"),
        alt.Tooltip("task:N"),
        alt.Tooltip("stage:Q", title="after stage"),
        alt.Tooltip("percent:Q", title="% right", format=".1f"),
        alt.Tooltip("low:Q", title=f"{CONFIDENCE_TEXT} from", format=".1f"),
        alt.Tooltip("high:Q", title=f"{CONFIDENCE_TEXT} to", format=".1f"),
        alt.Tooltip("n_runs:Q", title="seeds"),
    ]


def _matrix(
    rows: pd.DataFrame, orders: Sequence[Sequence[str]], title: str, task_scores: _TaskScores, ends: tuple[float, float]
) -> alt.LayerChart:
    names = f"{json.dumps([list(order) for order in orders])}[{'task_order' if task_scores.has_order_choice else 0}]"
    places, stages = list(range(1, task_scores.n_stages + 1)), list(range(task_scores.n_stages + 1))
    flat: dict[str, Any] = {"ticks": False, "domain": False, "grid": False}
    x = alt.X(
        "position:O",
        title=None,
        scale=alt.Scale(domain=places, paddingInner=0.04),
        axis=alt.Axis(labelExpr=f"{names}[datum.value - 1]", labelAngle=-35, labelLimit=104, **flat),
    )
    y = alt.Y(
        "stage:O",
        title=None,
        scale=alt.Scale(domain=stages, paddingInner=0.08),
        axis=alt.Axis(labelExpr=f"{_BASE}'after ' + datum.value", **flat),
    )
    chart, middle = _chart_of_order(rows, task_scores), (ends[0] + ends[1]) / 2
    fill = alt.Color("percent:Q", scale=alt.Scale(domain=list(ends), range=[_LIGHT, _DARK]), legend=None)
    ink = alt.condition(f"datum.percent > {middle:.4g}", alt.value("#ffffff"), alt.value("#1c2024"))
    digits = ".1f" if len(task_scores.strategies) == 1 and len(task_scores.orders) == 1 else ".0f"
    return layered(
        chart.mark_rect().encode(x, y, fill, tooltip=_tooltip()),
        chart.transform_filter("datum.relation == 'current'")
        .mark_rect(style=INK, filled=False, strokeWidth=2)
        .encode(x, y, tooltip=_tooltip()),
        chart.mark_text(fontSize=11).encode(x, y, color=ink, text=alt.Text("percent:Q", format=digits)),
        height=_ROW * len(stages),
        title=title,
    )


def _lines(rows: pd.DataFrame, title: str, task_scores: _TaskScores, colour: alt.Color) -> alt.LayerChart:
    x = alt.X(
        "stage:Q",
        title="After stage",
        scale=alt.Scale(domain=[0, task_scores.n_stages], nice=False),
        axis=alt.Axis(
            values=list(range(task_scores.n_stages + 1)), labelExpr=f"{_BASE}format(datum.value, 'd')", grid=False
        ),
    )
    y = alt.Y("percent:Q", title="% right", scale=alt.Scale(domain=[0, 100]))
    chart = _chart_of_order(rows, task_scores)
    learnt, unlearnt = "datum.stage >= datum.position", "datum.stage < datum.position"
    known = chart.transform_filter("datum.stage >= datum.position - 1")
    layers = []
    if (rows["n_runs"] == 1).all():
        low, high = alt.Y("low:Q", title="% right"), alt.Y2("high:Q")
        layers.append(known.mark_area(opacity=0.12, clip=True).encode(x, low, high, colour))
    layers += [
        chart.transform_filter(unlearnt).mark_line(strokeWidth=1.4, strokeDash=[3, 3]).encode(x, y, colour),
        known.mark_line(strokeWidth=1.8).encode(x, y, colour),
        chart.transform_filter(unlearnt)
        .mark_point(filled=False, size=22, strokeWidth=1.2, opacity=0.8)
        .encode(x, y, colour, tooltip=_tooltip()),
        chart.transform_filter(learnt)
        .mark_point(filled=True, size=34, opacity=1)
        .encode(x, y, colour, tooltip=_tooltip()),
    ]
    return layered(*layers, height=200, title=title)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "one run"

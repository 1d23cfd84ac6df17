"""Forgetting against drift: a point per checkpoint, drift of the answers on x, loss elsewhere on y."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.reporting.charts.figure import GUIDE, Figure, layered, panels
from forgetbench.reporting.charts.groups import Groups, highlight_opacity, legend_selection
from forgetbench.reporting.charts.rows import inline, last_steps, of_target, percentages, targets_of, with_text
from forgetbench.reporting.contents import ReportTables
from forgetbench.statistics.monotone import MIN_RUNS, MonotoneFit, monotone_fit
from forgetbench.tables.drift import ELSEWHERE
from forgetbench.tables.last import last_stage

_DRIFT = "kl_from_base"
_FEWEST = 6
"""Points below which a table says more than a figure."""
_HEIGHT = 300
_COLUMNS = ["label", "group", "step", "seed", _DRIFT, "loss", "low", "high"]


def figure(tables: ReportTables, groups: Groups) -> Figure | None:
    """Every checkpoint of each run's last stage, a panel per target; None of fewer than six."""
    rows = _rows(tables.drift)
    by_target = {
        target: target_rows for target in targets_of(rows) if len(target_rows := of_target(rows, target)) >= _FEWEST
    }
    if not by_target:
        return None
    shown = groups.with_columns(pd.concat(by_target.values()))
    several = len(by_target) > 1
    charts = [
        _chart(
            groups.with_columns(target_rows), groups, set(shown["group"]), f"Target {target}" if several else "", place
        )
        for place, (target, target_rows) in enumerate(by_target.items())
    ]
    sentences = " ".join(
        (f"{target}: " if several else "") + _correlation_text(_fit(target_rows), target_rows["run"].nunique())
        for target, target_rows in by_target.items()
    )
    return Figure(
        "answer_drift",
        "Forgetting against drift",
        "Every checkpoint: how far its answers to the target's own items are from the base's (KL(base || checkpoint) "
        "over the options, in nats), and what the other quadrants' sets lost, by likelihood. Filled points are "
        "last checkpoints, unfilled ones are earlier or were edited after training. Checkpoints that train for longer "
        "or faster do more of both, so points in one line need not mean that drift is the cause. "
        f"{sentences} Bars are {CONFIDENCE_TEXT} intervals over items (drift.csv).",
        f"Scatter plot of the loss outside the target's quadrant over the drift on the target's items for {len(shown)} "
        f"checkpoints; runs: {shown['run'].nunique()}. {sentences}",
        panels(charts, 1, legend=groups.legend_width(shown["group"])),
    )


def _rows(drift: pd.DataFrame) -> pd.DataFrame:
    if drift.empty or not {"recipe", "run", "stage", "step", "variant", "seed", _DRIFT, ELSEWHERE} <= set(drift):
        return drift.iloc[:0].assign(step=0)
    rows = last_stage(with_text(drift))
    rows = rows[rows[_DRIFT].notna() & rows[ELSEWHERE].notna()]
    rows = percentages(rows, {"loss": ELSEWHERE, "low": f"{ELSEWHERE}_ci_low", "high": f"{ELSEWHERE}_ci_high"})
    return rows.assign(is_last=rows.index.isin(last_steps(rows).index) & (rows["variant"] == ""))


def _fit(rows: pd.DataFrame) -> MonotoneFit:
    return monotone_fit(rows[_DRIFT].tolist(), rows["loss"].tolist(), rows["run"].tolist())


def _correlation_text(fit: MonotoneFit, n_runs: int) -> str:
    """The correlation in words."""
    if fit.rho is None:
        return "There is no rank correlation, as one of the two is everywhere the same."
    sentence = f"Spearman's rank correlation is {fit.rho:.2f}"
    if fit.rho_low is None or fit.rho_high is None:
        few = f"of {n_runs} run{'s' * (n_runs != 1)} (at least {MIN_RUNS} are needed)"
        return f"{sentence}, without an interval {few if n_runs < MIN_RUNS else 'as most resamples have none'}."
    return f"{sentence} ({CONFIDENCE_TEXT} interval over {n_runs} runs {fit.rho_low:.2f} to {fit.rho_high:.2f})."


def _chart(rows: pd.DataFrame, groups: Groups, present: set[str], title: str, place: int) -> alt.LayerChart:
    far = float(rows[_DRIFT].max())
    x = alt.X(
        f"{_DRIFT}:Q",
        title="Drift on the target's items (KL in nats, square-root scale)",
        scale=alt.Scale(type="sqrt", domain=[0, round(1.05 * far, 6) or 1]),
        axis=alt.Axis(values=_ticks(far), format="~g"),
    )
    y = alt.Y("loss:Q", title="Lost on the source sets (points)", scale=alt.Scale(nice=True))
    colour, shape = groups.colour(present), groups.shape(present)
    tooltip = [
        alt.Tooltip("label:N", title="recipe"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("seed:Q"),
        alt.Tooltip(f"{_DRIFT}:Q", title="KL (nats)", format=".3f"),
        alt.Tooltip("loss:Q", title="lost (points)", format=".1f"),
        alt.Tooltip("low:Q", title=f"{CONFIDENCE_TEXT} from", format=".1f"),
        alt.Tooltip("high:Q", title=f"{CONFIDENCE_TEXT} to", format=".1f"),
    ]
    bars = alt.Chart(inline(rows, _COLUMNS), name=f"drift_{place}").mark_rule(strokeWidth=1)
    bars = bars.encode(x, colour, y=alt.Y("low:Q"), y2="high:Q", opacity=highlight_opacity(0.2))
    if place == 0:
        bars = bars.add_params(legend_selection())
    layers = [alt.Chart(alt.InlineData(values=[{"loss": 0}])).mark_rule(style=GUIDE).encode(y=y), bars]
    for is_last in (False, True):
        subset = rows[rows["is_last"] == is_last]
        if len(subset):
            points = alt.Chart(inline(subset, _COLUMNS)).mark_point(filled=is_last, size=60, strokeWidth=1.5)
            layers.append(points.encode(x, y, colour, shape, opacity=highlight_opacity(0.9), tooltip=tooltip))
    return layered(*layers, title=title, height=_HEIGHT)


def _ticks(far: float) -> Sequence[float]:
    """Round numbers that a square-root scale spreads evenly enough: 1, 2 and 5 of every power of ten in sight."""
    if not far > 0:
        return [0]
    top = math.floor(math.log10(far))
    ticks = [digit * 10.0**power for power in (top - 1, top) for digit in (1, 2, 5)]
    return [0, *(round(tick, 12) for tick in ticks if tick <= 1.05 * far)]

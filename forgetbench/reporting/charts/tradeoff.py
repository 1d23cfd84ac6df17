"""Cost of learning the target: its accuracy against that of each other quadrant, a point per checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import altair as alt
import pandas as pd

from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.core.records import QUADRANTS, Metric
from forgetbench.reporting.charts.figure import GUIDE, HOLLOW, INK, Figure, layered, panels
from forgetbench.reporting.charts.groups import Groups, highlight_opacity, legend_selection
from forgetbench.reporting.charts.labels import tick_spacing
from forgetbench.reporting.charts.rows import (
    TARGET,
    decoding_words,
    in_primary_decoding,
    inline,
    of_target,
    percentages,
    primary_decoding,
    targets_of,
    with_base,
)
from forgetbench.reporting.contents import ReportTables
from forgetbench.tables.guard import MEAN
from forgetbench.terminal.wording import QUADRANT_NAMES

_KEYS = ["run", "step", "variant", "stage"]
_Place: TypeAlias = tuple[str, str]
"""Target and quadrant of a panel."""
_VALUES = ["value", "ci_low", "ci_high"]
_INTERVALS_UP_TO = 6
"""Recipes; the bars of more would hide the points."""
_FEW_POINTS = 48
"""In a panel, of the same."""
_LIMIT = "limit"
_LIMIT_CAPTION = (
    " Dashed: the base's accuracy less the budget of forgetting (guard.max_loss; where it is for the mean of the "
    "quadrants, it is not for each of them)."
)
_COLUMNS = ["group", "run", "step", "variant", "x", "x_low", "x_high", "y", "y_low", "y_high"]


def figure(tables: ReportTables, groups: Groups) -> Figure | None:
    """Figure 2 of the 2x2 paper; None if nothing trained has a quadrant other than the target's scored beside it."""
    points = _points(tables.matrix)
    if points.empty:
        return None
    points = _with_limits(groups.with_columns(points), tables.guard)
    is_limited = bool(points[_LIMIT].notna().any())
    targets = targets_of(points)
    several = len(targets) > 1
    shown = [(target, name) for target in targets for name in QUADRANTS if len(_of_panel(points, target, name))]
    few_points = max(len(_of_panel(points, *panel)) for panel in shown) <= _FEW_POINTS
    with_intervals = bool(points["recipe"].nunique() <= _INTERVALS_UP_TO and few_points)
    ends = ("y_low", "y_high") if with_intervals else ("y", "y")
    domains = _domains({panel: _of_panel(points, *panel)[["y", *ends, _LIMIT]] for panel in shown})
    present = set(points["group"])
    charts = [
        _panel(
            _of_panel(points, *panel),
            f"{panel[0]}: {QUADRANT_NAMES[panel[1]]}" if several else QUADRANT_NAMES[panel[1]],
            groups,
            present,
            with_intervals,
            domains[panel],
            place,
        )
        for place, panel in enumerate(shown)
    ]
    has_stages = (tables.matrix["stage"] > 1).any()
    base = points[points["step"] == 0].round({"x": 6, "y": 6})
    has_rings = any(len(_of_panel(base, *panel)[["x", "y"]].drop_duplicates()) > 1 for panel in shown)
    has_variants = (points["variant"] != "").any()
    caption = (
        f"Accuracy on the target's quadrant against accuracy in every other one, read "
        f"{decoding_words(primary_decoding(tables.matrix))}; a line is a run, in the order of its checkpoints from "
        "the base (ring) on, and the y axes span equally many points."
        f"{' Runs that are scored on other sets have a ring of their own.' if has_rings else ''}"
        f"{' Each target has panels of its own.' if several else ''}"
        f"{' Of a run of several stages the last one is shown.' if has_stages else ''}"
        f"{' Unfilled points are variants made after training.' if has_variants else ''}"
        f"{f' Thin bars are {CONFIDENCE_TEXT} intervals.' if with_intervals else ''}"
        f"{_LIMIT_CAPTION if is_limited else ''}"
        " Sets whose task was mixed in are left out of the y axes (matrix.csv)."
    )
    return Figure(
        "tradeoff",
        "Learning against forgetting",
        caption,
        f"{len(shown)} scatter plots of off-target accuracy over target accuracy for "
        f"{points['run'].nunique()} runs of {points['recipe'].nunique()} recipes.",
        panels(charts, columns=3, beside=62, legend=groups.legend_width(present)),
    )


def _points(matrix: pd.DataFrame) -> pd.DataFrame:
    """A row per checkpoint and off-target quadrant, with the target's accuracy beside it, of runs that have trained."""
    rows = in_primary_decoding(matrix, "quadrant", "metric", "seen_in_mix", *_VALUES)
    if rows.empty:
        return rows
    rows = with_base(rows[(rows["metric"] == Metric.accuracy) & rows["value"].notna()], "quadrant", "seen_in_mix")
    rows = rows[rows["run"].isin(rows.loc[rows["step"] > 0, "run"])]
    # A mix with the target's question marks the target as seen, which it is in every run: its accuracy stays.
    target = rows[rows["quadrant"] == TARGET].sort_values("seen_in_mix", kind="stable").drop_duplicates(_KEYS)
    off_target = rows[(rows["quadrant"] != TARGET) & ~rows["seen_in_mix"]]
    names = {"value": "target_value", "ci_low": "target_low", "ci_high": "target_high"}
    joined = off_target.merge(target[[*_KEYS, *_VALUES]].rename(columns=names), on=_KEYS)
    axes = {"x": "target_value", "x_low": "target_low", "x_high": "target_high"}
    return percentages(joined, axes | {"y": "value", "y_low": "ci_low", "y_high": "ci_high"})


def _with_limits(points: pd.DataFrame, guard: pd.DataFrame) -> pd.DataFrame:
    """Add the base's accuracy minus the budget of each run, per quadrant; absent without a budget."""
    base = points[(points["step"] == 0) & (points["variant"] == "")]
    places = base.drop_duplicates(["run", "quadrant"]).set_index(["run", "quadrant"])["y"]
    limits: dict[tuple[str, str], float] = {}
    for run, group, budget in () if guard.empty else zip(guard["run"], guard["group"], guard["budget"], strict=True):
        for key in ((run, quadrant) for quadrant in (QUADRANTS if group == MEAN else [group])):
            if key in places.index:
                limits[key] = float(places[key]) - 100 * float(budget)
    keys = zip(points["run"], points["quadrant"], strict=True)
    return points.assign(**{_LIMIT: pd.array([limits.get(key) for key in keys], dtype="Float64")})


def _of_panel(points: pd.DataFrame, target: str, quadrant: str) -> pd.DataFrame:
    rows = of_target(points, target)
    return rows[rows["quadrant"] == quadrant]


def _domains(shown: Mapping[_Place, pd.DataFrame]) -> dict[_Place, tuple[list[float], list[float]]]:
    """Range and ticks of every panel's y axis: equally long, ending between two ticks, room for a word above."""
    ends = {place: (float(part.min().min()), float(part.max().max())) for place, part in shown.items()}
    longest = max(top - bottom for bottom, top in ends.values())
    unit = tick_spacing(longest, max_ticks=10)
    edges = {
        place: (math.floor(bottom / unit - 0.5), math.ceil((top + 0.06 * longest) / unit + 0.5))
        for place, (bottom, top) in ends.items()
    }
    n_units = max(top - bottom for bottom, top in edges.values())
    domains = {}
    for place, (bottom, top) in edges.items():
        start = bottom - (n_units - (top - bottom)) // 2
        domain = [(start + 0.5) * unit, (start + n_units - 0.5) * unit]
        ticks = [step * unit for step in range(start + 1, start + n_units)]
        domains[place] = domain, [tick for tick in ticks if 0 <= tick <= 100]
    return domains


def _panel(
    points: pd.DataFrame,
    title: str,
    groups: Groups,
    present: set[str],
    with_intervals: bool,
    domain: tuple[list[float], list[float]],
    place: int,
) -> alt.LayerChart:
    base = points[(points["step"] == 0) & (points["variant"] == "")]
    base = base.round({"x": 6, "y": 6}).drop_duplicates(["x", "y"])
    variants, trained = points[points["variant"] != ""], points[points["variant"] == ""]
    x = alt.X("x:Q", title="Accuracy on the target (%)", scale=alt.Scale(zero=False, nice=True, padding=8))
    y = alt.Y(
        "y:Q",
        title="Accuracy in the quadrant (%)",
        scale=alt.Scale(domain=domain[0], nice=False),
        axis=alt.Axis(values=domain[1]),
    )
    colour, shape = groups.colour(present), groups.shape(present)
    tooltip = _tooltip()
    lines = alt.Chart(inline(trained, _COLUMNS), name=f"lines_{place}")
    layers = [
        lines.mark_line(strokeWidth=1.2).encode(
            x, y, colour, detail="run:N", order="step:Q", opacity=highlight_opacity(0.45)
        )
    ]
    if with_intervals:
        after = alt.Chart(inline(points[points["step"] > 0], _COLUMNS)).encode(colour, opacity=highlight_opacity(0.3))
        layers += [
            after.mark_rule(strokeWidth=0.8).encode(x, y="y_low:Q", y2="y_high:Q"),
            after.mark_rule(strokeWidth=0.8).encode(y=y, x="x_low:Q", x2="x_high:Q"),
        ]
    done = alt.Chart(inline(trained[trained["step"] > 0], _COLUMNS))
    layers += [
        done.mark_point(filled=True, size=46).encode(
            x, y, colour, shape, opacity=highlight_opacity(0.85), tooltip=tooltip
        ),
    ]
    if len(variants):
        edited = alt.Chart(inline(variants, _COLUMNS))
        layers.append(
            edited.mark_point(filled=False, size=36, strokeWidth=1.4).encode(
                x, y, colour, shape, opacity=highlight_opacity(0.85), tooltip=tooltip
            )
        )
    start = alt.Chart(inline(base, ["x", "y", "x_low", "x_high", "y_low", "y_high"]))
    layers += [
        start.mark_point(style=HOLLOW, size=90).encode(x, y, tooltip=tooltip[3:]),
        alt.Chart(inline(base.nlargest(1, "y"), ["x", "y"])).mark_text(style=INK, dy=-12, text="base").encode(x, y),
    ]
    limits = points[[_LIMIT]].dropna().astype(float).round(6).drop_duplicates().rename(columns={_LIMIT: "y"})
    if len(limits):
        rule = alt.Chart(inline(limits, ["y"])).mark_rule(style=GUIDE)
        layers.append(rule.encode(y, tooltip=[alt.Tooltip("y:Q", title="budget (%)", format=".1f")]))
    if place == 0:
        layers[0] = layers[0].add_params(legend_selection())
    return layered(*layers, title=title, height=270)


def _tooltip() -> list[alt.Tooltip]:
    shown = [alt.Tooltip("run:N"), alt.Tooltip("variant:N"), alt.Tooltip("step:Q")]
    for axis, name in (("x", "target"), ("y", "quadrant")):
        shown += [
            alt.Tooltip(f"{axis}:Q", title=f"{name} (%)", format=".1f"),
            alt.Tooltip(f"{axis}_low:Q", title=f"{name}, {CONFIDENCE_TEXT} from", format=".1f"),
            alt.Tooltip(f"{axis}_high:Q", title=f"{name}, {CONFIDENCE_TEXT} to", format=".1f"),
        ]
    return shown

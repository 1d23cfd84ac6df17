"""Results of a search: the two objectives of every point on validation items, and the front on test items."""

from __future__ import annotations

import altair as alt
import pandas as pd

from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.reporting.charts.figure import GUIDE, HOLLOW, Figure, layered, panels
from forgetbench.reporting.charts.groups import PALETTE
from forgetbench.reporting.charts.rows import inline

_KINDS = ("front", "complete", "stopped early")
_HEIGHT = 320


def figure(points: pd.DataFrame, front: pd.DataFrame) -> Figure | None:
    """The points of search.csv and the front of front.csv; None of no search.

    Args:
        points: every point that was measured.
        front: the tested ones.
    """
    if points.empty or not {"target", "retention", "end"} <= set(points):
        return None
    points = points[points["target"].notna()]
    on_front = points["point"].isin(front["point"] if len(front) else [])
    kinds = ["stopped early" if end != "complete" else "complete" for end in points["end"]]
    points = points.assign(
        kind=[_KINDS[0] if is_front else kind for is_front, kind in zip(on_front, kinds, strict=True)],
        x=100 * points["target"],
        y=100 * points["retention"],
        name=points["overrides"],
    )
    colour = alt.Color("kind:N", title=None, scale=alt.Scale(domain=list(_KINDS), range=[*PALETTE[:2], "#9a9a9a"]))
    x = alt.X("x:Q", title="Accuracy on the target (%)", scale=alt.Scale(zero=False))
    y = alt.Y("y:Q", title="Change of the other quadrants (points)", scale=alt.Scale(zero=False))
    shown = ["x", "y", "kind", "name", "step"]
    layers = [
        alt.Chart(alt.InlineData(values=[{"y": 0}])).mark_rule(style=GUIDE).encode(y="y:Q"),
        alt.Chart(inline(points[points["kind"] == _KINDS[0]].sort_values(["x", "y"]), ["x", "y"]))
        .mark_line(style=HOLLOW, interpolate="step-before", strokeWidth=1.2, opacity=0.7)
        .encode(x, y, order="x:Q"),
        alt.Chart(inline(points, shown))
        .mark_point(filled=True, size=60)
        .encode(x, y, colour, tooltip=[alt.Tooltip(f"{column}:N") for column in ("name", "step", "kind")]),
    ]
    if len(front):
        layers += _test_marks(front, x, y)
    caption = (
        "Every point of the search at the last step that it was scored at, on validation items; points that were "
        "stopped early may have ended elsewhere. The line is the Pareto front among those that were trained whole; "
        f"crosses are the same points on the test's items, with {CONFIDENCE_TEXT} intervals over items "
        "(search.csv, front.csv)."
    )
    text = f"Scatter plot of {len(points)} points, {int(on_front.sum())} of them on the front."
    return Figure("search", "The search", caption, text, panels([layered(*layers, height=_HEIGHT)], 1))


def _test_marks(front: pd.DataFrame, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    columns = [f"{name}{end}" for name in ("test_target", "test_retention") for end in ("", "_ci_low", "_ci_high")]
    names = ["x", "x_low", "x_high", "y", "y_low", "y_high"]
    rows = pd.DataFrame({name: 100 * front[column] for name, column in zip(names, columns, strict=True)})
    chart = alt.Chart(inline(rows, names))
    return [
        chart.mark_rule(style=HOLLOW, strokeWidth=1, opacity=0.5).encode(x, y="y_low:Q", y2="y_high:Q"),
        chart.mark_rule(style=HOLLOW, strokeWidth=1, opacity=0.5).encode(y=y, x="x_low:Q", x2="x_high:Q"),
        chart.mark_point(shape="cross", style=HOLLOW, size=50).encode(x, y),
    ]

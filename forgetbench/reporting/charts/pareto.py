"""Which recipes keep most for what they learn: retention against the change on the target, and their Pareto front."""

from __future__ import annotations

import math
from dataclasses import dataclass

import altair as alt
import pandas as pd

from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.reporting.charts.figure import GUIDE, HOLLOW, INK, Figure, layered, panels
from forgetbench.reporting.charts.groups import Groups, highlight_opacity, legend_selection
from forgetbench.reporting.charts.labels import ANGLE, APART, label_height, space_apart, tick_spacing
from forgetbench.reporting.charts.rows import (
    decoding_words,
    extent,
    in_primary_decoding,
    inline,
    of_target,
    over_seeds,
    percentages,
    primary_decoding,
    seed_means,
    targets_of,
)
from forgetbench.reporting.contents import ReportTables
from forgetbench.statistics.pareto import pareto_front
from forgetbench.tables.cell_view import target_sets
from forgetbench.tables.last import last_stage
from forgetbench.terminal.wording import is_fraction

_AXES = {
    "x": "target_delta",
    "x_low": "target_delta_ci_low",
    "x_high": "target_delta_ci_high",
    "y": "retention",
    "y_low": "retention_ci_low",
    "y_high": "retention_ci_high",
}
_ACROSS = ("x", "x_low", "x_high")
_TITLES = {
    "x": "target (points)",
    "x_low": f"target, {CONFIDENCE_TEXT} from",
    "x_high": f"target, {CONFIDENCE_TEXT} to",
    "y": "kept (%)",
    "y_low": f"kept, {CONFIDENCE_TEXT} from",
    "y_high": f"kept, {CONFIDENCE_TEXT} to",
}
_WIDTH, _HEIGHT = 540, 340
"""Pixels of the plot below the names; the width that names are placed for."""
_FEW = 12
"""Points whose bars do not hide each other."""
_MOST_NAMES = 22
_NARROW = 460
"""Pixels; below, names would overlap."""


@dataclass(frozen=True)
class _PanelSettings:
    """Settings of a target's panel."""

    title: str
    place: int
    metric: str
    """The target's, where it is no fraction of 1."""
    present: set[str]
    """Groups of all targets: their colours are shared."""


def figure(tables: ReportTables, groups: Groups) -> Figure | None:
    """Retention over target change; None without a trained run that has both."""
    seeds = _seeds(tables.summary)
    if seeds.empty:
        return None
    seeds = groups.with_columns(seeds)
    targets = targets_of(seeds)
    several = len(targets) > 1
    by_target = {target: _means(of_target(seeds, target)) for target in targets}
    means = pd.concat(by_target.values(), ignore_index=True)
    caption = (
        "Accuracy kept on the source sets, as a share of the base's, against what was gained on the target, "
        f"{decoding_words(primary_decoding(tables.summary))}. Large points are recipes{over_seeds(means['n_seeds'])}, "
        f"small ones single seeds, unfilled ones variants made after training; bars are {CONFIDENCE_TEXT} intervals "
        "over items (of several seeds, their mean), and the line is the Pareto front"
        f"{', one per target: changes on different targets are not compared' if several else ''} (summary.csv)."
    )
    best = "; ".join(
        f"{f'of {target}, ' if several else ''}{', '.join(target_means.loc[target_means['is_front'], 'label'])}"
        for target, target_means in by_target.items()
    )
    charts = [
        _chart(
            of_target(seeds, target),
            target_means,
            groups,
            _PanelSettings(
                f"Target {target}" if several else "", place, target_metric(tables.scores, target), set(means["group"])
            ),
        )
        for place, (target, target_means) in enumerate(by_target.items())
    ]
    return Figure(
        "pareto",
        "Retention against learning",
        caption,
        f"Scatter plot of retention over the change on the target for {len(means)} recipes and variants; "
        f"on the Pareto front: {best}.",
        panels(charts, 1, legend=groups.legend_width(means["group"])),
    )


def target_metric(scores: pd.DataFrame, target: str) -> str:
    """The metric of the target set if that is no fraction of 1; else empty."""
    if not {"dataset", "metric", "target"} <= set(scores):
        return ""
    pairs = zip(scores["dataset"], scores["target"].astype(str), strict=True)
    is_of_target = [dataset in target_sets(row_target) and target in ("", row_target) for dataset, row_target in pairs]
    rows = scores[pd.Series(is_of_target, scores.index, dtype=bool)]
    return next((str(metric) for metric in sorted(set(rows["metric"])) if not is_fraction(str(metric))), "")


def _means(seeds: pd.DataFrame) -> pd.DataFrame:
    means = seed_means(seeds, ["recipe", "variant", "group", "label"], list(_AXES))
    means["is_front"] = pareto_front(list(zip(means["x"], means["y"], strict=True)))
    return means


def _seeds(summary: pd.DataFrame) -> pd.DataFrame:
    rows = in_primary_decoding(summary, *_AXES.values())
    if rows.empty:
        return rows
    rows = last_stage(rows[(rows["step"] > 0) & rows["target_delta"].notna() & rows["retention"].notna()])
    return percentages(rows, _AXES)


def _chart(seeds: pd.DataFrame, means: pd.DataFrame, groups: Groups, settings: _PanelSettings) -> alt.LayerChart:
    if settings.metric:
        seeds, means = (part.assign(**{name: part[name] / 100 for name in _ACROSS}) for part in (seeds, means))
    present = settings.present
    front = means[means["is_front"]].sort_values(["x", "y"], ascending=[True, False])
    across, up = _range(means, seeds, "x", 0), _range(means, seeds, "y", 100)
    room = label_height(list(front["label"]))
    unit = tick_spacing(up[1] - up[0])
    ticks = [step * unit for step in range(math.ceil(up[0] / unit), math.floor(up[1] / unit) + 1)]
    top = up[1] + (up[1] - up[0]) * room / _HEIGHT
    x = alt.X(
        "x:Q",
        title=f"Change on the target ({settings.metric or 'points'})",
        scale=alt.Scale(domain=across, nice=False),
        axis=alt.Axis(tickCount=8),
    )
    y = alt.Y(
        "y:Q",
        title="Accuracy kept on the source sets (% of the base's)",
        scale=alt.Scale(domain=[up[0], top], nice=False),
        axis=alt.Axis(values=ticks, domain=False),
    )
    colour, shape = groups.colour(present), groups.shape(present)
    shown = ["group", "label", *_AXES]
    bars = alt.Chart(inline(means, ["group", *_AXES]), name=f"bars_{settings.place}").encode(
        colour, opacity=highlight_opacity(0.25 if len(means) > _FEW else 0.6)
    )
    layers: list[alt.Chart] = [
        alt.Chart(alt.InlineData(values=[{"x": 0}])).mark_rule(style=GUIDE).encode(x=x),
        alt.Chart(alt.InlineData(values=[{"y": 100}])).mark_rule(style=GUIDE).encode(y=y),
        alt.Chart(inline(front, ["x", "y"]))
        .mark_line(style=HOLLOW, interpolate="step-before", strokeWidth=1.2, opacity=0.7)
        .encode(x, y, order="x:Q"),
        bars.mark_rule(strokeWidth=1).encode(x, y="y_low:Q", y2="y_high:Q"),
        alt.Chart(inline(means, ["group", *_AXES]))
        .mark_rule(strokeWidth=1)
        .encode(colour, y=y, x="x_low:Q", x2="x_high:Q", opacity=bars.encoding.opacity),
    ]
    variant = means["variant"] != ""
    kinds = [
        (seeds[seeds["label"].isin(means.loc[means["n_seeds"] > 1, "label"])], [*shown, "seed"], True, 18, 0.35),
        (means[variant], [*shown, "n_seeds"], False, 90, 0.9),
        (means[~variant], [*shown, "n_seeds"], True, 90, 0.9),
    ]
    for rows, columns, filled, size, opacity in kinds:
        if len(rows):
            layers.append(
                alt.Chart(inline(rows, columns))
                .mark_point(filled=filled, size=size, strokeWidth=1.8)
                .encode(
                    x,
                    y,
                    colour,
                    shape,
                    opacity=highlight_opacity(opacity),
                    tooltip=_tooltip(columns[-1], settings.metric),
                )
            )
    if settings.place == 0:
        layers[3] = layers[3].add_params(legend_selection())
    names = _names(front, across, up)
    return layered(*layers, *names, title=settings.title, height=_HEIGHT + room)


def _tooltip(last: str, metric: str) -> list[alt.Tooltip]:
    numbers = [
        alt.Tooltip(f"{name}:Q", title=title.replace("points", metric or "points"), format=form)
        for name, title in _TITLES.items()
        for form in [".2f" if metric and name in _ACROSS else ".1f"]
    ]
    return [alt.Tooltip("label:N", title="recipe"), alt.Tooltip(f"{last}:Q", title=last.removeprefix("n_")), *numbers]


def _range(means: pd.DataFrame, seeds: pd.DataFrame, axis: str, guide: float) -> tuple[float, float]:
    """From the lowest to the highest point, bar or guide, and a little more."""
    both = pd.concat([means, seeds[[axis]]])
    low, high = extent(both, [axis, f"{axis}_low", f"{axis}_high"], guide)
    margin = 0.04 * (high - low or 1.0)
    return round(low - margin, 3), round(high + margin, 3)


def _names(front: pd.DataFrame, across: tuple[float, float], up: tuple[float, float]) -> list[alt.Chart]:
    """The front's points by name, in the space above all points; too narrow a page leaves that to the tooltips."""
    front = front.iloc[:: math.ceil(len(front) / _MOST_NAMES)]
    per_pixel = (across[1] - across[0]) / _WIDTH
    starts = space_apart(
        list(front["x"]), APART * per_pixel, across[0], across[1] - label_height(list(front["label"])[-1:]) * per_pixel
    )
    rows = front[["x", "y", "label"]].assign(name_x=starts, name_y=up[1])
    names = alt.Chart(inline(rows, ["x", "y", "label", "name_x", "name_y"]))
    shown = alt.expr(f"width < {_NARROW} ? 0 : 1")
    faint = alt.expr(f"width < {_NARROW} ? 0 : 0.5")
    return [
        names.mark_rule(style=INK, strokeWidth=0.7, opacity=faint).encode(x="x:Q", y="y:Q", x2="name_x", y2="name_y"),
        names.mark_text(style=INK, angle=ANGLE % 360, align="left", baseline="middle", dx=4, opacity=shown).encode(
            x="name_x:Q", y="name_y:Q", text="label:N"
        ),
    ]

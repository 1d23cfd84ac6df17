"""Picture tokens of checkpoints: effective rank and drift by layer."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from forgetbench.reporting.charts.figure import GUIDE, Figure, layered, panels
from forgetbench.reporting.charts.groups import SHAPES, Groups, highlight_opacity, legend_selection
from forgetbench.reporting.charts.rows import (
    base_rows,
    inline,
    last_steps,
    over_seeds,
    seed_means,
    with_text,
)
from forgetbench.reporting.contents import ReportTables
from forgetbench.tables.last import last_stage

_RANK, _DRIFT = "effective_rank", "visual_drift_l1"
_RANK_TITLE, _DRIFT_TITLE = "Effective rank (directions)", "Visual drift (L1 per token)"
_RAMP = ("#6e96c2", "#2d5ed4", "#9079fe", "#965a9c", "#cb3904", "#e57431")
"""Early to late; light enough for a dark page and dark enough for a white one."""
_HEIGHT = 200


def effective_rank(tables: ReportTables, groups: Groups) -> Figure | None:
    """By step and layer for one run, by layer and recipe for several; None without measurements after training."""
    rows = checkpoint_rows(tables.representation, groups, _RANK)
    if rows.empty or not (rows["step"] > 0).any():
        return None
    if rows["run"].nunique() == 1:
        charts = [_by_step(rows[rows["dataset"] == name]) for name in _datasets(rows)]
        description, legend = "over training, a line per layer", 60
    else:
        charts = _by_recipe(rows, _RANK, _RANK_TITLE, groups)
        description, legend = _comparison_text(rows, _RANK) + ", the base dashed", groups.legend_width(rows["group"])
    return Figure(
        "effective_rank",
        "Effective rank of the picture tokens",
        f"In how many directions a picture's tokens differ, {description}; without intervals (representation.csv).",
        f"Lines: the effective rank on {', '.join(_datasets(rows))} of {rows['run'].nunique()} runs.",
        panels(charts, 3, beside=62, legend=legend),
    )


def drift(tables: ReportTables, groups: Groups) -> Figure | None:
    """By layer, a line per checkpoint of one run or per recipe; None without measurements after training."""
    rows = checkpoint_rows(tables.representation, groups, _DRIFT)
    if rows.empty or not (rows["step"] > 0).any():
        return None
    if rows["run"].nunique() == 1:
        charts = [_by_layer(rows[rows["dataset"] == name]) for name in _datasets(rows)]
        description, legend = "a line per checkpoint", 150
    else:
        charts = _by_recipe(rows, _DRIFT, _DRIFT_TITLE, groups)
        description, legend = _comparison_text(rows, _DRIFT), groups.legend_width(rows["group"])
    return Figure(
        "visual_drift",
        "Drift of the picture tokens",
        f"L1 distance of hidden states at picture tokens from the base's, by layer, {description}; without intervals. "
        "Compare checkpoints within one layer (representation.csv).",
        f"Lines: the drift from the base on {', '.join(_datasets(rows))} of {rows['run'].nunique()} runs.",
        panels(charts, 3, beside=62, legend=legend),
    )


def checkpoint_rows(representation: pd.DataFrame, groups: Groups, value: str, place: str = "layer") -> pd.DataFrame:
    """Rows of checkpoints as trained that have a value at a layer (or part)."""
    if representation.empty or not {"recipe", "run", "step", "variant", value, place} <= set(representation):
        return representation.iloc[:0]
    rows = with_text(representation)
    # Hidden states and weights know no target: the base's rows are the base of every stage.
    rows = rows[rows.index.isin(last_stage(rows).index) | (rows["step"] == 0)]
    rows = rows[(rows["variant"] == "") & rows[value].notna() & rows[place].notna() & (rows[place] != "")]
    return groups.with_columns(rows) if len(rows) else rows


def _datasets(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows["dataset"].drop_duplicates()]


def recipe_means(rows: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """Every recipe's last checkpoint, mean over seeds."""
    return seed_means(last_steps(rows), ["label", "group", *keys], [value])


def _comparison_text(rows: pd.DataFrame, value: str) -> str:
    return "at each recipe's last checkpoint" + over_seeds(recipe_means(rows, ["layer"], value)["n_seeds"])


def _layer_axis() -> alt.X:
    return alt.X("layer:Q", title="Layer", axis=alt.Axis(tickMinStep=1, grid=False), scale=alt.Scale(padding=8))


def _by_recipe(rows: pd.DataFrame, value: str, title: str, groups: Groups) -> list[alt.LayerChart]:
    means = recipe_means(rows, ["dataset", "layer"], value)
    base = base_rows(rows).drop_duplicates(["dataset", "layer"]) if value == _RANK else rows.iloc[:0]
    present = set(means["group"])
    charts = []
    for place, name in enumerate(_datasets(rows)):
        dataset_means = means[means["dataset"] == name]
        y = alt.Y(f"{value}:Q", title=title, scale=alt.Scale(zero=value == _DRIFT, nice=False, padding=8))
        lines = alt.Chart(inline(dataset_means, ["group", "label", "layer", value]), name=f"lines_{place}").encode(
            _layer_axis(), y, groups.colour(present), detail="label:N"
        )
        drawn = lines.mark_line(strokeWidth=1.2).encode(opacity=highlight_opacity(0.6))
        points = alt.Chart(inline(dataset_means, ["group", "label", "layer", value])).mark_point(filled=True, size=34)
        tooltip = [
            alt.Tooltip("label:N", title="recipe"),
            alt.Tooltip("layer:Q"),
            alt.Tooltip(f"{value}:Q", title=title.lower(), format=".2f"),
        ]
        layers = [
            drawn.add_params(legend_selection()) if place == 0 else drawn,
            points.encode(
                _layer_axis(),
                y,
                groups.colour(present),
                groups.shape(present),
                opacity=highlight_opacity(0.9),
                tooltip=tooltip,
            ),
        ]
        reference = base[base["dataset"] == name]
        if len(reference):
            untouched = alt.Chart(inline(reference.assign(label="base"), ["label", "layer", value]))
            layers.append(
                untouched.mark_line(style=GUIDE, strokeWidth=1.6, opacity=0.8).encode(_layer_axis(), y, tooltip=tooltip)
            )
        charts.append(layered(*layers, title=name, height=_HEIGHT))
    return charts


def _by_step(rows: pd.DataFrame) -> alt.LayerChart:
    """One dataset's effective rank in one run."""
    layers = sorted({int(layer) for layer in rows["layer"]})
    last = max(1, len(layers) - 1)
    colours = [_RAMP[round(place * (len(_RAMP) - 1) / last)] for place in range(len(layers))]
    scale = alt.Scale(domain=layers, range=colours)
    shapes = alt.Scale(domain=layers, range=[SHAPES[place % len(SHAPES)] for place in range(len(layers))])
    data = inline(rows, ["step", "layer", _RANK])
    x = alt.X("step:Q", title="Step")
    y = alt.Y(f"{_RANK}:Q", title=_RANK_TITLE, scale=alt.Scale(zero=False, nice=False, padding=8))
    colour = alt.Color("layer:N", title="Layer", scale=scale)
    tooltip = ["layer:N", "step:Q", alt.Tooltip(f"{_RANK}:Q", title="effective rank", format=".2f")]
    return layered(
        alt.Chart(data).mark_line(strokeWidth=1.4).encode(x, y, colour),
        alt.Chart(data)
        .mark_point(filled=True, size=22, opacity=1)
        .encode(x, y, colour, alt.Shape("layer:N", title="Layer", scale=shapes), tooltip=tooltip),
        title=str(rows["dataset"].iloc[0]),
        height=_HEIGHT,
    )


def _by_layer(rows: pd.DataFrame) -> alt.LayerChart:
    """One dataset's drift in one run."""
    trained = rows[rows["step"] > 0]
    data = inline(trained, ["step", "layer", _DRIFT])
    x = _layer_axis()
    y = alt.Y(f"{_DRIFT}:Q", title=_DRIFT_TITLE)
    colour = alt.Color(
        "step:Q",
        title="Step",
        scale=alt.Scale(range=list(_RAMP), interpolate="lab"),
        legend=alt.Legend(gradientLength=180),
    )
    tooltip = ["step:Q", "layer:Q", alt.Tooltip(f"{_DRIFT}:Q", title="visual drift", format=".1f")]
    return layered(
        alt.Chart(data).mark_line(strokeWidth=1.3, opacity=0.8).encode(x, y, colour, detail="step:Q"),
        alt.Chart(data).mark_point(filled=True, size=20, opacity=0.9).encode(x, y, colour, tooltip=tooltip),
        title=str(rows["dataset"].iloc[0]),
        height=_HEIGHT,
    )

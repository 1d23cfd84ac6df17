"""The training loss over steps, and of a single recipe the learning rate."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd

from forgetbench.reporting.charts.figure import GUIDE, Figure, layered, panels
from forgetbench.reporting.charts.groups import PALETTE, Groups, highlight_opacity, legend_selection
from forgetbench.reporting.charts.rows import inline
from forgetbench.reporting.contents import ReportTables

_MOST_POINTS = 2500
"""In the whole figure; neighbouring steps are averaged into one point until it has no more."""
_FEW = 4
"""Number of runs whose unsmoothed lines can still be distinguished."""
_RATE = "lr_"


def figure(tables: ReportTables, groups: Groups) -> Figure | None:
    """A line per run; None if no run was trained."""
    train = tables.train
    if train.empty or not {"run", "recipe", "step", "loss"} <= set(train):
        return None
    train = train[train["loss"].notna()]
    if train.empty:
        return None
    n_steps, n_runs = int(train.groupby("run").size().max()), train["run"].nunique()
    bin_size = max(math.ceil(len(train) / _MOST_POINTS), math.ceil(n_steps / (240 if n_runs <= _FEW else 60)))
    rows = groups.with_columns(_averaged(train, bin_size))
    charts = [_loss(rows, train, groups)]
    rates = _rates(train)
    if train["recipe"].nunique() == 1 and len(rates):
        charts.append(_learning_rate(rates))
    caption = (
        "Training loss over optimiser steps, a line per run"
        f"{f', each point the mean of {bin_size} steps' * (bin_size > 1)}"
        f"{', and the learning rate of each part' * (len(charts) > 1)} (train.csv)."
    )
    return Figure(
        "training",
        "Training",
        caption,
        f"Lines: the training loss of {train['run'].nunique()} runs over {int(train['step'].max())} steps.",
        panels(charts, 2, beside=96, legend=groups.legend_width(rows["group"]), shares_legend=False),
    )


def _averaged(train: pd.DataFrame, bin_size: int) -> pd.DataFrame:
    bins = (train["step"].astype(int) - 1) // bin_size
    grouped = train.assign(bin=bins).groupby(["run", "recipe", "bin"], sort=True)
    return grouped.agg(step=("step", "mean"), loss=("loss", "mean")).reset_index()


def _loss(rows: pd.DataFrame, train: pd.DataFrame, groups: Groups) -> alt.LayerChart:
    # Runs by number: their names would be most of the figure's size.
    rows = rows.assign(line=rows["run"].map({run: place for place, run in enumerate(sorted(set(rows["run"])))}))
    lines = alt.Chart(inline(rows, ["group", "label", "line", "step", "loss"]), name="loss_lines")
    drawn = lines.mark_line(strokeWidth=1.2).encode(
        alt.X("step:Q", title="Step"),
        alt.Y("loss:Q", title="Training loss"),
        groups.colour(set(rows["group"])),
        groups.dash(set(rows["group"])),
        detail="line:N",
        opacity=highlight_opacity(0.85 if rows["run"].nunique() <= 8 else 0.5),
        tooltip=[
            alt.Tooltip("label:N", title="recipe"),
            alt.Tooltip("step:Q", format=".0f"),
            alt.Tooltip("loss:Q", format=".4g"),
        ],
    )
    layers: list[alt.Chart] = [drawn.add_params(legend_selection())]
    starts = _stage_starts(train)
    if starts:
        stages = alt.Chart(alt.InlineData(values=[{"step": start} for start in starts]))
        layers.append(stages.mark_rule(style=GUIDE).encode(x="step:Q"))
    return layered(*layers, height=240)


def _stage_starts(train: pd.DataFrame) -> list[float]:
    """Where the later stages begin, if all runs agree."""
    if "stage" not in train or train["stage"].nunique() < 2:
        return []
    firsts = train.groupby(["run", "stage"])["step"].min().groupby("stage").agg(["min", "max"]).iloc[1:]
    return [float(low) - 0.5 for low, high in firsts.itertuples(index=False) if low == high]


def _rates(train: pd.DataFrame) -> pd.DataFrame:
    """A row per step and part of one run: seeds share their schedule."""
    names = [name for name in train if str(name).startswith(_RATE)]
    first = train[train["run"] == train["run"].min()]
    rates: pd.DataFrame = first.melt(["step"], names, "part", "rate").dropna()
    step_interval = max(1, math.ceil(len(rates) / 400))
    rates = rates.assign(part=rates["part"].str.removeprefix(_RATE))
    return rates[(rates["step"] % step_interval == 0) | (rates["step"] == 1)]


def _learning_rate(rates: pd.DataFrame) -> alt.LayerChart:
    parts = sorted(set(rates["part"]))
    colour = alt.Color(
        "part:N",
        title="Part",
        scale=alt.Scale(domain=parts, range=[PALETTE[place % len(PALETTE)] for place in range(len(parts))]),
    )
    lines = alt.Chart(inline(rates, ["part", "step", "rate"])).mark_line(strokeWidth=1.5)
    return layered(
        lines.encode(
            alt.X("step:Q", title="Step"),
            alt.Y("rate:Q", title="Learning rate", axis=alt.Axis(format="~e")),
            colour,
            strokeDash=alt.StrokeDash("part:N", title="Part", scale=alt.Scale(domain=parts)),
            tooltip=["part:N", "step:Q", "rate:Q"],
        ),
        height=240,
    )

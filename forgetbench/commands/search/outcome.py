"""What a search leaves: search.csv with every point, front.csv with the tested ones, a figure, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table

from forgetbench.commands.search.objectives import Objectives, ObjectiveSets, Value
from forgetbench.commands.search.study import Point, Study, pareto_points
from forgetbench.config import SweepConfig
from forgetbench.config.space import Dimension, every_dimension
from forgetbench.core.records import QUADRANTS
from forgetbench.reporting.commands import training_command
from forgetbench.runs.run import read_run
from forgetbench.tables.scores import write_csv
from forgetbench.terminal.console import console, say

POINTS, FRONT = "search.csv", "front.csv"
_OBJECTIVES = ("target", "retention")


def write_outcome(
    folder: Path, config: SweepConfig, space: Sequence[Dimension], study: Study, sets: ObjectiveSets
) -> None:
    """Write the tables and the figure of a search, and say what it found and cost.

    Args:
        folder: the sweep's.
        config: what all points share.
        space: what was searched.
        study: all that is known of the points.
        sets: what was measured.
    """
    points = study.points()
    keys = list(dict.fromkeys(dimension.key for dimension in every_dimension(space)))
    front = sorted(pareto_points(points), key=lambda point: point.rungs[-1].objectives.pair)
    table = pd.DataFrame([_row(point, keys) for point in points]).astype({"steps": "Int64", "step": "Int64"})
    tested = pd.DataFrame([_front_row(point, keys, folder) for point in front])
    write_csv(table, folder / POINTS)
    write_csv(tested, folder / FRONT)
    _draw(table, tested, folder)
    if front:
        console.print(_front_table(front, sets))
        for point in front:
            say(f"point {point.number}: {_command(folder, point)}")
    say(_cost(points, study, config))
    say(f"{folder}: {POINTS}, {FRONT}, figures/search.svg")


def _row(point: Point, keys: Sequence[str]) -> dict[str, Any]:
    last = point.rungs[-1] if point.rungs else None
    end = point.end
    return {
        "point": point.number,
        "generation": point.generation,
        "end": end.how if end else "",
        "why": end.why if end else "",
        "folder": point.folder,
        **_searched_values(point, keys),
        "steps": point.steps or None,
        "trained": point.trained,
        "step": last.step if last else None,
        **_numbers(last.objectives if last else None, ""),
        "overrides": " ".join(point.overrides),
    }


def _front_row(point: Point, keys: Sequence[str], folder: Path) -> dict[str, Any]:
    assert point.test is not None
    return {
        "point": point.number,
        "folder": point.folder,
        **_searched_values(point, keys),
        "steps": point.steps,
        **_numbers(point.rungs[-1].objectives, "validation_"),
        **_numbers(point.test, "test_"),
        "command": _command(folder, point),
    }


def _searched_values(point: Point, keys: Sequence[str]) -> dict[str, str | None]:
    values = dict(override.split("=", 1) for override in point.overrides)
    return {key: values.get(key) for key in keys}


def _numbers(objectives: Objectives | None, prefix: str) -> dict[str, float | None]:
    """Both objectives with their intervals, the base's accuracy, and every quadrant's change."""
    by_objective: Mapping[str, Value | None] = {
        name: getattr(objectives, name) if objectives else None for name in _OBJECTIVES
    }
    quadrants = {name: objectives.quadrants.get(name) if objectives else None for name in QUADRANTS[1:]}
    columns: dict[str, float | None] = {}
    for name, value in {**by_objective, **quadrants}.items():
        columns[f"{prefix}{name}"] = value.value if value else None
        columns[f"{prefix}{name}_ci_low"] = value.low if value else None
        columns[f"{prefix}{name}_ci_high"] = value.high if value else None
        if name == "target":
            columns[f"{prefix}target_base"] = objectives.target_base if objectives else None
    return columns


def _command(folder: Path, point: Point) -> str:
    """The line that trains a point again."""
    run = read_run(folder / point.folder)
    return training_command(f"{folder.name}-point{point.number}", run.settings)


def _draw(table: pd.DataFrame, tested: pd.DataFrame, folder: Path) -> None:
    from forgetbench.reporting.charts.search import figure
    from forgetbench.reporting.static_figures import save_figure

    if drawn := figure(table, tested):
        save_figure(drawn, folder / "figures")


def _front_table(front: Sequence[Point], sets: ObjectiveSets) -> Table:
    base = front[0].rungs[-1].objectives.target_base
    table = Table(box=box.SIMPLE_HEAD, title="Pareto front of the search", title_justify="left")
    for name in ("point", "target, %", f"{sets.retention} of the other quadrants", "target, %", "the same"):
        table.add_column(name, justify="left" if name == "point" else "right")
    table.add_row("", "validation", "validation", "test", "test")
    table.add_row(
        "base", f"{100 * base:.1f}", "", f"{100 * front[0].test.target_base:.1f}" if front[0].test else "", ""
    )
    for point in front:
        objectives = point.rungs[-1].objectives
        both = [
            text
            for measured in (objectives, point.test)
            for text in (_percent(measured, "target"), _percent(measured, "retention"))
        ]
        table.add_row(f"{point.number}: {' '.join(point.overrides)}", *both)
    return table


def _percent(objectives: Objectives | None, name: str) -> str:
    if objectives is None:
        return ""
    value: Value = getattr(objectives, name)
    sign = "+" if name == "retention" else ""
    half = "" if value.low is None or value.high is None else f" +/- {50 * (value.high - value.low):.1f}"
    return f"{100 * value.value:{sign}.1f}{half}"


def _cost(points: Sequence[Point], study: Study, config: SweepConfig) -> str:
    ends = Counter(f"{point.end.how} {point.end.why}".strip() for point in points if point.end and point.trained)
    end_counts = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    budget = f" of {config.search.steps}" if config.search.steps else ""
    steps = sum(point.trained for point in points)
    full_steps = sum(point.steps for point in points if point.trained)
    return (
        f"search: {steps} steps{budget} in {study.seconds / 3600:.2f} hours; to train every point whole would have "
        f"taken {full_steps}. {end_counts}."
    )

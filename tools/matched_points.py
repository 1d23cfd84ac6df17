"""Points of finished sweeps at matched steps: their scores at the last step, the rate that validation chooses, cells.

What `tools.methods_result` and `tools.modules_result` share; nothing here is run by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from forgetbench.core.records import QUADRANTS

TARGET, VALIDATION, PROBE = "fashion_naming", "fashion_naming_validation", "fashion_probe"
OFF_TARGET = QUADRANTS[1:]
SEEDS = (0, 1, 2)
HEADINGS = ("ID text, OOD image", "OOD text, ID image", "OOD text, OOD image")
MEASURED = ("target", "others", *OFF_TARGET, "probe")
_MARKERS = "osD^"

Label = Callable[[str, str, pd.DataFrame], str]
"""Label of a row, from the run's name, the variant and the row's cells."""


def load(folders: Sequence[Path], label: Label) -> pd.DataFrame:
    """One row per run and variant at its last step: target, validation, quadrants, probe; and their bases."""
    paths = sorted(path for folder in folders for path in folder.glob("*/scores.csv"))
    scores = pd.concat([read(path) for path in paths], ignore_index=True)
    scores = scores[(scores["metric"] == "accuracy") & (scores["decoding"] == "choice")]
    last = scores[(scores["step"] > 0) & (scores["step"] == scores.groupby("run")["step"].transform("max"))]
    rows = []
    for (run, variant), cells in last.groupby(["run", "variant"]):
        row = {"run": run, "label": label(str(run), str(variant), cells), "lr": float(cells["lr"].iloc[0])}
        row["seed"] = int(cells["seed"].iloc[0])
        by_set = cells.set_index("dataset")
        for name, dataset in (("target", TARGET), ("validation", VALIDATION), ("probe", PROBE)):
            row |= {name: by_set.loc[dataset, "value"], f"{name}_base": by_set.loc[dataset, "base_value"]}
        sources = cells[cells["quadrant"].isin(OFF_TARGET) & (cells["dataset"] != PROBE)]
        means = sources.groupby("quadrant")[["value", "base_value"]].mean()
        for quadrant in OFF_TARGET:
            row |= {quadrant: means.loc[quadrant, "value"], f"{quadrant}_base": means.loc[quadrant, "base_value"]}
        row |= {"others": means["value"].mean(), "others_base": means["base_value"].mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def read(path: Path) -> pd.DataFrame:
    """A table; the variant of a checkpoint as trained is empty text."""
    return pd.read_csv(path, dtype={"variant": str}).fillna({"variant": ""})


def choose(points: pd.DataFrame) -> dict[str, float]:
    """The rate with the best validation accuracy at seed 0, by label; of equals the lower."""
    first = points[points["seed"] == 0].sort_values(["label", "validation", "lr"], ascending=[True, False, True])
    return {str(label): float(rows["lr"].iloc[0]) for label, rows in first.groupby("label")}


def order(rows: pd.DataFrame) -> list[str]:
    """Labels, those that keep most of the other quadrants first."""
    means = rows.groupby("label")["others"].mean().sort_values(ascending=False)
    return [str(label) for label in means.index]


def cell(rows: pd.DataFrame, name: str) -> str:
    """Mean over seeds and, in brackets, the change from the base with the standard deviation between seeds."""
    change = (rows[name] - rows[f"{name}_base"]) * 100
    spread = f" ± {change.std():.1f}" if len(change) > 1 else ""
    return f"{rows[name].mean() * 100:.1f} ({change.mean():+.1f}{spread})"


def half_widths(folders: Sequence[Path]) -> list[float]:
    """Median half width, over runs, of the 95 % intervals of the target's and the sources' change: over items."""
    paths = sorted(path for folder in folders for path in folder.glob("*/summary.csv"))
    summary = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    widths = [summary[f"{side}_delta_ci_high"] - summary[f"{side}_delta_ci_low"] for side in ("target", "source")]
    return [float(width.median()) * 50 for width in widths]


def rate_grid(points: pd.DataFrame, chosen: Mapping[str, float], heading: str) -> str:
    """Every rate at seed 0: validation and others."""
    rates = sorted(points["lr"].unique())
    lines = [f"| {heading} | {' | '.join(f'{lr:g}' for lr in rates)} |", "|---|" + "---|" * len(rates)]
    first = points[points["seed"] == 0]
    for label in sorted(chosen):
        cells = []
        for lr in rates:
            row = first[(first["label"] == label) & (first["lr"] == lr)]
            shown = "" if row.empty else f"{row['validation'].iloc[0] * 100:.1f} / {row['others'].iloc[0] * 100:.1f}"
            cells.append(f"**{shown}**" if shown and lr == chosen[label] else shown)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    head = "Validation accuracy / others at seed 0, by learning rate; the chosen rate in bold."
    return "\n".join(["## The learning rates", "", head, "", *lines])


def print_lacking(points: pd.DataFrame, chosen: Mapping[str, float]) -> None:
    """A line per label: the chosen rate, and the seeds that are still to run at it."""
    for label, lr in chosen.items():
        rows = points[(points["label"] == label) & (points["lr"] == lr)]
        lacking = sorted(set(SEEDS) - set(rows["seed"]))
        print(f"{label}\t{lr:g}\t{','.join(map(str, lacking)) or 'complete'}")


def base_line(points: pd.DataFrame, columns: int) -> str:
    """The table's row of the base, with empty cells in front of the measures."""
    base = points.iloc[0]
    cells = " | ".join(f"{base[f'{name}_base'] * 100:.1f}" for name in MEASURED)
    return "| base " + "| " * columns + f"| {cells} |"


def draw_points(panel: Any, rows: pd.DataFrame, name: Callable[[pd.DataFrame, str], pd.Series]) -> None:
    """A point per label, with bars of the standard deviation between seeds.

    Args:
        panel: of matplotlib.
        rows: runs at their chosen rates.
        name: values of `target` or of `others`, from the rows of a label.
    """
    for number, label in enumerate(order(rows)):
        label_rows = rows[rows["label"] == label]
        x, y, look = name(label_rows, "target"), name(label_rows, "others"), _MARKERS[number // 10]
        bars = {"xerr": x.std(), "yerr": y.std(), "elinewidth": 0.7}
        panel.errorbar(x.mean(), y.mean(), fmt=look, ms=6, color=f"C{number % 10}", label=label, **bars)
    panel.grid(alpha=0.3)


def new_figure() -> tuple[Any, Any]:
    """A figure with two panels, which is written as the same bytes every time."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "forgetbench"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11.5, 5.5), layout="constrained")
    return figure, panels

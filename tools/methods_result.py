"""Compare the methods of finished sweeps: choose each one's learning rate by validation, write tables and a figure.

folders="outputs/methods outputs/methods_data outputs/methods_fp32"
python -m tools.methods_result $folders --choose     # lists what is still to run
python -m tools.methods_result $folders              # writes docs/results/methods.md and .svg
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tools.matched_points import (
    HEADINGS,
    MEASURED,
    SEEDS,
    TARGET,
    VALIDATION,
    base_line,
    cell,
    choose,
    draw_points,
    half_widths,
    load,
    new_figure,
    order,
    print_lacking,
    rate_grid,
    read,
)

OUT = Path(__file__).resolve().parents[1] / "docs/results/methods.md"


def main() -> None:
    """Write the page, or list the points that it lacks."""
    folders = [Path(word) for word in sys.argv[1:] if not word.startswith("--")]
    points = load(folders, _label)
    chosen = choose(points)
    if "--choose" in sys.argv:
        print_lacking(points, chosen)
        return
    rows = _shown(points, chosen)
    text = "\n\n".join(
        [
            "# Methods on the embedded world",
            _intro(points),
            "![Target against the other quadrants](methods.svg)",
            _scores(rows, points, half_widths(folders)),
            _representation(folders, rows),
            rate_grid(points, chosen, "method"),
        ]
    )
    OUT.write_text(text + "\n", "utf-8")
    _draw(rows, OUT.with_suffix(".svg"))
    print(text)


def _label(run: str, variant: str, cells: pd.DataFrame) -> str:
    """Label of a row: the method, or the recipe where recipes differ."""
    if variant:
        return variant
    if recipe := re.search(r"(?:^|--)recipe-(?:methods_)?(\w+)", run):
        return recipe[1]
    if "recipe.precision-fp32" in run:
        return "plain in fp32"
    return str(cells["method"].iloc[0])


def _shown(points: pd.DataFrame, chosen: Mapping[str, float]) -> pd.DataFrame:
    """Every method at its chosen rate, and plain fine-tuning at the other rates too, where it has all seeds."""
    is_chosen = points["lr"] == points["label"].map(chosen)
    others = points[(points["label"] == "plain") & ~is_chosen]
    others = others[others.groupby("lr")["seed"].transform("nunique") == len(SEEDS)]
    others = others.assign(label=[f"plain at {lr:g}" for lr in others["lr"]])
    return pd.concat([points[is_chosen], others], ignore_index=True)


def _intro(points: pd.DataFrame) -> str:
    rates = ", ".join(f"{lr:g}" for lr in sorted(points["lr"].unique()))
    return (
        "Made from `sweep=methods` and `sweep=methods_data` (every rate at seed 0, further seeds at the chosen one) "
        "and the operations after training on the plain runs, by `python -m tools.methods_result`; docs/methods.md has "
        "the commands and says in words what is seen here. "
        f"Target `{TARGET}`, the whole language part, 120 steps of 32, likelihood over the options. Every method's "
        f"learning rate is the one of {rates} with the best accuracy on `{VALIDATION}` at seed 0; its other settings "
        "are their defaults; `mdgd` and `mdgd_gm` compute in fp32 by default, the others in bf16 (`plain in fp32` is a "
        "control at one rate). Percentages: means over seeds and, in brackets, the change from the base plus or minus "
        "the standard deviation between seeds. "
        '"Others" is the mean of the three quadrants beside the target quadrant.'
    )


def _scores(rows: pd.DataFrame, points: pd.DataFrame, widths: Sequence[float]) -> str:
    lines = [
        f"| method | lr | seeds | target | others | {' | '.join(HEADINGS)} | probe |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines.append(base_line(points, 2))
    for label in order(rows):
        label_rows = rows[rows["label"] == label]
        cells = " | ".join(cell(label_rows, name) for name in MEASURED)
        lines.append(f"| {label} | {label_rows['lr'].iloc[0]:g} | {len(label_rows)} | {cells} |")
    lines.append(f"| half width in a run | | | {' | '.join(f'{width:.1f}' for width in widths)} | | | | |")
    head = (
        "The last row has the median half width of the 95 % intervals over the items of one run: seeds share the "
        "items, so that it does not shrink with their number."
    )
    return "\n".join(["## Target and the other quadrants", "", head, "", *lines])


def _representation(folders: Sequence[Path], rows: pd.DataFrame) -> str:
    """Hidden states at picture tokens, last layer, and the distance of the weights."""
    paths = sorted(path for folder in folders for path in folder.glob("*/representation.csv"))
    measured = pd.concat([read(path) for path in paths], ignore_index=True)
    measured = measured[measured["step"] == measured.groupby("run")["step"].transform("max")]
    lines = [
        "| method | effective rank, target's pictures | effective rank, digits | drift, target's pictures "
        "| CKA, digits | relative distance of weights, % | changed weights, % |",
        "|---|---|---|---|---|---|---|",
    ]
    base = pd.read_csv(paths[0])
    last = base["layer"].max()
    base = base[(base["step"] == 0) & (base["layer"] == last)].set_index("dataset")["effective_rank"]
    lines.append(f"| base | {base[TARGET]:.2f} | {base['digits_naming']:.2f} | 0 | 1 | 0 | 0 |")
    variants = set(measured["variant"])
    for label in order(rows):
        runs = rows[rows["label"] == label]["run"]
        measured_of_label = measured[
            measured["run"].isin(runs) & (measured["variant"] == (label if label in variants else ""))
        ]
        states, weights = (
            measured_of_label[measured_of_label["layer"] == last],
            measured_of_label[measured_of_label["part"] == "language"],
        )
        target, digits = states[states["dataset"] == TARGET], states[states["dataset"] == "digits_naming"]
        lines.append(
            f"| {label} | {target['effective_rank'].mean():.2f} | {digits['effective_rank'].mean():.2f} "
            f"| {target['visual_drift_l1'].mean():.1f} | {digits['linear_cka'].mean():.3f} "
            f"| {weights['relative_distance'].mean() * 100:.1f} | {weights['changed_share'].mean() * 100:.1f} |"
        )
    head = "At picture tokens of the last layer, 64 pictures a set, means over seeds; weights of the language part."
    return "\n".join(["## Representations", "", head, "", *lines])


def _draw(rows: pd.DataFrame, path: Path) -> None:
    """Target against the other quadrants: a point per method, bars are the standard deviation between seeds."""
    figure, panels = new_figure()
    start = (rows["target_base"].iloc[0] * 100, rows["others_base"].iloc[0] * 100)
    for panel in panels:
        panel.plot(*start, "k*", markersize=13, label="base")
        draw_points(panel, rows, lambda label_rows, name: label_rows[name] * 100)
        panel.set_xlabel("accuracy on the target, %")
    panels[0].set_ylabel("mean of the other quadrants, %")
    near = rows.groupby("label")[["target", "others"]].mean() * 100
    near = near[near["others"] > near["others"].median() - 5]
    panels[1].set_xlim(near["target"].min() - 1.5, near["target"].max() + 4)
    panels[1].set_ylim(near["others"].min() - 1, start[1] + 1)
    panels[1].set_title("the same, nearer", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()

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

from forgetbench.core.records import QUADRANTS

OUT = Path(__file__).resolve().parents[1] / "docs/results/methods.md"
TARGET, VALIDATION, PROBE = "fashion_naming", "fashion_naming_validation", "fashion_probe"
OFF_TARGET = QUADRANTS[1:]
SEEDS = (0, 1, 2)
_MARKERS = "osD^"
HEADINGS = ("ID text, OOD image", "OOD text, ID image", "OOD text, OOD image")


def main() -> None:
    """Write the page, or list the points that it lacks."""
    folders = [Path(word) for word in sys.argv[1:] if not word.startswith("--")]
    points = load(folders)
    chosen = choose(points)
    if "--choose" in sys.argv:
        for method, lr in chosen.items():
            found = points[(points["label"] == method) & (points["lr"] == lr)]
            lacking = sorted(set(SEEDS) - set(found["seed"]))
            print(f"{method}\t{lr:g}\t{','.join(map(str, lacking)) or 'complete'}")
        return
    rows = _shown(points, chosen)
    text = "\n\n".join(
        [
            "# Methods on the embedded world",
            _intro(points),
            "![Target against the other quadrants](methods.svg)",
            _scores(rows, points, _half_widths(folders)),
            _representation(folders, rows),
            _grid(points, chosen),
        ]
    )
    OUT.write_text(text + "\n", "utf-8")
    _draw(rows, OUT.with_suffix(".svg"))
    print(text)


def load(folders: Sequence[Path]) -> pd.DataFrame:
    """One row per run and variant at its last step: target, validation, quadrants, probe; and their bases."""
    paths = sorted(path for folder in folders for path in folder.glob("*/scores.csv"))
    scores = pd.concat([_read(path) for path in paths], ignore_index=True)
    scores = scores[(scores["metric"] == "accuracy") & (scores["decoding"] == "choice")]
    last = scores[(scores["step"] > 0) & (scores["step"] == scores.groupby("run")["step"].transform("max"))]
    rows = []
    for (run, variant), cells in last.groupby(["run", "variant"]):
        row = {"run": run, "label": _label(run, variant, cells), "lr": float(cells["lr"].iloc[0])}
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


def _read(path: Path) -> pd.DataFrame:
    """A table; the variant of a checkpoint as trained is empty text."""
    return pd.read_csv(path, dtype={"variant": str}).fillna({"variant": ""})


def _label(run: str, variant: str, cells: pd.DataFrame) -> str:
    """What a row is called: the method, or the recipe where that is what differs."""
    if variant:
        return variant
    if recipe := re.search(r"(?:^|--)recipe-(?:methods_)?(\w+)", run):
        return recipe[1]
    if "recipe.precision-fp32" in run:
        return "plain in fp32"
    return str(cells["method"].iloc[0])


def choose(points: pd.DataFrame) -> dict[str, float]:
    """The rate with the best validation accuracy at seed 0, by label; of equals the lower."""
    first = points[points["seed"] == 0].sort_values(["label", "validation", "lr"], ascending=[True, False, True])
    return {str(label): float(rows["lr"].iloc[0]) for label, rows in first.groupby("label")}


def _shown(points: pd.DataFrame, chosen: Mapping[str, float]) -> pd.DataFrame:
    """Every method at its chosen rate, and plain fine-tuning at the other rates too, where it has all seeds."""
    is_chosen = points["lr"] == points["label"].map(chosen)
    others = points[(points["label"] == "plain") & ~is_chosen]
    others = others[others.groupby("lr")["seed"].transform("nunique") == len(SEEDS)]
    others = others.assign(label=[f"plain at {lr:g}" for lr in others["lr"]])
    return pd.concat([points[is_chosen], others], ignore_index=True)


def _order(rows: pd.DataFrame) -> list[str]:
    means = rows.groupby("label")["others"].mean().sort_values(ascending=False)
    return [str(label) for label in means.index]


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


def _cell(rows: pd.DataFrame, name: str) -> str:
    change = (rows[name] - rows[f"{name}_base"]) * 100
    spread = f" ± {change.std():.1f}" if len(change) > 1 else ""
    return f"{rows[name].mean() * 100:.1f} ({change.mean():+.1f}{spread})"


def _half_widths(folders: Sequence[Path]) -> list[float]:
    """Median half width, over runs, of the 95 % intervals of the target's and the sources' change: over items."""
    paths = sorted(path for folder in folders for path in folder.glob("*/summary.csv"))
    summary = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    widths = [summary[f"{side}_delta_ci_high"] - summary[f"{side}_delta_ci_low"] for side in ("target", "source")]
    return [float(width.median()) * 50 for width in widths]


def _scores(rows: pd.DataFrame, points: pd.DataFrame, half_widths: Sequence[float]) -> str:
    lines = [
        f"| method | lr | seeds | target | others | {' | '.join(HEADINGS)} | probe |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    base = points.iloc[0]
    bases = [base[f"{name}_base"] * 100 for name in ("target", "others", *OFF_TARGET, "probe")]
    lines.append("| base | | | " + " | ".join(f"{value:.1f}" for value in bases) + " |")
    for label in _order(rows):
        own = rows[rows["label"] == label]
        cells = " | ".join(_cell(own, name) for name in ("target", "others", *OFF_TARGET, "probe"))
        lines.append(f"| {label} | {own['lr'].iloc[0]:g} | {len(own)} | {cells} |")
    lines.append(f"| half width in a run | | | {' | '.join(f'{width:.1f}' for width in half_widths)} | | | | |")
    head = (
        "The last row has the median half width of the 95 % intervals over the items of one run: seeds share the "
        "items, so that it does not shrink with their number."
    )
    return "\n".join(["## Target and the other quadrants", "", head, "", *lines])


def _representation(folders: Sequence[Path], rows: pd.DataFrame) -> str:
    """What became of hidden states at picture tokens, last layer, and of the weights."""
    paths = sorted(path for folder in folders for path in folder.glob("*/representation.csv"))
    found = pd.concat([_read(path) for path in paths], ignore_index=True)
    found = found[found["step"] == found.groupby("run")["step"].transform("max")]
    lines = [
        "| method | effective rank, target's pictures | effective rank, digits | drift, target's pictures "
        "| CKA, digits | relative distance of weights, % | changed weights, % |",
        "|---|---|---|---|---|---|---|",
    ]
    base = pd.read_csv(paths[0])
    last = base["layer"].max()
    base = base[(base["step"] == 0) & (base["layer"] == last)].set_index("dataset")["effective_rank"]
    lines.append(f"| base | {base[TARGET]:.2f} | {base['digits_naming']:.2f} | 0 | 1 | 0 | 0 |")
    variants = set(found["variant"])
    for label in _order(rows):
        runs = rows[rows["label"] == label]["run"]
        own = found[found["run"].isin(runs) & (found["variant"] == (label if label in variants else ""))]
        states, weights = own[own["layer"] == last], own[own["part"] == "language"]
        target, digits = states[states["dataset"] == TARGET], states[states["dataset"] == "digits_naming"]
        lines.append(
            f"| {label} | {target['effective_rank'].mean():.2f} | {digits['effective_rank'].mean():.2f} "
            f"| {target['visual_drift_l1'].mean():.1f} | {digits['linear_cka'].mean():.3f} "
            f"| {weights['relative_distance'].mean() * 100:.1f} | {weights['changed_share'].mean() * 100:.1f} |"
        )
    head = "At picture tokens of the last layer, 64 pictures a set, means over seeds; weights of the language part."
    return "\n".join(["## Representations", "", head, "", *lines])


def _grid(points: pd.DataFrame, chosen: dict[str, float]) -> str:
    """Every rate at seed 0: validation and others."""
    rates = sorted(points["lr"].unique())
    lines = [f"| method | {' | '.join(f'{lr:g}' for lr in rates)} |", "|---|" + "---|" * len(rates)]
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


def _draw(rows: pd.DataFrame, path: Path) -> None:
    """Target against the other quadrants: a point per method, bars are the standard deviation between seeds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "forgetbench"  # the same figure, the same bytes
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11.5, 5.5), layout="constrained")
    start = (rows["target_base"].iloc[0] * 100, rows["others_base"].iloc[0] * 100)
    for panel in panels:
        panel.plot(*start, "k*", markersize=13, label="base")
        for number, label in enumerate(_order(rows)):
            own = rows[rows["label"] == label]
            x, y, look = own["target"] * 100, own["others"] * 100, _MARKERS[number // 10]
            bars = {"xerr": x.std(), "yerr": y.std(), "elinewidth": 0.7}
            panel.errorbar(x.mean(), y.mean(), fmt=look, ms=6, color=f"C{number % 10}", label=label, **bars)
        panel.set_xlabel("accuracy on the target, %")
        panel.grid(alpha=0.3)
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

"""Compare where in the model to train: choose each module's learning rate by validation, write tables and a figure.

folders="outputs/modules outputs/modules_seeing"
python -m tools.modules_result $folders --choose     # lists what is still to run
python -m tools.modules_result $folders              # writes docs/results/modules.md and .svg
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tools.matched_points import (
    HEADINGS,
    MEASURED,
    OFF_TARGET,
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
)

OUT = Path(__file__).resolve().parents[1] / "docs/results/modules.md"
WHOLE = "language"
PUBLISHED = {
    "language.attention": ("attention projections only", 24.9, -0.6),
    "language.mlp_gate_up": ("MLP gate and up only", 30.5, -2.1),
    WHOLE: ("the whole language model", 31.8, -23.3),
}
"""Learning and forgetting, in points, as the abstract of Zhu et al. 2025 (arXiv:2510.08564) has them."""


def main() -> None:
    """Write the page, or list the points that it lacks."""
    folders = [Path(word) for word in sys.argv[1:] if not word.startswith("--")]
    points = load(folders, lambda run, variant, cells: str(cells["parts"].iloc[0]))
    chosen = choose(points)
    if "--choose" in sys.argv:
        print_lacking(points, chosen)
        return
    rows = points[points["lr"] == points["label"].map(chosen)]
    text = "\n\n".join(
        [
            "# Where to train, on the embedded world",
            _intro(),
            "![Points learnt on the target against points lost elsewhere](modules.svg)",
            _scores(rows, points, folders),
            _against_whole(rows),
            _published(),
            _open(rows, points, chosen),
            rate_grid(points, chosen, "trained"),
        ]
    )
    OUT.write_text(text + "\n", "utf-8")
    _draw(rows, OUT.with_suffix(".svg"))
    print(text)


def _intro() -> str:
    return (
        "Made from `sweep=modules` and `sweep=modules_seeing`, every rate at seed 0, further seeds at the chosen one, "
        "by `python -m tools.modules_result`; docs/models.md explains the words. "
        f"Target `{TARGET}`, plain fine-tuning of the named weights and nothing else, 120 steps of 32, likelihood over "
        "the options. The rate of each row is the one with the best accuracy on "
        f"`{VALIDATION}` at seed 0; the last table has all of them. "
        "Percentages: means over seeds and, in brackets, the change from the base plus or minus the standard deviation "
        'between seeds. "Others" is the mean of the three quadrants beside the target quadrant.'
    )


def _trainable(folders: Sequence[Path], run: str) -> int:
    path = next(folder / run / "run.json" for folder in folders if (folder / run / "run.json").is_file())
    return int(json.loads(path.read_text("utf-8"))["audit"]["trainable"])


def _scores(rows: pd.DataFrame, points: pd.DataFrame, folders: Sequence[Path]) -> str:
    lines = [
        f"| trained | parameters | lr | seeds | target | others | {' | '.join(HEADINGS)} | probe |",
        "|---|---:|---|---|---|---|---|---|---|---|",
        base_line(points, 3),
    ]
    for label in order(rows):
        label_rows = rows[rows["label"] == label]
        cells = " | ".join(cell(label_rows, name) for name in MEASURED)
        count = f"{_trainable(folders, str(label_rows['run'].iloc[0])):,}"
        lines.append(f"| {label} | {count} | {label_rows['lr'].iloc[0]:g} | {len(label_rows)} | {cells} |")
    widths = [*half_widths(folders), *_quadrant_widths(folders)]
    lines.append(f"| half width in a run | | | | {' | '.join(f'{width:.1f}' for width in widths)} | |")
    head = (
        "The last row has the median half width of the 95 % intervals over the items of one run: seeds share the "
        "items, so that it does not shrink with their number."
    )
    return "\n".join(["## Target and the other quadrants", "", head, "", *lines])


def _quadrant_widths(folders: Sequence[Path]) -> list[float]:
    """Median half width, over runs, of the 95 % interval of each quadrant's change: over items."""
    paths = sorted(path for folder in folders for path in folder.glob("*/matrix.csv"))
    matrix = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    matrix = matrix[(matrix["step"] > 0) & (matrix["metric"] == "accuracy")]
    widths = (matrix["delta_ci_high"] - matrix["delta_ci_low"]).groupby(matrix["quadrant"]).median()
    return [float(widths[quadrant]) * 50 for quadrant in OFF_TARGET]


def _change(rows: pd.DataFrame, name: str) -> pd.Series:
    """In points."""
    return (rows[name] - rows[f"{name}_base"]) * 100


def _against_whole(rows: pd.DataFrame) -> str:
    """Every row minus the whole language part, seed by seed."""
    whole = rows[rows["label"] == WHOLE].set_index("seed")
    lines = ["| trained | seeds | target | others | lost per point learnt |", "|---|---|---|---|---|"]
    for label in order(rows):
        label_rows = rows[rows["label"] == label].set_index("seed")
        seeds = label_rows.index.intersection(whole.index)
        learnt, lost = _change(label_rows, "target").mean(), -_change(label_rows, "others").mean()
        rate = "learns nothing" if learnt <= 0 else "loses nothing" if lost <= 0 else f"{lost / learnt:.2f}"
        differences = (
            ["", ""] if label == WHOLE else [_paired(label_rows, whole, seeds, name) for name in ("target", "others")]
        )
        lines.append(f"| {label} | {len(seeds)} | {' | '.join(differences)} | {rate} |")
    head = (
        f"Each row minus `{WHOLE}` at its own chosen rate, in points: the mean over seeds that both have, plus or "
        "minus the standard deviation of the difference between seeds. Validation chose each rate by itself: "
        "a row that lost less may have learnt less, so that the last column divides the one by the other."
    )
    return "\n".join(["## Against the whole language part", "", head, "", *lines])


def _paired(label_rows: pd.DataFrame, whole: pd.DataFrame, seeds: pd.Index, name: str) -> str:
    difference = _change(label_rows.loc[seeds], name) - _change(whole.loc[seeds], name)
    spread = f" ± {difference.std():.1f}" if len(difference) > 1 else ""
    return f"{difference.mean():+.1f}{spread}" if len(difference) else ""


def _published() -> str:
    lines = ["| trained | in words here | learning | forgetting |", "|---|---|---|---|"]
    lines += [f"| {name} | `{word}` | {gain:+.1f} | {loss:+.1f} |" for word, (name, gain, loss) in PUBLISHED.items()]
    head = (
        "*Reference, other model and data.* Zhu et al. 2025 (arXiv:2510.08564): five target skills one after the "
        "other, eight held-out benchmarks, three model families of billions of parameters; points, as their abstract "
        "has them. They are no scale for the rows above, only for their order."
    )
    return "\n".join(["## Published", "", head, "", *lines])


def _open(rows: pd.DataFrame, points: pd.DataFrame, chosen: dict[str, float]) -> str:
    """Limits of the comparison."""
    whole = rows[rows["label"] == WHOLE]
    change = _change(whole, "others").mean()
    single = rows.groupby("label")["seed"].nunique()
    rates = points.groupby("label")["lr"].agg(["min", "max"])
    at_edge = [label for label in order(rows) if chosen[label] in set(rates.loc[label])]
    lines = [
        f"- The whole language part changes by {change:+.1f} points elsewhere at its chosen rate; published is "
        f"{PUBLISHED[WHOLE][2]:+.1f}. What a module could save here is bounded by the first number.",
        "- A difference within the errors of the first table says that it is smaller than they are, on these items "
        "and seeds. It does not say that there is none, nor that there is none in a larger model.",
        "- One model of four language layers and 3 million parameters, one target, 120 steps. Layers of so shallow a "
        "model may share work that a deep one divides.",
        "- Rates were chosen by what is learnt, not by what is kept; the last table has both at every rate.",
        "- How far these runs' answers drift is in [drift.md](drift.md). That drift and loss go together does not say "
        "why a module forgets less.",
    ]
    if at_edge:
        lines.append(
            f"- The best rate of {', '.join(f'`{label}`' for label in at_edge)} is the lowest or the highest that "
            "was run, so a better one may lie outside."
        )
    if (single < len(SEEDS)).any():
        lacking = ", ".join(f"`{label}`" for label in single.index[single < len(SEEDS)])
        lines.append(f"- Not all seeds were run for {lacking}.")
    return "\n".join(["## What stays open", "", *lines])


def _draw(rows: pd.DataFrame, path: Path) -> None:
    """Points learnt against points lost: measured, and beside it published results of another model."""
    figure, (measured_panel, published_panel) = new_figure()
    draw_points(measured_panel, rows, _change)
    measured_panel.plot(0, 0, "k*", markersize=13, label="base")
    measured_panel.set_title("the embedded world; bars: standard deviation between seeds", fontsize=10)
    for look, (name, gain, loss) in zip("^vs", PUBLISHED.values(), strict=True):  # grey: no colour of ours
        published_panel.plot(gain, loss, look, ms=8, color="0.5", label=f"reference: {name}")
    published_panel.plot(0, 0, "k*", markersize=13)
    published_panel.set_title("reference, other model and data (arXiv:2510.08564)", fontsize=10)
    published_panel.legend(fontsize=8, loc="lower left")
    published_panel.grid(alpha=0.3)
    for panel in (measured_panel, published_panel):
        panel.set_xlabel("learnt on the target, points")
        panel.set_ylabel("change elsewhere, points")
    figure.legend(*measured_panel.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()

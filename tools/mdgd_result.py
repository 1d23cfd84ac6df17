"""A page about MDGD from finished runs of `tools.mdgd_study`, whose docstring has the commands."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from forgetbench.core.records import QUADRANTS
from forgetbench.runs.recipes import stored_runs
from forgetbench.runs.stored import StoredRun
from forgetbench.statistics.seeds import SeedEstimate, over_seeds
from forgetbench.statistics.significance import holm, t_test_p
from forgetbench.tables.cell_view import aligned
from forgetbench.tables.metrics import item_scores
from tools.mdgd_study import PLAIN, SEEDS, SETTINGS, TRAININGS, Training, folder_of, label_at, settings_of
from tools.searched import Floats, points_text

OUT = Path(__file__).resolve().parents[1] / "docs/results/mdgd.md"
_TYPICAL = (
    "always, each tensor (default)", "conflict, all tensors", "strength 0.001", "strength 0.003", "strength 0.01"
)  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """One checkpoint's scores, item by item."""

    label: str
    rate: float
    seed: int
    step: int
    is_last: bool
    target: float
    others: float
    """Mean change of the off-target quadrants from the base; a quadrant's sets count alike."""
    drift: float
    """Visual drift at the last layer, on the target's pictures; NaN where it was not measured."""
    rank: float
    """Effective rank there."""
    base_rank: float
    """Of the base."""
    target_items_N: Floats
    target_clusters: Sequence[str]
    items: Mapping[str, Floats]
    """By off-target dataset."""
    clusters: Mapping[str, Sequence[str]]
    quadrants: Mapping[str, Sequence[str]]


def main() -> None:
    """Write the page."""
    write_page(Path(sys.argv[1]), pd.read_csv(sys.argv[2]))


def load(outputs: Path, name: str) -> list[Answers]:
    """Every scored checkpoint of a training that is there."""
    training, checkpoints = TRAININGS[name], []
    trained = [(PLAIN, PLAIN)] + [(label, label_at(name, label, rate)) for label, rate in settings_of(name)]
    for label, labelled in trained:
        for seed in SEEDS:
            folder = outputs / folder_of(name, labelled, seed)
            for run in stored_runs(folder) if folder.is_dir() else ():
                if (run.folder / "scores.csv").is_file():
                    checkpoints += _answers(run, label, seed, training)
    return checkpoints


def _answers(run: StoredRun, label: str, seed: int, training: Training) -> list[Answers]:
    rows = run.own_metrics()
    rows = rows[rows["variant"] == ""]
    is_target = (rows["dataset"] == training.target) & (rows["decoding"] == training.decoding)
    others = rows[
        rows["quadrant"].isin(QUADRANTS[1:]) & (rows["metric"] == "accuracy") & (rows["decoding"] == "choice")
    ]
    others = others[others["dataset"] != "fashion_probe"]
    base = {view.context.dataset: view for view in run.views(others[others["step"] == 0])}
    seen = run.table("representation.csv")
    base_rank = _representation(seen, 0, training.target)[1]
    checkpoints = []
    for step in sorted(set(rows["step"]) - {0}):
        rows_of_step = others[others["step"] == step]
        items, clusters = {}, {}
        for view in run.views(rows_of_step):
            before = aligned(base[view.context.dataset], view)
            changes = np.asarray(item_scores(view).values, float) - np.asarray(item_scores(before).values, float)
            items[view.context.dataset], clusters[view.context.dataset] = changes, view.ways[0]
        quadrants = {str(key): sorted(group["dataset"]) for key, group in rows_of_step.groupby("quadrant")}
        change = float(np.mean([np.mean([items[dataset].mean() for dataset in names]) for names in quadrants.values()]))
        target_row = rows[is_target & (rows["step"] == step)]
        target, (target_view,) = float(target_row["value"].iloc[0]), run.views(target_row)
        target_items_N = np.asarray(item_scores(target_view).values, float)
        drift, rank = _representation(seen, step, training.target)
        lr, is_last = float(rows["lr"].iloc[0]), bool(step == rows["step"].max())
        checkpoints.append(
            Answers(
                *(label, lr, seed, int(step), is_last, target, change, drift, rank, base_rank),
                *(target_items_N, target_view.ways[0], items, clusters, quadrants),
            )
        )
    return checkpoints


def _representation(seen: pd.DataFrame, step: int, target: str) -> tuple[float, float]:
    if seen.empty:
        return math.nan, math.nan
    rows = seen[(seen["step"] == step) & (seen["dataset"] == target) & seen["layer"].notna()]
    if rows.empty:
        return math.nan, math.nan
    last = rows.sort_values("layer").iloc[-1]
    return float(last["visual_drift_l1"]), float(last["effective_rank"])


def at_equal_target(method: Answers, plain: Sequence[Answers]) -> Answers | None:
    """Of plain fine-tuning's checkpoints that learnt at least as much, the one that kept most; None without one."""
    enough = [point for point in plain if point.seed == method.seed and point.target >= method.target]
    return max(enough, key=lambda point: point.others, default=None)


def kept_more(pairs: Sequence[tuple[Answers, Answers]]) -> SeedEstimate:
    """What the first of each pair kept more than the second, over seeds and items."""
    quadrants = pairs[0][0].quadrants
    names = [name for members in quadrants.values() for name in members]
    share = {name: 1 / len(quadrants) / len(members) for members in quadrants.values() for name in members}
    sizes = [len(pairs[0][0].items[name]) for name in names]
    differences = [np.concatenate([point.items[name] - other.items[name] for name in names]) for point, other in pairs]
    weights = np.repeat([share[name] / size for name, size in zip(names, sizes, strict=True)], sizes)
    clusters = [label for name in names for label in pairs[0][0].clusters[name]]
    return over_seeds(differences, [clusters], weights, np.repeat(names, sizes).tolist())


def learnt_more(pairs: Sequence[tuple[Answers, Answers]]) -> SeedEstimate:
    """What the first of each pair learnt more than the second, over seeds and items."""
    differences = [point.target_items_N - other.target_items_N for point, other in pairs]
    n = len(differences[0])
    return over_seeds(differences, [pairs[0][0].target_clusters], np.full(n, 1 / n), ["target"] * n)


def write_page(outputs: Path, cosines: pd.DataFrame) -> None:
    """Write docs/results/mdgd.md and its figure."""
    loaded = {name: load(outputs, name) for name in TRAININGS}
    parts = ["# MDGD against plain fine-tuning", _intro(), _seen(loaded, cosines), "![Kept against learnt](mdgd.svg)"]
    parts += [_gradients(cosines)]
    there = {name: points for name, points in loaded.items() if points}
    parts += [_section(TRAININGS[name], points) for name, points in there.items()]
    parts += [lacking] if (lacking := _lacking(loaded)) else []
    OUT.write_text("\n\n".join(parts) + "\n", "utf-8")
    _draw(loaded, OUT.with_suffix(".svg"))
    print(OUT.read_text("utf-8"))


def _intro() -> str:
    return (
        "MDGD (arXiv:2502.11740, reconstructed here: docs/methods.md) takes out of the task's gradient what lies along "
        "the gradient of visual drift. Its paper reports that this keeps more of the model's visual knowledge. Is "
        "there a setting in which it keeps more than plain fine-tuning that learns as much?\n\n"
        "Made by `python -m tools.mdgd_result` from runs in fp32, which `python -m tools.mdgd_study --commands` lists. "
        "Most are at a rate at which plain fine-tuning forgets clearly.\n\n"
        "- *Others* is the mean change of the off-target quadrants from the base, in points.\n"
        "- *At the same rate*: a setting less plain fine-tuning at its rate and seed.\n"
        "- *Plain at equal target*: among plain's checkpoints, at all rates and steps, that learnt at least as much "
        "with the same seed, the one that kept most. The best of several is partly the luckiest, which favours plain. "
        "Target scores have an error of their own, so *at least as much* is partly luck, too, in favour of either.\n"
        "- Intervals (95 %) are over test items and, where there are several seeds, over those.\n"
        "- Drift (L1) and effective rank are of hidden states at the target's picture tokens, in the last layer."
    )


def _seen(loaded: Mapping[str, Sequence[Answers]], cosines: pd.DataFrame) -> str:
    """What would have to be true for the claim to show, and what was seen of each."""
    share = 100 * float((cosines["cosine"] ** 2).max())
    medians = ", ".join(f"{value:.4f}" for value in cosines.groupby("training", sort=False)["cosine"].median())
    ranks, rows = [], []
    for name, points in loaded.items():
        comparisons = compared(points)
        heading, rate = TRAININGS[name].heading, float(TRAININGS[name].rate)
        if plain := comparisons.get((PLAIN, rate)):
            before, after = (np.mean([getattr(point, side) for point in plain.group]) for side in ("base_rank", "rank"))
            default = comparisons.get((_TYPICAL[0], rate))
            with_default = (
                f", with MDGD's default to {np.mean([point.rank for point in default.group]):.2f}" if default else ""
            )
            ranks.append(f"{before:.2f} to {after:.2f}{with_default} ({heading.lower()})")
        for label in _TYPICAL:
            if (label, rate) in comparisons and (same := comparisons[label, rate].at_same_rate):
                drifts = [np.mean([point.drift for point in side]) for side in zip(*same, strict=True)]
                rows.append(
                    f"| {heading} | {label} | {drifts[1]:.0f} | {drifts[0]:.0f} | {points_text(kept_more(same))} |"
                )
    lines = [
        "## What would have to be true, and what was seen",
        "",
        "1. *The task's gradient has a part along the drift's that matters.* The cosine of the two is "
        f"{medians} in the median. All tensors taken together, the projection takes out at most {share:.2f} % of the "
        "gradient's squared length.",
        "2. *Fine-tuning lowers the effective rank, which is to be preserved.* Plain fine-tuning moves it from "
        f"{'; '.join(ranks)}.",
        "3. *To take that part out lessens drift*, and",
        "4. *with less drift, less is forgotten.* The table holds both against plain fine-tuning at the same rate. "
        "`strength` does more than the projection: it adds the drift's own gradient.",
        "",
        "| training | setting | plain's drift | the setting's | kept more than plain |",
        "|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join([*lines, "", _answer(loaded)])


def _answer(loaded: Mapping[str, Sequence[Answers]]) -> str:
    """Which settings keep more than plain at equal target score, adjusted for how many were tried."""
    estimates = {
        f"{TRAININGS[name].heading}, {label} at {rate:g}": kept_more(comparison.at_equal_target)
        for name, points in loaded.items()
        for (label, rate), comparison in compared(points).items()
        if comparison.at_equal_target
    }
    adjusted = dict(zip(estimates, holm([t_test_p(estimate) for estimate in estimates.values()]), strict=True))
    shown = {name: p_value for name, p_value in adjusted.items() if p_value is not None and p_value < 0.05}
    more = [name for name in shown if (estimates[name].value or 0.0) > 0]
    text = (
        f"**At equal target score**, {len(estimates)} of the settings below have a plain checkpoint to be held "
        "against. "
        f"Of these, {len(more)} kept more than it and {len(shown) - len(more)} kept less (p < 0.05 after Holm's "
        "adjustment for all of them)."
    )
    if more:
        text += " More kept:\n\n| training and setting | kept more than plain at equal target |\n|---|---|\n"
        text += "\n".join(f"| {name} | {points_text(estimates[name])} |" for name in more)
    return text


def _gradients(cosines: pd.DataFrame) -> str:
    lines = [
        "| training | length of the task's gradient | of the drift's | cosine: median | largest, either sign |",
        "|---|---|---|---|---|",
    ]
    for name, rows in cosines.groupby("training", sort=False):
        cosine = rows["cosine"].dropna()
        lines.append(
            f"| {TRAININGS[str(name)].heading} | {rows['task_norm'].median():.2f} | "
            f"{rows['drift_norm'].median():.0f} | {cosine.median():.4f} | {cosine.abs().max():.4f} |"
        )
    says = "Over all tensors, at every tenth of 120 steps. What MDGD takes out is this cosine's share of the gradient."
    return "\n".join(["## The two gradients", "", says, "", *lines])


def _lacking(loaded: Mapping[str, Sequence[Answers]]) -> str:
    """What the commands list and nobody has run yet; empty when all of it is there."""
    lines = []
    for name, points in loaded.items():
        wanted = {(PLAIN, float(TRAININGS[name].rate)): PLAIN}
        wanted |= {(label, float(rate)): label_at(name, label, rate) for label, rate in settings_of(name)}
        for seed in SEEDS:
            there = {(point.label, point.rate) for point in points if point.seed == seed}
            if missing := [labelled for key, labelled in wanted.items() if key not in there]:
                lines.append(f"| {TRAININGS[name].heading} | {seed} | {'; '.join(missing)} |")
    head = ["## Not run yet", "", "| training | seed | settings |", "|---|---|---|"]
    return "\n".join([*head, *lines]) if lines else ""


@dataclass(frozen=True)
class Compared:
    """The last checkpoints of a setting at a rate, one per seed, and plain ones that they are held against."""

    group: Sequence[Answers]
    at_same_rate: Sequence[tuple[Answers, Answers]]
    at_equal_target: Sequence[tuple[Answers, Answers]]
    """Empty unless every seed has a plain checkpoint that learnt as much."""


def compared(points: Sequence[Answers]) -> dict[tuple[str, float], Compared]:
    """Setting and rate -> what was trained, and what it is held against."""
    plain = [point for point in points if point.label == PLAIN]
    last = [point for point in points if point.is_last]
    comparisons = {}
    for label, rate in dict.fromkeys((point.label, point.rate) for point in last):
        group = [point for point in last if (point.label, point.rate) == (label, rate)]
        others = group if label != PLAIN else ()
        same = [
            (point, other)
            for point in others
            for other in last
            if (other.label, other.rate, other.seed) == (PLAIN, rate, point.seed)
        ]
        equal = [(point, match) for point in others if (match := at_equal_target(point, plain))]
        comparisons[label, rate] = Compared(group, same, equal if len(equal) == len(group) else [])
    return comparisons


def _section(training: Training, points: Sequence[Answers]) -> str:
    unit = "CIDEr-D" if training.decoding == "greedy" else "target, %"
    lines = [
        f"| setting | rate | seeds | {unit} | others | drift | effective rank | at the same rate: learnt more "
        "than plain | kept more | plain at equal target | kept more than it |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (label, rate), comparison in compared(points).items():
        group, same, equal = comparison.group, comparison.at_same_rate, comparison.at_equal_target
        cells = [
            *(label, f"{rate:g}", str(len({point.seed for point in group})), _target(training, group)),
            f"{100 * np.mean([point.others for point in group]):+.1f}",
            f"{np.mean([point.drift for point in group]):.0f}",
            f"{np.mean([point.rank for point in group]):.2f}",
            _learnt_text(training, learnt_more(same)) if same else "",
            points_text(kept_more(same)) if same else "",
            f"{100 * np.mean([match.others for _, match in equal]):+.1f}" if equal else "",
            points_text(kept_more(equal)) if equal else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"## {training.heading}", "", *lines])


def _learnt_text(training: Training, estimate: SeedEstimate) -> str:
    if training.decoding != "greedy":
        return points_text(estimate)
    return f"{estimate.value:+.2f} ({estimate.ci_low:+.2f} to {estimate.ci_high:+.2f})"


def _target(training: Training, points: Sequence[Answers]) -> str:
    mean = np.mean([point.target for point in points])
    return f"{mean:.2f}" if training.decoding == "greedy" else f"{100 * mean:.1f}"


def _draw(loaded: Mapping[str, Sequence[Answers]], path: Path) -> None:
    """Seed 0: plain's checkpoints as a line per rate, every setting's last one as a point, hollow at half the rate."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "forgetbench"  # the same figure, the same bytes
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(loaded), figsize=(14, 5), layout="constrained")
    for panel, (name, points) in zip(panels, loaded.items(), strict=True):
        first = [point for point in points if point.seed == SEEDS[0]]
        for rate in sorted({point.rate for point in first if point.label == PLAIN}):
            line = [point for point in first if point.label == PLAIN and point.rate == rate]
            xs, ys = ([_shown(getattr(point, side), side, name) for point in line] for side in ("target", "others"))
            panel.plot(
                xs, ys, "-o", color="grey", ms=3, lw=0.8, alpha=0.4 + 0.2 * (rate > 3e-4), label=f"plain, {rate:g}"
            )
        for number, label in enumerate(SETTINGS):
            for point in first:
                if point.label == label and point.is_last:
                    x, y = _shown(point.target, "target", name), _shown(point.others, "others", name)
                    shape = {"marker": "osD^"[number // 10], "color": f"C{number % 10}", "ms": 6, "ls": ""}
                    is_lower = point.rate != float(TRAININGS[name].rate)
                    panel.plot(x, y, **shape, **({"mfc": "none"} if is_lower else {"label": label}))
        panel.set_title(TRAININGS[name].heading, fontsize=10)
        panel.set_xlabel("CIDEr-D on the target" if TRAININGS[name].decoding == "greedy" else "target, %")
        panel.set_ylabel("change of the other quadrants, points")
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=6)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _shown(value: float, side: str, name: str) -> float:
    return value if side == "target" and TRAININGS[name].decoding == "greedy" else 100 * value


if __name__ == "__main__":
    main()

r"""Is there a setting in which MDGD keeps more than plain fine-tuning at equal target score? A page from finished runs.

python -m tools.mdgd_study --commands | xargs -d '\n' -P 2 -I{} sh -c '{}'    # about two hours on two cores
python -m tools.mdgd_study --cosines cosines.csv                              # how the two gradients lie to each other
python -m tools.mdgd_study outputs cosines.csv                                # writes docs/results/mdgd.md and .svg
"""

from __future__ import annotations

import csv
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from forgetbench.core.records import QUADRANTS
from forgetbench.runs.recipes import stored_runs
from forgetbench.runs.stored import StoredRun
from forgetbench.statistics.seeds import SeedEstimate, over_seeds
from forgetbench.tables.cell_view import aligned
from forgetbench.tables.metrics import item_scores
from tools.searched import Floats, points_text

OUT = Path(__file__).resolve().parents[1] / "docs/results/mdgd.md"
SEEDS = (0, 1, 2)
PLAIN = "plain"


@dataclass(frozen=True)
class Training:
    """What is trained, at a rate that forgets, and the rates that plain fine-tuning is traced at."""

    heading: str
    overrides: str
    target: str
    decoding: str
    rate: str
    plain_rates: Sequence[str]


CAPTIONS = (
    "matrix.datasets=[fashion_caption,emoji_caption_cider,fashion_naming,fashion_knowledge,fashion_yesno,fashion_shade,"
    "digits_naming,digits_questions,digits_yesno,emoji_naming,emoji_category,emoji_yesno] "
    "matrix.decodings=[choice,greedy] matrix.limit=200"
)
TRAININGS = {
    "names": Training(
        "Garment names, 120 steps", "data=fashion_naming matrix=methods", "fashion_naming", "choice", "8e-4",
        ("2e-4", "4e-4", "8e-4"),
    ),
    "epochs": Training(
        "Garment names, four epochs", "data=fashion_naming matrix=methods recipe.steps=376", "fashion_naming", "choice",
        "8e-4", ("1e-4", "4e-4", "8e-4"),
    ),
    "captions": Training(
        "Captions of garments, 120 steps", f"data=fashion_caption matrix=methods {CAPTIONS}", "fashion_caption",
        "greedy", "8e-4", ("2e-4", "4e-4", "8e-4"),
    ),
}  # fmt: skip
SETTINGS = {
    "always, each tensor (default)": "method=mdgd",
    "conflict, each tensor": "method=mdgd method.when=conflict",
    "always, all tensors": "method=mdgd method.scope=all",
    "conflict, all tensors": "method=mdgd method.when=conflict method.scope=all",
    "strength 0.001": "method=mdgd method.strength=0.001",
    "strength 0.003": "method=mdgd method.strength=0.003",
    "strength 0.01": "method=mdgd method.strength=0.01",
    "layer 1": "method=mdgd method.layer=1",
    "layer 1, strength 0.003": "method=mdgd method.layer=1 method.strength=0.003",
    "MDGD-GM, 10 %": "method=mdgd_gm",
    "MDGD-GM, 30 %": "method=mdgd_gm method.density=0.3",
}
LONG = ("always, each tensor (default)", "conflict, all tensors", "strength 0.003")
"""Settings that the long training has, which costs three times as much."""
_SHARED = "recipe=methods recipe.precision=fp32 matrix.representation.images=64 threads=1"


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
    items: Mapping[str, Floats]
    """By off-target dataset."""
    clusters: Mapping[str, Sequence[str]]
    quadrants: Mapping[str, Sequence[str]]


def commands() -> list[str]:
    """Plain fine-tuning's rates first; then every setting, seed by seed."""
    lines = []
    for seed in SEEDS:
        for name, training in TRAININGS.items():
            rates = ",".join(training.plain_rates)
            traced = f"method=plain recipe.lr={rates} recipe.checkpoints.log_spaced=4"
            lines.append(_command(name, PLAIN, training, traced, seed))
        for name, training in TRAININGS.items():
            for label, setting in SETTINGS.items():
                if name != "epochs" or label in LONG:
                    lines.append(_command(name, label, training, f"{setting} recipe.lr={training.rate}", seed))
    return lines


def _command(name: str, label: str, training: Training, setting: str, seed: int) -> str:
    return f"forgetbench sweep {_SHARED} {training.overrides} {setting} seed={seed} name={_folder(name, label, seed)}"


def _folder(name: str, label: str, seed: int) -> str:
    words = "".join(sign if sign.isalnum() or sign in ".-" else "_" for sign in label)
    return f"mdgd-{name}-{words}-{seed}"


def write_cosines(path: Path) -> None:
    """Train as MDGD does by default, and write at every tenth step how task and drift gradient lie to each other."""
    from forgetbench.cli import app
    from forgetbench.methods import mdgd

    rows: list[Sequence[object]] = [["training", "step", "task_norm", "drift_norm", "cosine"]]
    project = mdgd.project
    for name in ("names", "captions"):
        training, steps = TRAININGS[name], 0

        def measured(task: Any, drift: Any, *settings: Any, name: str = name) -> None:
            nonlocal steps
            steps += 1
            if steps % 10 == 0:
                lengths = [math.sqrt(sum(_dot(tensor, tensor) for tensor in side.values())) for side in (task, drift)]
                along = sum(_dot(task[key], drift[key]) for key in task.keys() & drift.keys())
                cosine = along / math.prod(lengths) if all(lengths) else math.nan
                rows.append([name, steps, *(f"{length:.4g}" for length in lengths), f"{cosine:.5f}"])
            project(task, drift, *settings)

        with tempfile.TemporaryDirectory() as folder, patch.object(mdgd, "project", measured):
            words = ["finetune", *_SHARED.split(), *training.overrides.split(), "method=mdgd", f"outputs={folder}"]
            words = [word for word in words if not word.startswith("matrix")]
            app([*words, f"recipe.lr={training.rate}", "recipe.steps=120", "name=run"], standalone_mode=False)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _dot(a: Any, b: Any) -> float:
    return float(a.flatten().double() @ b.flatten().double())


def main() -> None:
    """List the commands, measure the gradients, or write the page."""
    if "--commands" in sys.argv:
        print("\n".join(commands()))
    elif "--cosines" in sys.argv:
        write_cosines(Path(sys.argv[2]))
    else:
        write_page(Path(sys.argv[1]), pd.read_csv(sys.argv[2]))


def load(outputs: Path, name: str) -> list[Answers]:
    """Every scored checkpoint of a training that is there."""
    training, checkpoints = TRAININGS[name], []
    for label in (PLAIN, *SETTINGS):
        for seed in SEEDS:
            folder = outputs / _folder(name, label, seed)
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
        target = float(rows[is_target & (rows["step"] == step)]["value"].iloc[0])
        drift, rank = _representation(seen, step, training.target)
        lr, is_last = float(rows["lr"].iloc[0]), bool(step == rows["step"].max())
        checkpoints.append(
            Answers(label, lr, seed, int(step), is_last, target, change, drift, rank, items, clusters, quadrants)
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


def write_page(outputs: Path, cosines: pd.DataFrame) -> None:
    """Write docs/results/mdgd.md and its figure."""
    loaded = {name: load(outputs, name) for name in TRAININGS}
    parts = ["# MDGD against plain fine-tuning", _intro(), _gradients(cosines), "![Kept against learnt](mdgd.svg)"]
    parts += [_section(TRAININGS[name], points) for name, points in loaded.items() if points]
    parts += [lacking] if (lacking := _lacking(loaded)) else []
    OUT.write_text("\n\n".join(parts) + "\n", "utf-8")
    _draw(loaded, OUT.with_suffix(".svg"))
    print(OUT.read_text("utf-8"))


def _intro() -> str:
    return (
        "MDGD (arXiv:2502.11740, reconstructed here: docs/methods.md) takes out of the task's gradient what lies along "
        "the gradient of visual drift. Its paper reports that this keeps more of the model's visual knowledge. Is "
        "there a setting in which it keeps more than plain fine-tuning that learns as much? Made by "
        "`python -m tools.mdgd_study` from runs in fp32, which its `--commands` lists, at a rate at which plain "
        "fine-tuning forgets clearly.\n\n"
        "*Others* is the mean change of the off-target quadrants from the base, in points. *Kept more* holds a setting "
        "against plain fine-tuning at equal target score: among plain's checkpoints, at all rates and steps, that "
        "learnt at least as much with the same seed, the one that kept most. That choice favours plain fine-tuning a "
        "little, as the best of several is partly the luckiest. Intervals (95 %) are over test items and, where there "
        "are several seeds, over those. Drift (L1) and effective rank are of hidden states at the target's picture "
        "tokens, in the last layer."
    )


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
        wanted = [label for label in SETTINGS if name != "epochs" or label in LONG]
        for seed in SEEDS:
            there = {point.label for point in points if point.seed == seed}
            if missing := [label for label in (PLAIN, *wanted) if label not in there]:
                lines.append(f"| {TRAININGS[name].heading} | {seed} | {'; '.join(missing)} |")
    head = ["## Not run yet", "", "| training | seed | settings |", "|---|---|---|"]
    return "\n".join([*head, *lines]) if lines else ""


def _section(training: Training, points: Sequence[Answers]) -> str:
    plain = [point for point in points if point.label == PLAIN]
    unit = "CIDEr-D" if training.decoding == "greedy" else "target, %"
    lines = [
        f"| setting | rate | seeds | {unit} | others | drift | effective rank | kept more than plain at the same rate "
        "| plain at equal target | kept more than it |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    last = [point for point in points if point.is_last]
    for label, rate in dict.fromkeys((point.label, point.rate) for point in last):
        group = [point for point in last if (point.label, point.rate) == (label, rate)]
        pairs = [(point, match) for point in group if (match := at_equal_target(point, plain))]
        complete = label != PLAIN and len(pairs) == len(group)
        same_rate = [
            (point, other)
            for point in (group if label != PLAIN else ())
            for other in last
            if (other.label, other.rate, other.seed) == (PLAIN, rate, point.seed)
        ]
        cells = [
            *(label, f"{rate:g}", str(len({point.seed for point in group})), _target(training, group)),
            f"{100 * np.mean([point.others for point in group]):+.1f}",
            f"{np.mean([point.drift for point in group]):.0f}",
            f"{np.mean([point.rank for point in group]):.2f}",
            points_text(kept_more(same_rate)) if same_rate else "",
            f"{100 * np.mean([match.others for _, match in pairs]):+.1f}" if complete else "",
            points_text(kept_more(pairs)) if complete else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"## {training.heading}", "", *lines])


def _target(training: Training, points: Sequence[Answers]) -> str:
    mean = np.mean([point.target for point in points])
    return f"{mean:.2f}" if training.decoding == "greedy" else f"{100 * mean:.1f}"


def _draw(loaded: Mapping[str, Sequence[Answers]], path: Path) -> None:
    """Plain fine-tuning's checkpoints as a line per rate, every setting's last one as a point; seed 0."""
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
                    panel.plot(x, y, "osD^"[number // 10], color=f"C{number % 10}", ms=6, label=label)
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

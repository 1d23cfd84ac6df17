r"""Compare methods, each at its own best: rate and strength chosen by a search on validation items, tested on others.

python -m tools.methods_search --commands | xargs -d '\n' -P 2 -I{} sh -c '{}'    # a search per method and seed
python -m tools.methods_search outputs                                    # writes docs/results/methods_search.md, .svg
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forgetbench.commands.search.study import FILE, Point, read_study
from forgetbench.statistics.seeds import SeedEstimate, over_seeds
from forgetbench.statistics.significance import holm, t_test_p
from tools.searched import Floats, Measured, measured, points_text, quadrants_of, scoring_config, sets_of

OUT = Path(__file__).resolve().parents[1] / "docs/results/methods_search.md"
SEEDS = (0, 1, 2)
FLOOR = 0.70
"""Validation accuracy on the target that the second choice asks for."""
PLAIN = "plain"
METHODS: Mapping[str, tuple[str, str]] = {
    PLAIN: ("method=plain", ""),
    "ewc": ("method=ewc", "method.strength: {log: [10.0, 100000.0]}"),
    "spider": ("method=spider", ""),
    "lwf": ("method=lwf", "method.strength: {log: [0.03, 10.0]}"),
    "l2sp": ("method=l2sp", "method.alpha: {log: [0.001, 10.0]}"),
    "lora": ("method=lora", "method.rank: {choice: [2, 8, 32]}"),
    "magnitude_mask": ("method=magnitude_mask", "method.share: {uniform: [0.1, 0.95]}"),
    "gmt": ("method=gmt", "method.share: {uniform: [0.1, 0.95]}"),
    "hft": ("method=hft", ""),
    "mdgd_gm": ("method=mdgd_gm", "method.density: {log: [0.02, 0.5]}"),
    "hybrid": ("recipe=methods_hybrid", "recipe.mix.ratio: {uniform: [0.1, 0.7]}"),
    "replay": ("recipe=replay", "recipe.replay.samples: {choice: [20, 80, 320]}"),
    "rslora": ("method=rslora", "method.rank: {choice: [2, 8, 32]}"),
    "dora": ("method=dora", "method.rank: {choice: [2, 8, 32]}"),
    "mdgd": (
        "method=mdgd",
        "method.when: {choice: [always, conflict]}, method.scope: {choice: [tensor, all]}, "
        "method.strength: {log: [0.0001, 0.03]}",
    ),
}
"""Label -> what is trained, and what is searched beside the learning rate."""


@dataclass(frozen=True)
class Choice:
    """A way to choose one point of a search by its validation items."""

    heading: str
    says: str
    value: Callable[[Point], tuple[float, float]]
    """The higher, the better."""


def balance(point: Point) -> tuple[float, float]:
    """Points learnt plus points kept."""
    objectives = point.rungs[-1].objectives
    return objectives.target.value + objectives.retention.value, objectives.retention.value


def kept_at_floor(point: Point) -> tuple[float, float]:
    """What is kept by a point that learns enough; else how much it learns."""
    objectives = point.rungs[-1].objectives
    enough = objectives.target.value >= FLOOR
    return (1.0, objectives.retention.value) if enough else (0.0, objectives.target.value)


CHOICES = (
    Choice(
        "Learnt plus kept",
        "The point with the highest sum of target accuracy and change of the others: a point learnt is worth one kept.",
        balance,
    ),
    Choice(
        "Kept, having learnt enough",
        f"The point that keeps most of the others among those with at least {FLOOR:.0%} on the target; without such "
        "a point the one that learns most.",
        kept_at_floor,
    ),
)


@dataclass(frozen=True)
class Replicate:
    """One search of one method: how many steps it took, and its chosen point."""

    chosen: Measured
    steps: int
    points: int


def commands() -> list[str]:
    """A search per method and seed, the seeds in turn, so that a part of them is a comparison already."""
    lines = []
    for seed in SEEDS:
        for label, (trained, space) in METHODS.items():
            searched = f' "search.space={{{space}}}"' if space else ""
            lines.append(
                f"forgetbench sweep sweep=methods_search {trained}{searched} seed={seed} search.seed={seed} threads=1 "
                f"name={_folder(label, seed)}"
            )
    return lines


def main() -> None:
    """List the commands, or write the page."""
    if "--commands" in sys.argv:
        print("\n".join(commands()))
        return
    outputs = Path(sys.argv[1])
    complete = [
        label for label in METHODS if all((outputs / _folder(label, seed) / "front.csv").is_file() for seed in SEEDS)
    ]
    sections, figures = [], []
    for choice in CHOICES:
        replicates = {
            label: [_replicate(outputs / _folder(label, seed), choice) for seed in SEEDS] for label in complete
        }
        quadrants = _quadrants(outputs / _folder(PLAIN, SEEDS[0]))
        sections.append(_section(choice, replicates, quadrants))
        figures.append((choice, replicates))
    lacking = [label for label in METHODS if label not in complete]
    text = "\n\n".join(
        [
            "# Methods at their own best",
            _intro(outputs, complete, lacking, figures[0][1]),
            "![Target against the other quadrants, for both choices](methods_search.svg)",
            *sections,
        ]
    )
    OUT.write_text(text + "\n", "utf-8")
    _draw(figures, OUT.with_suffix(".svg"))
    print(text)


def _folder(label: str, seed: int) -> str:
    return f"best-{label}-{seed}"


def _quadrants(folder: Path) -> dict[str, list[str]]:
    settings, points = read_study(folder / FILE)
    first = next(point for point in points if point.is_complete)
    return quadrants_of(folder / first.folder, scoring_config(settings, folder), sets_of(settings))


def _replicate(folder: Path, choice: Choice) -> Replicate:
    settings, points = read_study(folder / FILE)
    complete = [point for point in points if point.is_complete]
    chosen = max(complete, key=choice.value)
    name = " ".join(chosen.overrides)
    tested = measured(name, folder / chosen.folder, scoring_config(settings, folder), sets_of(settings), chosen)
    return Replicate(tested, sum(point.trained for point in points), len(complete))


@dataclass(frozen=True)
class Weighted:
    """Items of several sets end to end, with what each counts."""

    sets: Sequence[str]
    weights_N: Floats
    clusters: Sequence[str]
    strata: Sequence[str]

    def values(self, point: Measured) -> Floats:
        """A point's scores, in this order."""
        return np.concatenate([point.items[name].after_N for name in self.sets])


def weigh(point: Measured, targets: Sequence[str], quadrants: Mapping[str, Sequence[str]]) -> dict[str, Weighted]:
    """`target`: its sets alike. `others`: quadrants alike, and the sets of each. `sum`: both."""

    def joined(shares: Mapping[str, float]) -> Weighted:
        sizes = [len(point.items[name].after_N) for name in shares]
        weights = np.repeat([share / size for share, size in zip(shares.values(), sizes, strict=True)], sizes)
        labels = [label for name in shares for label in point.items[name].clusters]
        return Weighted(list(shares), weights, labels, np.repeat(list(shares), sizes).tolist())

    target = {name: 1 / len(targets) for name in targets}
    others = {name: 1 / len(quadrants) / len(names) for names in quadrants.values() for name in names}
    return {"target": joined(target), "others": joined(others), "sum": joined(target | others)}


def against_plain(
    method: Sequence[Measured], plain: Sequence[Measured], quadrants: Mapping[str, Sequence[str]]
) -> dict[str, SeedEstimate]:
    """A method's chosen points less plain's, over searches and test items.

    Each replicate has its own search and its own training, so that the spread between replicates holds the error of
    the choice.

    Args:
        method: its chosen point of each replicate.
        plain: those of plain fine-tuning.
        quadrants: quadrant -> sets.
    """
    counted = {name for names in quadrants.values() for name in names}
    targets = [name for name in plain[0].items if name not in counted]
    estimates = {}
    for name, weighted in weigh(plain[0], targets, quadrants).items():
        differences = [
            weighted.values(chosen) - weighted.values(other) for chosen, other in zip(method, plain, strict=True)
        ]
        estimates[name] = over_seeds(differences, [weighted.clusters], weighted.weights_N, weighted.strata)
    return estimates


def _section(
    choice: Choice, by_method: Mapping[str, Sequence[Replicate]], quadrants: Mapping[str, Sequence[str]]
) -> str:
    chosen = {label: [replicate.chosen for replicate in replicates] for label, replicates in by_method.items()}
    differences = {
        label: against_plain(points, chosen[PLAIN], quadrants) for label, points in chosen.items() if label != PLAIN
    }
    names = ("target", "others", "sum")
    p_values = {
        name: dict(
            zip(differences, holm([t_test_p(estimates[name]) for estimates in differences.values()]), strict=True)
        )
        for name in names
    }
    lines = [
        "| method | target | others | less plain: target | others | sum | p, target | p, others | p, sum |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = sorted(chosen, key=lambda label: -_mean(chosen[label], balance_on_test))
    for label in order:
        cells = [_over_replicates(chosen[label], kind) for kind in ("target", "retention")]
        if label == PLAIN:
            cells += [""] * 6
        else:
            cells += [points_text(differences[label][name]) for name in names]
            cells += [_p(p_values[name][label]) for name in names]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    base = chosen[PLAIN][0].test.target_base
    lines.append(f"| base | {100 * base:.1f} | | | | | | | |")
    rows = ["| method | " + " | ".join(f"search {seed}" for seed in SEEDS) + " |", "|---|" + "---|" * len(SEEDS)]
    for label in order:
        rows.append(f"| {label} | " + " | ".join(_validated(point) for point in chosen[label]) + " |")
    return "\n".join(
        [
            f"## {choice.heading}",
            "",
            choice.says,
            "",
            *lines,
            "",
            "What each search chose, with its target accuracy and the others' change on validation items:",
            "",
            *rows,
        ]
    )


def balance_on_test(point: Measured) -> float:
    """Points learnt plus points kept, on test items."""
    return point.test.target.value + point.test.retention.value


def _mean(points: Sequence[Measured], value: Callable[[Measured], float]) -> float:
    return float(np.mean([value(point) for point in points]))


def _over_replicates(points: Sequence[Measured], kind: str) -> str:
    values = 100 * np.array([getattr(point.test, kind).value for point in points])
    sign = "" if kind == "target" else "+"
    return f"{values.mean():{sign}.1f} ± {values.std(ddof=1):.1f}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value >= 0.001 else "< .001"


def _validated(point: Measured) -> str:
    objectives = point.validation
    return f"`{point.name}`: {100 * objectives.target.value:.1f}, {100 * objectives.retention.value:+.1f}"


def _intro(
    outputs: Path, complete: Sequence[str], lacking: Sequence[str], by_method: Mapping[str, Sequence[Replicate]]
) -> str:
    settings, _ = read_study(outputs / _folder(PLAIN, SEEDS[0]) / FILE)
    items, limit = settings["search"]["items"], settings["matrix"]["limit"]
    steps = {replicate.steps for replicates in by_method.values() for replicate in replicates}
    points = {replicate.points for replicates in by_method.values() for replicate in replicates}
    text = (
        f"Made by `python -m tools.methods_search` from {len(SEEDS)} searches (`sweep=methods_search`) of each method. "
        f"A search tries {_range(points)} points of 120 steps, {_range(steps)} steps in all, over the learning rate "
        "and, where the method has one, its strength; `METHODS` in the tool has the ranges. Points are chosen by "
        "validation items: the target's validation set, and of each other dataset up to "
        f"{items} items that the test leaves out. What is reported is of the test's items, {limit} a dataset, which "
        "no choice has seen. *Others* is the mean change of the off-target quadrants from the base, in points.\n\n"
        "Each search has a seed of its own for what it draws and for what it trains. So the spread between them "
        "(± one standard deviation) holds the error of the training and of the choice. Intervals (95 %) of "
        'differences hold that and the error between test items (docs/statistics.md, "Seeds"); p-values are of the '
        f"same t distribution, adjusted for the {len(complete) - 1} methods of a column (Holm). Three searches are "
        "few: only large differences can be shown."
    )
    if lacking:
        text += f" Not run in full, and left out: {', '.join(lacking)}."
    return text


def _range(values: set[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _draw(figures: Sequence[tuple[Choice, Mapping[str, Sequence[Replicate]]]], path: Path) -> None:
    """A point per method: means over searches on test items, with bars of the standard deviation between them."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "forgetbench"  # the same figure, the same bytes
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(figures), figsize=(11.5, 5.5), layout="constrained", squeeze=False)
    for panel, (choice, by_method) in zip(panels[0], figures, strict=True):
        for number, (label, replicates) in enumerate(by_method.items()):
            x = 100 * np.array([replicate.chosen.test.target.value for replicate in replicates])
            y = 100 * np.array([replicate.chosen.test.retention.value for replicate in replicates])
            bars = {"xerr": x.std(ddof=1), "yerr": y.std(ddof=1), "elinewidth": 0.7}
            panel.errorbar(
                x.mean(), y.mean(), fmt="osD^"[number // 10], ms=6, color=f"C{number % 10}", label=label, **bars
            )
        panel.set_title(choice.heading, fontsize=10)
        panel.set_xlabel("accuracy on the target, test items, %")
        panel.set_ylabel("change of the other quadrants, points")
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()

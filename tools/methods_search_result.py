"""Compare searched methods with plain fine-tuning: a page and its figure.

python -m tools.methods_search_result outputs    # writes docs/results/methods_search.md and .svg
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forgetbench.commands.search.study import FILE, read_study
from forgetbench.statistics.seeds import SeedEstimate, over_seeds
from forgetbench.statistics.significance import holm, t_test_p
from tools.methods_search import (
    CHOICES,
    METHODS,
    OPERATIONS,
    PLAIN,
    SEEDS,
    Choice,
    Replicate,
    best_of_operation,
    best_of_search,
    folder_of,
    is_operated,
)
from tools.searched import Floats, Measured, points_text, quadrants_of, scoring_config, sets_of

OUT = Path(__file__).resolve().parents[1] / "docs/results/methods_search.md"
COMPARED = {"target": "what is learnt", "others": "what is kept", "sum": "their sum"}


def main() -> None:
    """Write the page and its figure."""
    outputs = Path(sys.argv[1])
    searched = [
        label for label in METHODS if all((outputs / folder_of(label, seed) / "front.csv").is_file() for seed in SEEDS)
    ]
    operated = [label for label in OPERATIONS if all(is_operated(outputs, label, seed) for seed in SEEDS)]
    quadrants = _quadrants(outputs / folder_of(PLAIN, SEEDS[0]))
    sections, figures = [], []
    for choice in CHOICES:
        replicates = {
            label: [best_of_search(outputs / folder_of(label, seed), choice) for seed in SEEDS] for label in searched
        }
        for label in operated:
            replicates[label] = [
                best_of_operation(outputs / folder_of(PLAIN, seed), label, seed, choice) for seed in SEEDS
            ]
        sections.append(_section(choice, replicates, quadrants))
        figures.append((choice, replicates))
    lacking = [label for label in (*METHODS, *OPERATIONS) if label not in (*searched, *operated)]
    text = "\n\n".join(
        [
            "# Methods at their own best",
            _intro(outputs, lacking, figures[0][1]),
            _seen(figures, quadrants),
            "![Target against the other quadrants, for both choices](methods_search.svg)",
            *sections,
        ]
    )
    OUT.write_text(text + "\n", "utf-8")
    _draw(figures, OUT.with_suffix(".svg"))
    print(text)


def _quadrants(folder: Path) -> dict[str, list[str]]:
    settings, points = read_study(folder / FILE)
    first = next(point for point in points if point.is_complete)
    return quadrants_of(folder / first.folder, scoring_config(settings, folder), sets_of(settings))


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


def _less_plain(
    by_method: Mapping[str, Sequence[Replicate]], quadrants: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict[str, SeedEstimate]], dict[str, dict[str, float | None]]]:
    """Each method less plain, and by what is compared each method's p-value, adjusted for their number."""
    plain = [replicate.chosen for replicate in by_method[PLAIN]]
    differences = {
        label: against_plain([replicate.chosen for replicate in replicates], plain, quadrants)
        for label, replicates in by_method.items()
        if label != PLAIN
    }
    p_values = {
        name: dict(
            zip(differences, holm([t_test_p(estimates[name]) for estimates in differences.values()]), strict=True)
        )
        for name in COMPARED
    }
    return differences, p_values


def _seen(
    figures: Sequence[tuple[Choice, Mapping[str, Sequence[Replicate]]]], quadrants: Mapping[str, Sequence[str]]
) -> str:
    """Which methods were shown to differ from plain fine-tuning: those whose adjusted p-value is below 0.05."""
    lines = [
        "## What was seen",
        "",
        "Methods that were shown to differ from plain fine-tuning at its best (p < 0.05, adjusted), and how far an "
        "interval reaches to either side of a difference, in points: median and range over methods. Differences "
        "below that cannot be told from none here.",
        "",
        "| choice | in | differ from plain | half of an interval |",
        "|---|---|---|---|",
    ]
    for choice, by_method in figures:
        differences, p_values = _less_plain(by_method, quadrants)
        for name, says in COMPARED.items():
            shown = [label for label, p_value in p_values[name].items() if p_value is not None and p_value < 0.05]
            shown.sort(key=lambda label: -(differences[label][name].value or 0.0))
            listed = ", ".join(f"`{label}` {points_text(differences[label][name])}" for label in shown)
            widths = [
                50 * (estimates[name].ci_high - estimates[name].ci_low)
                for estimates in differences.values()
                if estimates[name].ci_high is not None and estimates[name].ci_low is not None
            ]
            lines.append(
                f"| {choice.heading} | {says} | {listed or 'none'} | {np.median(widths):.1f} "
                f"({min(widths):.1f} to {max(widths):.1f}) |"
            )
    return "\n".join(lines)


def _section(
    choice: Choice, by_method: Mapping[str, Sequence[Replicate]], quadrants: Mapping[str, Sequence[str]]
) -> str:
    chosen = {label: [replicate.chosen for replicate in replicates] for label, replicates in by_method.items()}
    differences, p_values = _less_plain(by_method, quadrants)
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
            cells += [points_text(differences[label][name]) for name in COMPARED]
            cells += [_p(p_values[name][label]) for name in COMPARED]
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


def _intro(outputs: Path, lacking: Sequence[str], by_method: Mapping[str, Sequence[Replicate]]) -> str:
    settings, _ = read_study(outputs / folder_of(PLAIN, SEEDS[0]) / FILE)
    items, limit = settings["search"]["items"], settings["matrix"]["limit"]
    steps = {replicate.steps for replicates in by_method.values() for replicate in replicates}
    points = {replicate.points for replicates in by_method.values() for replicate in replicates}
    text = (
        f"Made by `python -m tools.methods_search_result` from {len(SEEDS)} searches (`sweep=methods_search`) of each "
        "method. "
        f"A search tries {_range(points)} points of 120 steps, {_range(steps)} steps in all, over the learning rate "
        "and, where the method has one, its strength (the ranges: `METHODS` and `OPERATIONS` in "
        "`tools/methods_search.py`). Points are chosen by "
        "validation items: the target's validation set, and of each other dataset up to "
        f"{items} items that the test leaves out. What is reported is of the test's items, {limit} a dataset, which "
        "no choice has seen. *Others* is the mean change of the off-target quadrants from the base, in points.\n\n"
        "Each search has a seed of its own for what it draws and for what it trains. So the spread between them "
        "(± one standard deviation) holds the error of the training and of the choice. Intervals (95 %) of "
        'differences hold that and the error between test items (docs/statistics.md, "Seeds"); p-values are of the '
        f"same t distribution, adjusted for the {len(by_method) - 1} methods of a column (Holm). Three searches are "
        "few: only large differences can be shown."
    )
    if operated := [f"`{label}`" for label in OPERATIONS if label in by_method]:
        text += (
            f"\n\nOperations after training ({', '.join(operated)}) train nothing. Each is applied to the points that "
            "plain's search trained, at a strength each, spread evenly over its range in random order. So an operation "
            "has as many points to choose from as a method, but its search cannot learn from earlier points."
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
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()

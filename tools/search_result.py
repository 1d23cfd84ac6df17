"""Hold a search against a grid at the same number of steps: both fronts chosen on validation items, reported on test.

forgetbench sweep sweep=methods method=... seed=0 threads=1 name=grid
forgetbench sweep sweep=search search.steps=4680 name=search
python -m tools.search_result outputs/grid outputs/search    # writes docs/results/search.md and .svg
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forgetbench.commands.search.objectives import ObjectiveSets
from forgetbench.commands.search.study import FILE, Point, pareto_points, read_study
from forgetbench.commands.search.trial import trained_steps
from forgetbench.config import Retention, SweepConfig
from forgetbench.statistics.pareto import Pair, dominates, hypervolume, pareto_front
from tools.searched import Floats, Measured, measured, quadrants_of, scoring_config, sets_of

OUT = Path(__file__).resolve().parents[1] / "docs/results/search.md"
DRAWS = 2000


@dataclass(frozen=True)
class Comparison:
    """What both sides are measured with."""

    config: SweepConfig
    sets: ObjectiveSets
    quadrants: Mapping[str, Sequence[str]]
    """Quadrant -> its sets, of those that count."""
    loss: float
    """Of the reference: with the base's accuracy, the corner that hypervolumes are measured from."""


def main() -> None:
    """Write the page and its figure."""
    grid_folder, search_folder = map(Path, sys.argv[1:3])
    settings, points = read_study(search_folder / FILE)
    config = scoring_config(settings, search_folder)
    sets = sets_of(settings)
    folders = sorted(path.parent for path in grid_folder.glob("*/run.json"))
    grid = [measured(folder.name, folder, config, sets, None) for folder in folders]
    complete = [point for point in points if point.is_complete]
    searched = [
        measured(
            " ".join(point.overrides),
            search_folder / point.folder,
            config,
            sets,
            point.rungs[-1].objectives,
            generation=point.generation,
        )
        for point in complete
    ]
    comparison = Comparison(config, sets, quadrants_of(folders[0], config, sets), settings["search"]["reference_loss"])
    front_numbers = {point.number for point in pareto_points(points)}
    fronts = {
        "grid": _on_front(grid),
        "search": [
            searched_point
            for searched_point, point in zip(searched, complete, strict=True)
            if point.number in front_numbers
        ],
    }
    steps = {"grid": sum(map(trained_steps, folders)), "search": sum(point.trained for point in points)}
    text = "\n\n".join(
        [
            "# A search against a grid",
            _intro(comparison, settings, len(grid), points, steps),
            "![Both fronts on test items](search.svg)",
            _volumes(fronts, comparison, steps),
            _progress(searched, points, fronts["grid"], comparison),
            *(_front(name, front) for name, front in fronts.items()),
        ]
    )
    OUT.write_text(text + "\n", "utf-8")
    _draw(grid, searched, fronts, OUT.with_suffix(".svg"))
    print(text)


def _on_front(points: Sequence[Measured]) -> list[Measured]:
    front = pareto_front([point.validation.pair for point in points])
    return [point for point, is_front in zip(points, front, strict=True) if is_front]


def _volume(points: Sequence[Measured], comparison: Comparison) -> float:
    """Hypervolume of points on test items, in squared percentage points."""
    if not points:
        return 0.0
    return 1e4 * hypervolume([point.test.pair for point in points], (points[0].test.target_base, -comparison.loss))


def resampled(
    fronts: Mapping[str, Sequence[Measured]], comparison: Comparison, draws: int = DRAWS, seed: int = 0
) -> dict[str, Floats]:
    """Hypervolume of each front under Bayesian bootstrap weights of the clusters of test items (Rubin 1981).

    Both fronts are weighted alike, and stay those that were chosen: what varies is which items the test has.
    """
    every = next(iter(fronts.values()))[0].items
    labels = sorted({label for items in every.values() for label in items.clusters})
    number = {label: place for place, label in enumerate(labels)}
    generator = np.random.default_rng(seed)
    places = {name: np.array([number[label] for label in items.clusters]) for name, items in every.items()}
    volumes = {name: np.zeros(draws) for name in fronts}
    for draw in range(draws):
        weights = generator.exponential(size=len(labels))
        for name, front in fronts.items():
            pairs = [
                _weighted(point, comparison, {key: weights[place] for key, place in places.items()}) for point in front
            ]
            reference = (pairs[0][1], -comparison.loss)
            volumes[name][draw] = 1e4 * hypervolume([pair for pair, _ in pairs], reference)
    return volumes


def _weighted(point: Measured, comparison: Comparison, weights: Mapping[str, Floats]) -> tuple[Pair, float]:
    """Both objectives of a point, and the base's accuracy on the target, with weighted items."""

    def mean(name: str, scores: Floats) -> float:
        return float(np.average(scores, weights=weights[name]))

    items, targets = point.items, list(comparison.sets.targets)
    target = np.mean([mean(name, items[name].after_N) for name in targets])
    base = np.mean([mean(name, items[name].before_N) for name in targets])
    changes = [
        np.mean([mean(name, items[name].after_N - items[name].before_N) for name in names])
        for names in comparison.quadrants.values()
    ]
    kept = min(changes) if comparison.sets.retention is Retention.worst else np.mean(changes)
    return (float(target), float(kept)), float(base)


def _interval(values: Floats) -> str:
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{low:.0f} to {high:.0f}"


def _intro(
    comparison: Comparison, settings: Mapping[str, Any], n_grid: int, points: Sequence[Point], steps: Mapping[str, int]
) -> str:
    ends = [point.end.how for point in points if point.end]
    items, limit = settings["search"]["items"], settings["matrix"]["limit"]
    return (
        f"Made by `python -m tools.search_result` from {n_grid} runs of `sweep=methods` (each of its methods and rates "
        f"at one seed, {steps['grid']:,} optimiser steps) and `sweep=search` with a budget of as many "
        f"({steps['search']:,} spent: {len([point for point in points if point.trained])} points begun, "
        f"{ends.count('complete')} trained whole). Both fronts are chosen on validation items: the target's validation "
        f"set, and of each other set up to {items} items that the test leaves out and that show none of its pictures. "
        f"What is reported is of the {limit} test items of each set, which no choice has seen; sets without validation "
        f"items count on neither side. Target: accuracy on `{', '.join(comparison.sets.targets)}`. Retention: "
        f"{comparison.sets.retention} change of the quadrants "
        + "; ".join(f"{name} ({', '.join(names)})" for name, names in comparison.quadrants.items())
        + f". Hypervolumes are of squared percentage points above the base's accuracy and a loss of "
        f"{100 * comparison.loss:g} points; intervals (95 %) resample clusters of test items {DRAWS:,} times, the "
        "fronts as chosen. One search and one grid, each at one seed: how both vary from seed to seed is not in them."
    )


def _volumes(fronts: Mapping[str, Sequence[Measured]], comparison: Comparison, steps: Mapping[str, int]) -> str:
    draws = resampled(fronts, comparison)
    lines = ["| front | steps | points | hypervolume on test | 95 % interval | dominated by the other front |"]
    lines.append("|---|---|---|---|---|---|")
    for name, front in fronts.items():
        other = next(points for key, points in fronts.items() if key != name)
        beaten = sum(any(dominates(rival.test.pair, point.test.pair) for rival in other) for point in front)
        lines.append(
            f"| {name} | {steps[name]:,} | {len(front)} | {_volume(front, comparison):.0f} | {_interval(draws[name])} "
            f"| {beaten} of {len(front)} |"
        )
    difference = _volume(fronts["search"], comparison) - _volume(fronts["grid"], comparison)
    paired_draws = draws["search"] - draws["grid"]
    lines += ["", f"Search less grid: {difference:+.0f} ({_interval(paired_draws)}), on the same resampled items."]
    return "\n".join(["## Hypervolume", "", *lines])


def _progress(
    searched: Sequence[Measured], points: Sequence[Point], grid: Sequence[Measured], comparison: Comparison
) -> str:
    """How good the search's front was after each generation, tested although it was not chosen then."""
    volume, lines, reached = (
        _volume(grid, comparison),
        ["| generation | steps | points trained whole | hypervolume |"],
        0,
    )
    lines.append("|---|---|---|---|")
    for generation in sorted({point.generation for point in searched}):
        so_far = [point for point in searched if point.generation <= generation]
        steps = sum(point.trained for point in points if point.generation <= generation)
        volume_so_far = _volume(_on_front(so_far), comparison)
        reached = reached or (steps if volume_so_far >= volume else 0)
        lines.append(f"| {generation + 1} | {steps:,} | {len(so_far)} | {volume_so_far:.0f} |")
    said = f"as good as the grid's ({volume:.0f}) after {reached:,} steps" if reached else "never as good as the grid's"
    head = f"The front that validation items choose after each generation, on test items: {said}."
    return "\n".join(["## Over the steps", "", head, "", *lines])


def _front(name: str, front: Sequence[Measured]) -> str:
    lines = [
        "| point | target, validation | retention, validation | target, test | retention, test |",
        "|---|---|---|---|---|",
    ]
    for point in sorted(front, key=lambda point: point.validation.pair):
        numbers = [
            f"{100 * value.value:{sign}.1f} ({100 * value.low:{sign}.1f} to {100 * value.high:{sign}.1f})"
            for objectives in (point.validation, point.test)
            for value, sign in ((objectives.target, ""), (objectives.retention, "+"))
            if value.low is not None and value.high is not None
        ]
        lines.append(f"| `{point.name}` | {' | '.join(numbers)} |")
    base = front[0]
    bases = f"{100 * base.validation.target_base:.1f} | | {100 * base.test.target_base:.1f} | |"
    return "\n".join([f"## The front of the {name}", "", *lines, f"| base | {bases}"])


def _draw(
    grid: Sequence[Measured],
    searched: Sequence[Measured],
    fronts: Mapping[str, Sequence[Measured]],
    path: Path,
) -> None:
    """Every point that was trained whole, on test items; filled ones are on the front that validation items choose."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "forgetbench"  # the same figure, the same bytes
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7.5, 5), layout="constrained")
    for colour, marker, name, points in (("C0", "o", "grid", grid), ("C1", "D", "search", searched)):
        every = np.array([point.test.pair for point in points]) * 100
        panel.scatter(*every.T, s=28, marker=marker, facecolors="none", edgecolors=colour, alpha=0.6, label=name)
        chosen = np.array(sorted(point.test.pair for point in fronts[name])) * 100
        panel.plot(*chosen.T, color=colour, marker=marker, ms=6, lw=1, label=f"{name}, front by validation")
    panel.axvline(100 * grid[0].test.target_base, color="grey", ls=":", lw=1)
    panel.axhline(0, color="grey", ls=":", lw=1)
    panel.set_xlabel("accuracy on the target, test items, %")
    panel.set_ylabel("change of the other quadrants, test items, points")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()

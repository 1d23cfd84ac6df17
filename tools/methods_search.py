r"""Search methods, each at its own best: rate and strength by validation items, and what each search chose.

python -m tools.methods_search --commands | xargs -d '\n' -P 2 -I{} sh -c '{}'    # a search per method and seed
python -m tools.methods_search --operations outputs                               # operations on what plain trained
python -m tools.methods_search_result outputs                    # writes docs/results/methods_search.md and .svg
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from forgetbench.commands.finetune import operate
from forgetbench.commands.search.objectives import Objectives
from forgetbench.commands.search.study import FILE, Point, read_study
from forgetbench.methods.dare import Dare
from forgetbench.methods.grafting import Grafting
from forgetbench.methods.model_tailor import ModelTailor
from forgetbench.methods.operation import Operation
from forgetbench.methods.ties import Ties
from forgetbench.methods.wise_ft import WiseFT
from forgetbench.training.variants import has_variants, trained_checkpoints
from tools.searched import Measured, measured, scoring_config, sets_of, validated

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
class AfterTraining:
    """An operation after training, and what its strength is chosen from."""

    made: Callable[[float], Operation]
    low: float
    high: float
    is_log: bool = False

    def strengths(self, count: int, seed: int) -> list[float]:
        """As many strengths, spread evenly over the range, in random order."""
        ends = np.log([self.low, self.high]) if self.is_log else np.array([self.low, self.high])
        places = np.random.default_rng(seed).permutation(count) + 0.5
        values = ends[0] + places / count * (ends[1] - ends[0])
        return [float(f"{value:.3g}") for value in (np.exp(values) if self.is_log else values)]


OPERATIONS: Mapping[str, AfterTraining] = {
    "wise_ft": AfterTraining(lambda alpha: WiseFT(alphas=[alpha]), 0.0, 1.0),
    "dare": AfterTraining(lambda rate: Dare(rates=[rate]), 0.0, 1.0),
    "ties": AfterTraining(lambda density: Ties(density=density), 0.02, 0.8, is_log=True),
    "grafting": AfterTraining(lambda density: Grafting(density=density), 1e-5, 1e-2, is_log=True),
    "model_tailor": AfterTraining(lambda density: ModelTailor(density=density), 0.02, 0.8, is_log=True),
}


@dataclass(frozen=True)
class Choice:
    """A way to choose one point of a search by its validation items."""

    heading: str
    says: str
    value: Callable[[Objectives], tuple[float, float]]
    """The higher, the better."""


def balance(objectives: Objectives) -> tuple[float, float]:
    """Points learnt plus points kept."""
    return objectives.target.value + objectives.retention.value, objectives.retention.value


def kept_at_floor(objectives: Objectives) -> tuple[float, float]:
    """What is kept by a point that learns enough; else how much it learns."""
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
                f"name={folder_of(label, seed)}"
            )
    return lines


def main() -> None:
    """List the commands, or apply the operations."""
    if sys.argv[1] == "--commands":
        print("\n".join(commands()))
    else:
        operate_on_plain(Path(sys.argv[2]), [int(seed) for seed in sys.argv[3:]] or SEEDS)


def folder_of(label: str, seed: int) -> str:
    """The name of a search's folder."""
    return f"best-{label}-{seed}"


def best_of_search(folder: Path, choice: Choice) -> Replicate:
    """A search's chosen point."""
    settings, points = read_study(folder / FILE)
    complete = [point for point in points if point.is_complete]
    chosen = max(complete, key=lambda point: choice.value(point.rungs[-1].objectives))
    name = " ".join(chosen.overrides)
    config, sets = scoring_config(settings, folder), sets_of(settings)
    tested = measured(name, folder / chosen.folder, config, sets, chosen.rungs[-1].objectives)
    return Replicate(tested, sum(point.trained for point in points), len(complete))


def operate_on_plain(outputs: Path, seeds: Sequence[int] = SEEDS) -> None:
    """Apply every operation to every point of plain fine-tuning's searches, a strength each, and score the results.

    Args:
        outputs: where the searches are.
        seeds: of the searches.
    """
    for seed in seeds:
        folder = outputs / folder_of(PLAIN, seed)
        for label in OPERATIONS:
            for point, strength in _variants_to_make(folder, label, seed):
                operate(OPERATIONS[label].made(strength), folder / point.folder, threads=1)
        for label in OPERATIONS:
            for choice in CHOICES:
                best_of_operation(folder, label, seed, choice)


def _variants_to_make(folder: Path, label: str, seed: int) -> list[tuple[Point, float]]:
    """Every trained point of a search with the strength that an operation has there."""
    complete = [point for point in read_study(folder / FILE)[1] if point.is_complete]
    strengths = OPERATIONS[label].strengths(len(complete), seed=100 * seed + list(OPERATIONS).index(label))
    return list(zip(complete, strengths, strict=True))


def is_operated(outputs: Path, label: str, seed: int) -> bool:
    """Whether an operation has been applied to every point of a search, at the strength that it has there."""
    folder = outputs / folder_of(PLAIN, seed)
    return (folder / "front.csv").is_file() and all(
        has_variants(
            folder / point.folder,
            trained_checkpoints(folder / point.folder, ())[0],
            OPERATIONS[label].made(strength),
        )
        for point, strength in _variants_to_make(folder, label, seed)
    )


def _variant(label: str, strength: float) -> str:
    (setting,) = OPERATIONS[label].made(strength).settings()
    return f"{label}:{setting}" if setting else label


def best_of_operation(folder: Path, label: str, seed: int, choice: Choice) -> Replicate:
    """An operation's chosen point, of those that plain fine-tuning's search trained."""
    _, points = read_study(folder / FILE)
    made = _variants_to_make(folder, label, seed)
    validations = _validations(folder)
    point, strength = max(made, key=lambda pair: choice.value(validations[pair[0].folder][_variant(label, pair[1])]))
    name = f"{label}: {strength:g}, {' '.join(point.overrides)}"
    tested = _tested(name, folder, point.folder, _variant(label, strength))
    return Replicate(tested, sum(point.trained for point in points), len(made))


@cache
def _validations(folder: Path) -> dict[str, dict[str, Objectives]]:
    """Point's folder -> variant -> what it is chosen by."""
    settings, points = read_study(folder / FILE)
    config, sets = scoring_config(settings, folder), sets_of(settings)
    return {point.folder: validated(folder / point.folder, config, sets) for point in points if point.is_complete}


@cache
def _tested(name: str, folder: Path, point_folder: str, variant: str) -> Measured:
    """A variant on test items; both choices are often of the same one."""
    settings, _ = read_study(folder / FILE)
    config, sets = scoring_config(settings, folder), sets_of(settings)
    validation = _validations(folder)[point_folder][variant]
    return measured(name, folder / point_folder, config, sets, validation, variant=variant)


if __name__ == "__main__":
    main()

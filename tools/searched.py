"""Points of a finished search: what they were chosen by, and what became of them on test items.

What `tools.search_result`, `tools.methods_search` and `tools.methods_search_result` share.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forgetbench import compose
from forgetbench.commands.eval_matrix import run_views
from forgetbench.commands.search.objectives import Objectives, ObjectiveSets, paired
from forgetbench.config import Retention, SweepConfig
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.runs.run import Run, read_run
from forgetbench.statistics.seeds import SeedEstimate
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.metrics import item_scores

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Items:
    """One set's scores on test items: of a checkpoint and of its base, and each item's cluster."""

    after_N: Floats
    before_N: Floats
    clusters: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """A trained point: what it was chosen by, and what became of it on test items."""

    name: str
    validation: Objectives
    test: Objectives
    items: Mapping[str, Items]
    """By set."""
    generation: int = 0


def sets_of(settings: Mapping[str, Any]) -> ObjectiveSets:
    """The sets that counted in a search."""
    return ObjectiveSets(
        settings["targets"], settings["others"], settings["skip"], Retention(settings["search"]["retention"])
    )


def scoring_config(settings: Mapping[str, Any], folder: Path) -> SweepConfig:
    """The search's own configuration, as far as scoring goes."""
    composed = compose.compose(SweepConfig, ["sweep=search", "threads=1"])
    kept = ("datasets", "limit", "batch_size")
    matrix = replace(composed.matrix, **{key: settings["matrix"][key] for key in kept})
    search = replace(composed.search, items=settings["search"]["items"])
    return replace(composed, matrix=matrix, search=search, outputs=str(folder.parent))


def measured(
    name: str,
    folder: Path,
    config: SweepConfig,
    sets: ObjectiveSets,
    validation: Objectives | None,
    *,
    generation: int = 0,
    variant: str = "",
) -> Measured:
    """A point's objectives.

    Args:
        name: what the page calls it.
        folder: its run's.
        config: how it is scored.
        sets: what counts.
        validation: what it was chosen by; None of a run that no search made, which is measured.
        generation: of the search.
        variant: of the last checkpoint; that itself if empty.
    """
    run = read_run(folder)
    step = _last_step(run)
    matrix = sets.test(config, step)
    matrix = replace(matrix, class_probe=[], representation=replace(matrix.representation, enabled=False))
    views = _only_variant(run_views(_with_one_variant(run, variant), replace(config, matrix=matrix)), variant)
    items = {
        name: Items(*(np.asarray(item_scores(view).values, float) for view in pair), pair[0].ways[0])
        for name, pair in paired(views, matrix, step).items()
        if name in {*sets.targets, *sets.others}
    }
    validation = validation or validated(folder, config, sets)[variant]
    test = sets.measure(views, matrix, step, tested=True)
    return Measured(name, validation, test, items, generation)


def validated(folder: Path, config: SweepConfig, sets: ObjectiveSets) -> dict[str, Objectives]:
    """What a run's last checkpoint and its variants are chosen by; the checkpoint itself is the variant ``."""
    run = read_run(folder)
    step = _last_step(run)
    matrix = sets.validation(config, step)
    views = run_views(run, replace(config, matrix=matrix))
    return {
        variant: sets.measure(_only_variant(views, variant), matrix, step, tested=False)
        for variant in sorted({view.context.variant for view in views if not view.context.is_base})
    }


def _last_step(run: Run) -> int:
    return max(checkpoint.step for checkpoint in run.checkpoints() if not checkpoint.variant)


@dataclass(frozen=True)
class _OneVariant(Run):
    """A run of which one variant is scored, or the checkpoints themselves if it is empty."""

    variant: str = ""

    def checkpoints(self, steps: Collection[int] = ()) -> list[Checkpoint]:
        """The base, and those of the variant."""
        return [
            checkpoint
            for checkpoint in super().checkpoints(steps)
            if checkpoint.step == 0 or checkpoint.variant == self.variant
        ]


def _with_one_variant(run: Run, variant: str) -> Run:
    return _OneVariant(**{field.name: getattr(run, field.name) for field in fields(run)}, variant=variant)


def _only_variant(views: Sequence[CellView], variant: str) -> list[CellView]:
    """The base's views and those of one variant, as if the variant were the checkpoint."""
    return [
        replace(view, context=replace(view.context, variant=""))
        for view in views
        if view.context.is_base or view.context.variant == variant
    ]


def quadrants_of(folder: Path, config: SweepConfig, sets: ObjectiveSets) -> dict[str, list[str]]:
    """Quadrant -> its sets, of those that count besides the target."""
    run = read_run(folder)
    step = max(checkpoint.step for checkpoint in run.checkpoints() if not checkpoint.variant)
    matrix = replace(sets.test(config, step), class_probe=[])
    quadrants: dict[str, list[str]] = {}
    for name, (view, _) in paired(run_views(run, replace(config, matrix=matrix)), matrix, step).items():
        if name in sets.others:
            quadrants.setdefault(view.context.placement.quadrant, []).append(name)
    return quadrants


def points_text(estimate: SeedEstimate) -> str:
    """A difference in points and, where there is one, its interval."""
    assert estimate.value is not None
    if estimate.ci_low is None or estimate.ci_high is None:
        return f"{100 * estimate.value:+.1f}"
    return f"{100 * estimate.value:+.1f} ({100 * estimate.ci_low:+.1f} to {100 * estimate.ci_high:+.1f})"

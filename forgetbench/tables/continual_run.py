"""A run through a sequence of tasks, and the contribution of its items to the measures of continual learning.

a[t][i] is the score of task i's evaluation set after stage t of T; t = 0 is the base model and task i the target set of
stage i. Every measure is the mean over tasks of a mean over items of each item's contribution, so that items pair
exactly: tasks are strata of equal weight, as datasets are in a quadrant, and errors come from the same machinery. Tasks
to which a measure does not apply (the last one has no backward transfer) are left out and count neither in error nor in
degrees of freedom.

MFT, MFN and MAA are as MLLM-CL prints them (arXiv:2506.05453); BWT and FWT are of Lopez-Paz & Ranzato (2017,
arXiv:1706.08840), FWT beside the base instead of a random model; forgetting is of Chaudhry et al. (2018,
arXiv:1801.10112).

Legend: N items of all the tasks together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from forgetbench.config import Training
from forgetbench.core.records import Metric
from forgetbench.statistics.bounds import CHANGE, SHARE, Limits
from forgetbench.statistics.intervals import Estimate, clip_to_limits
from forgetbench.statistics.strata import Floats, Ways, join_ways
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.last import stage_ends
from forgetbench.tables.metrics import item_scores
from forgetbench.tables.pool import Pool

CHANGES = ("BWT", "FWT", "forgetting")
"""Measures that compare two stages; the others are scores."""

Term = tuple[float, int]
"""Weight of an item's score after a stage, and the stage."""
Items = dict[str, tuple[Floats, Floats]]
"""Task -> scores of its items that add to a measure, and those that subtract from it."""


def _forgetting(i: int, n: int, means: Mapping[int, float]) -> list[Term]:
    """The best stage is chosen by the items that are then compared, which biases the figure upward.

    A stage that was not scored counts as the best, and as its scores are missing, the measure is absent.
    """
    return [(1, max(range(1, n), key=lambda t: means.get(t, math.inf))), (-1, n)] if i < n else []


_TERMS: Mapping[str, Callable[[int, int, Mapping[int, float]], list[Term]]] = {
    "MFT": lambda i, n, means: [(1, i)],
    "MFN": lambda i, n, means: [(1, n)],
    # The mean over i of the sum over t >= i of a[t][i] / t is the mean over t of the mean over i <= t of a[t][i].
    "MAA": lambda i, n, means: [(1 / t, t) for t in range(i, n + 1)],
    "BWT": lambda i, n, means: [(1, n), (-1, i)] if i < n else [],
    "FWT": lambda i, n, means: [(1, i - 1), (-1, 0)] if i > 1 else [],
    "forgetting": _forgetting,
}
"""Terms of task i of n in a measure, given its mean after each stage; empty where the measure leaves it out."""
MEASURES = tuple(_TERMS)


@dataclass(frozen=True)
class ContinualRun:
    """A run through a sequence of tasks."""

    name: str
    strategy: str
    tasks: tuple[str, ...]
    """In the order of training; of a joint or an untrained run, in the order of its sequence."""
    training: Training
    seed: int | None
    cells: Mapping[tuple[str, int, str], CellView]
    """By decoding, stage (0: the base) and task, at the last step of the stage."""

    @property
    def decodings(self) -> list[str]:
        """In sorted order."""
        return sorted({decoding for decoding, _, _ in self.cells})

    def reference_cells(self, decoding: str) -> dict[str, CellView]:
        """The first cell of each task, whose items set the order."""
        return {place[2]: self.cells[place] for place in sorted(self.cells, reverse=True) if place[0] == decoding}

    def scale(self, decoding: str) -> str:
        """The scale of all tasks: `accuracy` for fractions of 1, or a metric they share; else empty."""
        metrics = {
            cell.context.metric for (cell_decoding, _, _), cell in self.cells.items() if cell_decoding == decoding
        }
        scales = {Metric.accuracy if metric.is_fraction else metric for metric in metrics}
        return scales.pop().value if len(scales) == 1 else ""

    def items(self, measure: str, decoding: str, reference_cells: Mapping[str, CellView]) -> Items | None:
        """Contribution of the items of each task to a measure, in the order of the reference cells.

        None where the measure is not defined, where a cell it needs is missing or holds other items than its reference,
        and where the tasks are not scored on one scale. A task that comes back later has no single position: None too.
        """
        if not self.scale(decoding) or len(set(self.tasks)) < len(self.tasks):
            return None
        by_task = {}
        for i, task in enumerate(self.tasks, 1):
            ids = reference_cells[task].frame["sample_id"].tolist() if task in reference_cells else []
            known = {stage: self._scores((decoding, stage, task), ids) for stage in range(len(self.tasks) + 1)}
            scores = {stage: values for stage, values in known.items() if values is not None}
            terms = self._terms(measure, i, {stage: float(values.mean()) for stage, values in scores.items()})
            if any(stage not in scores for _, stage in terms):
                return None
            if terms:
                after = sum(weight * scores[stage] for weight, stage in terms if weight > 0)
                before = sum(-weight * scores[stage] for weight, stage in terms if weight < 0)
                by_task[task] = np.asarray(after), np.broadcast_to(before, np.shape(after))
        return by_task or None

    def limits(self, measure: str, decoding: str) -> Limits | None:
        """Range of a measure; None where the metric of the tasks is no fraction of 1."""
        if self.scale(decoding) != Metric.accuracy:
            return None
        return CHANGE if measure in CHANGES else SHARE

    def pool(self, measure: str, decoding: str) -> Pool | None:
        """A measure's items, each task with equal weight; None where it has no value."""
        reference_cells = self.reference_cells(decoding)
        by_task = self.items(measure, decoding, reference_cells)
        if by_task is None:
            return None
        after, before = zip(*by_task.values(), strict=True)
        layout = item_layout({task: reference_cells[task] for task in by_task})
        # MAA weighs scores of several stages: it is a share, and its items are not.
        limits = SHARE if self.scale(decoding) == Metric.accuracy and measure != "MAA" else None
        after_N, before_N = np.concatenate(after), np.concatenate(before) if measure in CHANGES else None
        weights_N = layout.weights_N if len(by_task) > 1 else None
        return Pool(after_N, before_N, layout.clusters, weights_N, layout.strata, limits)

    def _terms(self, measure: str, i: int, means: Mapping[int, float]) -> list[Term]:
        if self.training is Training.sequence:
            return _TERMS[measure](i, len(self.tasks), means)
        return [(1, int(self.training is Training.joint))] if measure == "MFN" else []

    @cached_property
    def _answers(self) -> dict[tuple[str, int, str], tuple[list[str], Floats]]:
        """Ids and scores of every cell's items; those whose ids repeat cannot be paired."""
        answers = {}
        for place, cell in self.cells.items():
            ids, scores = cell.frame["sample_id"].tolist(), np.asarray(item_scores(cell).values)
            if ids and len(set(ids)) == len(ids):
                answers[place] = ids, scores
        return answers

    def _scores(self, place: tuple[str, int, str], ids: list[str]) -> Floats | None:
        """Scores of the items with these ids; None unless the cell holds them and no other."""
        cell_ids, scores = self._answers.get(place, ([], np.array([])))
        if cell_ids == ids:
            return scores if ids else None
        order = {sample_id: position for position, sample_id in enumerate(cell_ids)}
        return scores[[order[sample_id] for sample_id in ids]] if order.keys() == set(ids) else None


@dataclass(frozen=True)
class ItemLayout:
    """How N items of several tasks cluster and count."""

    clusters: Ways
    weights_N: Floats
    strata: Sequence[str]


def item_layout(reference_cells: Mapping[str, CellView]) -> ItemLayout:
    """The items of each task, tasks with equal weight."""
    sizes = [len(cell.frame) for cell in reference_cells.values()]
    return ItemLayout(
        clusters=join_ways(*(cell.ways for cell in reference_cells.values())),
        weights_N=np.repeat([1 / (len(sizes) * n) for n in sizes], sizes),
        strata=np.repeat(list(reference_cells), sizes).tolist(),
    )


def estimate_pool(pool: Pool, limits: Limits | None) -> Estimate:
    """A measure's value and interval, which lies within the limits."""
    return clip_to_limits(pool.score if pool.before_N is None else pool.change.difference, limits)


def continual_run(
    views: Sequence[CellView], tasks: Sequence[str], strategy: str, training: Training | None = None
) -> ContinualRun | None:
    """Collect the scores of a run on its tasks; None if none of them was scored.

    The last scored step of each stage counts, as trained: its variants do not.

    Args:
        views: cells of one run.
        tasks: the target set of every stage, in order.
        strategy: how the run deals with earlier tasks.
        training: by default what the cells say: `none` if all are of the base, `joint` if a target is `t1+t2+...`.
    """
    trained = [view for view in views if not view.context.variant]
    last = stage_ends(view.context for view in trained)
    cells = {
        (view.context.decoding, view.context.stage_key[1], view.context.dataset): view
        for view in trained
        if view.context.dataset in tasks and view.context.step == last[view.context.stage_key]
    }
    if not cells:
        return None
    first = next(iter(cells.values())).context
    return ContinualRun(first.run, strategy, tuple(tasks), training or _training(trained, tasks), first.seed, cells)


def _training(views: Sequence[CellView], tasks: Sequence[str]) -> Training:
    targets = {view.context.target for view in views if not view.context.is_base}
    if not targets:
        return Training.none
    is_joint = len(tasks) > 1 and any(set(target.split("+")) == set(tasks) for target in targets)
    return Training.joint if is_joint else Training.sequence

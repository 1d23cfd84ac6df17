"""Scored cells in, summary.csv out: a row with what a run learnt and what it kept.

A_T, A_S, H and O are the summary scores of the papers that weigh a target task against the tasks a model came with
(SPIDER, arXiv 2411.10928, and the work it compares with). No model and no torch needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from forgetbench.core.records import QUADRANTS
from forgetbench.statistics.intervals import Estimate
from forgetbench.tables.cell_view import CellView, aligned
from forgetbench.tables.last import stage_ends
from forgetbench.tables.metrics import Cells
from forgetbench.tables.pool import Pool, pool
from forgetbench.tables.scores import RUN_COLUMNS

_SIDE = ("base", "delta", "delta_stderr", "delta_ci_low", "delta_ci_high")
_TARGET, _SOURCE = ([f"{side}_{column}" for column in _SIDE] for side in ("target", "source"))
_RETENTION = ("retention", "retention_ci_low", "retention_ci_high")
_FLOATS = ("A_T", "A_S", "H", "O", *_TARGET, *_SOURCE, *_RETENTION)
_INTEGERS = ("seed", "stage", "step", "n_sources")
SUMMARY_COLUMNS = (*RUN_COLUMNS, "decoding", "n_sources", *_FLOATS)


def summary_rows(cells: Sequence[CellView]) -> pd.DataFrame:
    """summary.csv: one row per run, stage and decoding, at the stage's last step, and one per variant of it.

    A_T is the score on the target set in its metric; with several sets trained jointly, their mean, each counted once,
    if all were scored on one scale. A CIDEr-D stands beside accuracies as fractions of 1: both are what the papers
    print, divided by 100 (their CIDEr of 117 is 1.17 here).

    A_S is the mean of the source datasets' accuracies, each counted once: every set in a quadrant other than the
    target's own, in a metric that is a fraction of 1. Left out are the class-label probe, which measures something
    else; a set in no quadrant, which is the target in part; and a set whose task the mix has trained on, as its score
    was learnt and not kept. Two runs with different mixes may thus have different sources (see `n_sources`): compare
    their `source_delta` and `retention`, which hold the sources fixed, not their A_S.

    H is the harmonic mean of A_T and A_S and O their mean. `retention` is A_S over the base's A_S. Intervals of deltas
    are those of scores.csv (target) and matrix.csv (datasets as strata, each of equal weight); that of `retention` is
    of the ratio, linearised (delta method), with the same strata, weights and clusters.

    What cannot be known is empty: A_T of a target that was not scored in this decoding, H and O without both scores,
    all that compares with the base if one base cell is missing, and all but the scores for the base itself.

    Raises:
        UserError: a cell and its base hold different items.
    """
    index = Cells(cells)
    groups: dict[tuple[object, ...], list[CellView]] = defaultdict(list)
    for cell in sorted(_last_step_cells(cells), key=lambda cell: cell.context.dataset):
        groups[(*_run(cell).values(), cell.context.decoding)].append(cell)
    frame = pd.DataFrame([_row(group, index) for group in groups.values()], columns=list(SUMMARY_COLUMNS))
    frame = frame.astype(dict.fromkeys(("mix_ratio", *_FLOATS), "Float64") | dict.fromkeys(_INTEGERS, "Int64"))
    return frame.sort_values(["run", "stage", "variant", "decoding"], kind="stable", ignore_index=True)


def _last_step_cells(cells: Sequence[CellView]) -> list[CellView]:
    """The cells of each stage's last step; of the base, only where the run has nothing else."""
    steps = stage_ends(cell.context for cell in cells)
    trained = {run for (run, _), step in steps.items() if step}
    return [
        cell
        for cell in cells
        if cell.context.step == steps[cell.context.stage_key] and (cell.context.step or cell.context.run not in trained)
    ]


def _run(cell: CellView) -> dict[str, object]:
    return {name: getattr(cell.context, name) for name in RUN_COLUMNS}


def _row(group: Sequence[CellView], index: Cells) -> dict[str, object]:
    context = group[0].context
    target = target_cells(group)
    sources = [cell for cell in group if is_source(cell)]
    target_pool, source_pool = pool_cells(target, index), pool_cells(sources, index)
    row: dict[str, object] = {**_run(group[0]), "decoding": context.decoding, "n_sources": len(sources)}
    score_t, score_s = target_pool.score.value, source_pool.score.value
    row |= {"A_T": score_t, "A_S": score_s}
    if score_t is not None and score_s is not None:
        total = score_t + score_s
        row |= {"H": 2 * score_t * score_s / total if total else 0.0, "O": total / 2}
    row |= {"target_base": target_pool.score_before.value, "source_base": source_pool.score_before.value}
    if context.is_base:
        return row
    row |= _columns(_TARGET, target_pool.change.difference) | _columns(_SOURCE, source_pool.change.difference)
    ratio = source_pool.retention
    return row | dict(zip(_RETENTION, (ratio.value, ratio.ci_low, ratio.ci_high), strict=True))


def target_cells(group: Sequence[CellView]) -> list[CellView]:
    """The cells of the target; none unless all of its sets were scored, on one scale."""
    targets = group[0].context.targets
    cells = [cell for cell in group if cell.context.dataset in targets and len(cell.frame)]
    scales = {None if cell.context.metric.is_fraction else cell.context.metric for cell in cells}
    return cells if len(cells) == len(targets) and len(scales) == 1 else []


def is_source(cell: CellView) -> bool:
    """Whether a cell measures retention: another quadrant, no probe, not seen in the mix, a fraction of 1."""
    context, place = cell.context, cell.context.placement
    elsewhere = place.quadrant not in ("", QUADRANTS[0]) and not place.seen_in_mix
    return elsewhere and not context.probe and context.metric.is_fraction and len(cell.frame) > 0


def _columns(names: Sequence[str], delta: Estimate) -> dict[str, object]:
    values = (delta.value, delta.stderr, delta.ci_low, delta.ci_high)
    return dict(zip(names[1:], values, strict=True))


def pool_cells(group: Sequence[CellView], index: Cells) -> Pool:
    """Pool the cells of a checkpoint, paired with their bases."""
    bases = [index.base(cell) for cell in group]
    return pool([(cell, base and aligned(base, cell)) for cell, base in zip(group, bases, strict=True)])

"""continual.csv: the score on every task of a sequence after every stage, and the measures computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from forgetbench.config import Training
from forgetbench.statistics.intervals import Estimate
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.continual_run import MEASURES, ContinualRun, continual_run, estimate_pool
from forgetbench.tables.metrics import estimate, item_scores

CONTINUAL_COLUMNS = (
    "run", "strategy", "model", "method", "seed", "tasks", "decoding", "measure", "stage", "step", "trained", "task",
    "position", "relation", "metric", "value", "stderr", "ci_low", "ci_high", "n", "n_clusters",
)  # fmt: skip
_INTEGERS = ("seed", "stage", "step", "position", "n", "n_clusters")
_FLOATS = ("value", "stderr", "ci_low", "ci_high")
SCORE = "score"
"""The measure of a row that holds a score a[t][i]."""
JOINED = ">"
"""Between the tasks of `tasks`, in their order."""


def continual_rows(
    views: Sequence[CellView], tasks: Sequence[str], strategy: str, training: Training | None = None
) -> pd.DataFrame:
    """continual.csv: a row for every a[t][i] that was scored, and a row for every measure.

    A score has the value and interval that it has in scores.csv. Measures are absent where a cell that they need was
    not scored, where tasks are not on one scale, and where they are not defined: a single task has neither BWT nor FWT
    nor forgetting, a joint run and the base alone have MFN only. Arguments as of `continual_run`.
    """
    run = continual_run(views, tasks, strategy, training)
    rows = [] if run is None else [*_score_rows(run), *_measure_rows(run)]
    frame = pd.DataFrame(rows, columns=list(CONTINUAL_COLUMNS))
    frame = frame.astype(dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_FLOATS, "Float64"))
    order = {name: place for place, name in enumerate((SCORE, *MEASURES))}
    return frame.sort_values(
        ["decoding", "measure", "stage", "position"],
        key=lambda column: column.map(order) if column.name == "measure" else column,
        kind="stable",
        ignore_index=True,
    )


def _score_rows(run: ContinualRun) -> Iterator[dict[str, object]]:
    for (decoding, stage, task), cell in run.cells.items():
        context, position = cell.context, run.tasks.index(task) + 1
        yield _head(run, decoding, SCORE) | {
            "stage": stage,
            "step": context.step,
            "trained": context.target if stage else "",
            "task": task,
            "position": position,
            "relation": _relation(run, stage, task),
            "metric": context.metric.value,
            **_columns(estimate(item_scores(cell))),
        }


def _relation(run: ContinualRun, stage: int, task: str) -> str:
    """How a task relates to a stage."""
    if not stage:
        return "base"
    if run.training is Training.joint:
        return "joint"
    if run.tasks[stage - 1] == task:
        return "current"
    return "past" if task in run.tasks[:stage] else "future"


def _measure_rows(run: ContinualRun) -> Iterator[dict[str, object]]:
    for decoding in run.decodings:
        for measure in MEASURES:
            if (pool := run.pool(measure, decoding)) is not None:
                head = _head(run, decoding, measure) | {"metric": run.scale(decoding)}
                yield head | _columns(estimate_pool(pool, run.limits(measure, decoding)))


def _head(run: ContinualRun, decoding: str, measure: str) -> dict[str, object]:
    context = next(iter(run.cells.values())).context
    return {
        "run": run.name,
        "strategy": run.strategy,
        "model": context.model,
        "method": context.method,
        "seed": run.seed,
        "tasks": JOINED.join(run.tasks),
        "decoding": decoding,
        "measure": measure,
        "trained": "",
        "task": "",
        "relation": "",
    }


def _columns(estimated: Estimate) -> dict[str, object]:
    return {name: getattr(estimated, name) for name in (*_FLOATS, "n", "n_clusters")}

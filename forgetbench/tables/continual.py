"""continual.csv: how well every task of a sequence is done after every stage, and the measures made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from forgetbench.config import Training
from forgetbench.statistics.intervals import Estimate
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.continual_course import MEASURES, Course, course, estimate_pool
from forgetbench.tables.metrics import estimate, item_scores

CONTINUAL_COLUMNS = (
    "run", "strategy", "model", "method", "seed", "tasks", "decoding", "measure", "stage", "step", "trained", "task",
    "position", "relation", "metric", "value", "stderr", "ci_low", "ci_high", "n", "n_clusters",
)  # fmt: skip
_INTEGERS = ("seed", "stage", "step", "position", "n", "n_clusters")
_FLOATS = ("value", "stderr", "ci_low", "ci_high")
SCORE = "score"
"""The measure of a row that holds one a[t][i]."""
JOINED = ">"
"""Between the tasks of `tasks`, in their order."""


def continual_rows(
    views: Sequence[CellView], tasks: Sequence[str], strategy: str, training: Training | None = None
) -> pd.DataFrame:
    """continual.csv: a row for every a[t][i] that was scored, and one for every measure that they make.

    A score has the value and interval that it has in scores.csv. Measures are absent where a cell that they need was
    not scored, where tasks are not on one scale, and where they are not defined: a single task has neither BWT nor FWT
    nor forgetting, a joint run and the base alone have MFN only. Arguments as of `course`.
    """
    found = course(views, tasks, strategy, training)
    rows = [] if found is None else [*_score_rows(found), *_measure_rows(found)]
    frame = pd.DataFrame(rows, columns=list(CONTINUAL_COLUMNS))
    frame = frame.astype(dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_FLOATS, "Float64"))
    order = {name: place for place, name in enumerate((SCORE, *MEASURES))}
    return frame.sort_values(
        ["decoding", "measure", "stage", "position"],
        key=lambda column: column.map(order) if column.name == "measure" else column,
        kind="stable",
        ignore_index=True,
    )


def _score_rows(found: Course) -> Iterator[dict[str, object]]:
    for (decoding, stage, task), cell in found.cells.items():
        context, position = cell.context, found.tasks.index(task) + 1
        yield _head(found, decoding, SCORE) | {
            "stage": stage,
            "step": context.step,
            "trained": context.target if stage else "",
            "task": task,
            "position": position,
            "relation": _relation(found, stage, task),
            "metric": context.metric.value,
            **_columns(estimate(item_scores(cell))),
        }


def _relation(found: Course, stage: int, task: str) -> str:
    """What a task is to a stage."""
    if not stage:
        return "base"
    if found.training is Training.joint:
        return "joint"
    if found.tasks[stage - 1] == task:
        return "current"
    return "past" if task in found.tasks[:stage] else "future"


def _measure_rows(found: Course) -> Iterator[dict[str, object]]:
    for decoding in found.decodings:
        for measure in MEASURES:
            if (pool := found.pool(measure, decoding)) is not None:
                head = _head(found, decoding, measure) | {"metric": found.scale(decoding)}
                yield head | _columns(estimate_pool(pool, found.limits(measure, decoding)))


def _head(found: Course, decoding: str, measure: str) -> dict[str, object]:
    context = next(iter(found.cells.values())).context
    return {
        "run": found.run,
        "strategy": found.strategy,
        "model": context.model,
        "method": context.method,
        "seed": found.seed,
        "tasks": JOINED.join(found.tasks),
        "decoding": decoding,
        "measure": measure,
        "trained": "",
        "task": "",
        "relation": "",
    }


def _columns(found: Estimate) -> dict[str, object]:
    return {name: getattr(found, name) for name in (*_FLOATS, "n", "n_clusters")}

"""Runs through a sequence of tasks, read back from their stored answers, by strategy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from forgetbench.analysis.continual import JOINED
from forgetbench.analysis.continual_course import Course, course
from forgetbench.config import Training
from forgetbench.stored.runs import StoredRun

TABLE = "continual.csv"


def tasks_of(run: StoredRun) -> list[str]:
    """The target set of every stage, in order; of a base model alone, those that its table names."""
    if run.file is not None:
        return [stage["set"] for stage in run.file.config["data"]["stages"]]
    table = run.table(TABLE)
    return [] if table.empty else str(table["tasks"].iloc[0]).split(JOINED)


def strategy_of(run: StoredRun) -> str:
    """What its way of learning task after task is called: as its configuration says, else as its recipe."""
    if run.file is not None:
        return str(run.file.config.get("strategy") or run.recipe)
    table = run.table(TABLE)
    return run.recipe if table.empty else str(table["strategy"].iloc[0])


def training_of(run: StoredRun) -> Training:
    """Whether its tasks were trained one after the other, jointly or not at all."""
    if run.file is None:
        return Training.none
    return Training(run.file.config["data"].get("training", Training.sequence))


def is_continual(run: StoredRun) -> bool:
    """Whether it is about several tasks."""
    return len(tasks_of(run)) > 1


def continual_table(run: StoredRun) -> pd.DataFrame:
    """continual.csv with the strategy as `strategy_of` calls it; empty for a run of one task."""
    table = run.table(TABLE) if is_continual(run) else pd.DataFrame()
    return table.assign(strategy=strategy_of(run)) if len(table) else table


def courses(runs: Sequence[StoredRun]) -> dict[str, list[Course]]:
    """The scored runs of several tasks, by strategy.

    Raises:
        UserError: answers are gone.
    """
    found: dict[str, list[Course]] = defaultdict(list)
    for run in runs:
        tasks = tasks_of(run)
        if len(tasks) > 1 and not run.scores.empty:
            strategy = strategy_of(run)
            one = course(run.views(_needed(run, tasks)), tasks, strategy, training_of(run))
            if one is not None:
                found[strategy].append(one)
    return dict(found)


def _needed(run: StoredRun, tasks: Sequence[str]) -> pd.DataFrame:
    """Rows of the tasks at the last step of each stage, as trained."""
    own = run.own_metrics()
    own = own[own["variant"] == ""]
    last = own["step"] == own.groupby(own["stage"].where(own["step"] > 0, 0))["step"].transform("max")
    needed: pd.DataFrame = own[last & own["dataset"].isin(list(tasks))]
    return needed

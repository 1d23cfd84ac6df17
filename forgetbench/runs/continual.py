"""Read continual-learning runs from their stored answers, grouped by strategy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import pandas as pd

from forgetbench.config import FinetuneConfig, Training
from forgetbench.config.result import deciding
from forgetbench.runs.stored import StoredRun
from forgetbench.tables.continual import JOINED
from forgetbench.tables.continual_run import ContinualRun, continual_run
from forgetbench.tables.last import as_trained, last_step_of_stages

TABLE = "continual.csv"
"""Table of a run."""
STRATEGIES = "strategies.csv"
"""Table of a sweep."""


def tasks_of(run: StoredRun) -> list[str]:
    """The target dataset of every stage, in order; for a base model without a run, the tasks in its table."""
    if run.run is not None:
        return run.run.config.data.tasks
    table = run.table(TABLE)
    return [] if table.empty else str(table["tasks"].iloc[0]).split(JOINED)


def strategy_names(runs: Sequence[StoredRun]) -> list[str]:
    """The name of each run's continual-learning strategy: from its configuration, else its recipe.

    If runs of the same name differ in more than task order and seed, the differing settings are added to the name.
    """
    names, settings = [_strategy(run) for run in runs], [_compared_settings(run) for run in runs]
    settings_by_name: dict[str, list[Mapping[str, object]]] = defaultdict(list)
    for name, run_settings in zip(names, settings, strict=True):
        settings_by_name[name].append(run_settings)
    return [
        _unique_name(name, run_settings, settings_by_name[name])
        for name, run_settings in zip(names, settings, strict=True)
    ]


def _strategy(run: StoredRun) -> str:
    if run.run is not None:
        return run.run.config.strategy or run.recipe
    table = run.table(TABLE)
    return run.recipe if table.empty else str(table["strategy"].iloc[0])


def _compared_settings(run: StoredRun) -> dict[str, object]:
    """The settings that distinguish runs of the same strategy: all but task order and seed."""
    if run.run is None:
        return {}
    settings = deciding(FinetuneConfig, run.run.settings)
    groups = {name: group for name, group in settings.items() if isinstance(group, Mapping)}
    data = {key: value for key, value in groups["data"].items() if key != "stages"}
    return {f"{name}.{key}": value for name, group in (groups | {"data": data}).items() for key, value in group.items()}


def _unique_name(name: str, run_settings: Mapping[str, object], same_name: Sequence[Mapping[str, object]]) -> str:
    differing = [key for key, value in run_settings.items() if any(other.get(key) != value for other in same_name)]
    differences = ", ".join(f"{key.rpartition('.')[2]}={run_settings[key]}" for key in differing)
    return f"{name} ({differences})" if differences else name


def training_of(run: StoredRun) -> Training:
    """Whether a run's tasks were trained one after another, jointly or not at all."""
    return run.run.config.data.training if run.run else Training.none


def is_continual(run: StoredRun) -> bool:
    """Whether a run has several tasks."""
    return len(tasks_of(run)) > 1


def continual_table(run: StoredRun) -> pd.DataFrame:
    """continual.csv with the strategy name of `strategy_names`; empty for a run with a single task."""
    table = run.table(TABLE) if is_continual(run) else pd.DataFrame()
    return table.assign(strategy=run.strategy) if len(table) else table


def continual_runs(runs: Sequence[StoredRun]) -> dict[str, list[ContinualRun]]:
    """The results of scored runs with several tasks, by strategy.

    Raises:
        UserError: stored answers are missing.
    """
    by_strategy: dict[str, list[ContinualRun]] = defaultdict(list)
    for run in runs:
        tasks = tasks_of(run)
        if len(tasks) > 1 and not run.scores.empty:
            result = continual_run(run.views(_final_task_rows(run, tasks)), tasks, run.strategy, training_of(run))
            if result is not None:
                by_strategy[run.strategy].append(result)
    return dict(by_strategy)


def _final_task_rows(run: StoredRun, tasks: Sequence[str]) -> pd.DataFrame:
    """Rows of the tasks at the last step of each stage, without variants."""
    last = last_step_of_stages(as_trained(run.own_metrics()))
    return last[last["dataset"].isin(list(tasks))]
